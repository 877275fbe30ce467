"""Kills after every step, cut and damaged files, full disks, lost ownership."""

import random
import runpy
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recurra.engine.config import StoreConfig
from recurra.engine.errors import (
    RecurraError,
    StoreCorruptError,
    StoreError,
    StoreFencedError,
    StoreFormatError,
    StoreFullError,
)
from recurra.engine.events import Event
from recurra.engine.store import Batch, Reader, Store
from recurra.engine.store.records import BASE, TAIL, row_key
from recurra.engine.store.rocks import Rocks

WORKER = Path(__file__).with_name("worker.py")
BATCHES = 60
CONFIG = StoreConfig(anchor=8, tail_events=4, hot_histories=16, batch_events=16, sync_ms=0, log_events=500)

Opener = Callable[..., Store]


Work = Callable[..., tuple[int, str]]


@pytest.fixture
def work(forker: Any, tmp_path: Path) -> Work:
    """Run the worker as a process; returns its status and what it printed."""
    code, log = f"import runpy\nrunpy.run_path({str(WORKER)!r}, run_name='__main__')", tmp_path / "log"

    def run(directory: Path, *more: str, **environment: str) -> tuple[int, str]:
        status = forker.run(code, [directory, str(BATCHES), *more], log, **environment)
        return status, log.read_text()

    return run


def batch(number: int) -> Batch:
    events = [Event(f"u{(3 * number + k) % 30}", f"i{number}", 100 * number + k) for k in range(16)]
    return Batch.of(events, offsets={"s": number + 1})


@pytest.fixture(scope="module")
def worker() -> dict[str, Any]:
    """The worker's functions, to do in this process what need not be killed."""
    return runpy.run_path(str(WORKER))


@pytest.fixture(scope="module")
def expected(worker: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> str:
    """The digest of a run that nothing disturbed."""
    return finished(worker, tmp_path_factory.mktemp("whole") / "s")


def finished(worker: dict[str, Any], directory: Path) -> str:
    with Store.open(directory, worker["CONFIG"]) as store:
        worker["fill"](store, BATCHES)
        return store.digest()


@pytest.mark.parametrize(
    ("failpoint", "kills"),
    [
        ("store.before_commit", 1),
        ("store.before_commit:31", 1),
        ("store.after_commit:17", 2),
        ("store.synced:40", 1),
        ("store.opened", 2),
    ],
)
def test_killed_after_each_step(
    work: Work, tmp_path: Path, worker: dict[str, Any], expected: str, failpoint: str, kills: int
) -> None:
    for _ in range(kills):
        assert work(tmp_path / "s", RECURRA_FAILPOINT=failpoint)[0] == -signal.SIGKILL
    assert finished(worker, tmp_path / "s") == expected


def test_the_broken_build_is_noticed(work: Work, tmp_path: Path, worker: dict[str, Any], expected: str) -> None:
    status, _ = work(tmp_path / "s", RECURRA_BREAK="two-writes", RECURRA_FAILPOINT="store.between_writes:20")
    assert status == -signal.SIGKILL
    assert finished(worker, tmp_path / "s") != expected


def test_a_full_disk_stops_writing_until_it_is_reopened(work: Work, tmp_path: Path, expected: str) -> None:
    status, said = work(tmp_path / "s", str(50_000))
    assert status == 0, said
    full, refused, still_full, readable, reopened, digest = said.splitlines()
    assert "free some space, nothing was applied" in full
    assert refused.startswith("the store refuses to write until it is reopened, because: cannot write")
    assert still_full.startswith("cannot reopen the store")
    assert readable == "still readable"
    assert reopened == "same after reopening"
    assert digest == expected


def test_few_file_descriptors(tmp_path: Path) -> None:
    code = (
        "import resource, runpy, sys; sys.argv = sys.argv[1:];"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)); runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    command = [sys.executable, "-c", code, str(WORKER), str(tmp_path / "s"), "10"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.strip()) == 64


def test_a_cut_log_gives_an_earlier_batch(tmp_path: Path) -> None:
    digests: dict[int, str] = {}
    with Store.open(tmp_path / "s", CONFIG) as store:
        for number in range(40):
            digests[number] = store.digest()
            store.apply(batch(number), 10**9)
        digests[40] = store.digest()
        shutil.copytree(tmp_path / "s", tmp_path / "running")
    log = max((tmp_path / "running" / "rocks").glob("*.log"), key=lambda file: file.stat().st_size)
    whole = log.read_bytes()
    assert len(whole) > 20_000
    draw = random.Random(0)
    offsets = set()
    for cut in [len(whole), *(draw.randrange(200, len(whole)) for _ in range(20))]:
        copy = tmp_path / "copy"
        shutil.copytree(tmp_path / "running", copy)
        (copy / "rocks" / log.name).write_bytes(whole[:cut])
        with Store.open(copy, CONFIG) as store:
            reached = store.offsets().get("s", 0)
            assert store.digest() == digests[reached]
            assert store.next_seq == sum(len(chunk.seqs) for chunk in store.log())
            for number in range(reached, 40):
                store.apply(batch(number), 10**9)
            assert store.digest() == digests[40]
        offsets.add(reached)
        shutil.rmtree(copy)
    assert 40 in offsets
    assert len(offsets) > 10


@pytest.mark.parametrize("kind", ["*.sst", "*.log"])
def test_a_flipped_bit_never_gives_a_wrong_answer(tmp_path: Path, kind: str) -> None:
    digests: dict[int, str] = {}
    with Store.open(tmp_path / "s", CONFIG) as store:
        for number in range(40):
            digests[number] = store.digest()
            store.apply(batch(number), 10**9)
        digests[40] = store.digest()
        if kind == "*.sst":
            store.compact()
        shutil.copytree(tmp_path / "s", tmp_path / "running")
    name = max((tmp_path / "running" / "rocks").glob(kind), key=lambda file: file.stat().st_size).name
    whole = (tmp_path / "running" / "rocks" / name).read_bytes()
    draw, found = random.Random(1), 0
    for _ in range(20):
        copy = tmp_path / "copy"
        shutil.copytree(tmp_path / "running", copy)
        damaged = bytearray(whole)
        damaged[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        (copy / "rocks" / name).write_bytes(damaged)
        try:
            with Store.open(copy, CONFIG) as store:
                reached = store.offsets().get("s", 0)
                assert store.digest() == digests[reached]
                found += reached < 40
        except StoreCorruptError:
            found += 1
        shutil.rmtree(copy)
    assert found >= 10


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (row_key(TAIL, 3), None, "history of user row 3 is missing or malformed"),
        (row_key(TAIL, 3), b"\x02" + bytes(30), "history of user row 3 is missing or malformed"),
        (row_key(BASE, 3), None, "history of user row 3 is missing or malformed"),
        (row_key(b"I", 3), b"\x01\x00", "an item record is malformed"),
        (row_key(b"I", 39), None, "40 items are expected, 39 are there"),
        (row_key(b"U", 3), b"\x05name", "a user id is malformed: unknown record version 05"),
        (b"Mcounters", None, "the counters are missing"),
        (b"Mformat", None, "holds records but not its own format"),
        (b"Os", b"\x01x", "an offset is malformed"),
    ],
)
def test_malformed_records_are_named(tmp_path: Path, key: bytes, value: bytes | None, message: str) -> None:
    with Store.open(tmp_path / "s", CONFIG) as store:
        for number in range(40):
            store.apply(batch(number), 10**9)
    db = Rocks(tmp_path / "s" / "rocks", 1 << 20)
    if value is None:
        db.write([], [key], sync=False)
    else:
        db.write([(key, value)], [], sync=False)
    db.close()

    def use() -> None:
        with Store.open(tmp_path / "s", CONFIG) as store:
            store.digest()

    with pytest.raises(StoreCorruptError, match=message):
        use()


def test_a_newer_format_is_refused_and_left_alone(tmp_path: Path) -> None:
    with Store.open(tmp_path / "s", CONFIG) as store:
        store.apply(batch(0), 10**9)
    (tmp_path / "s" / "FORMAT").write_text("2\n")
    before = {file: file.read_bytes() for file in (tmp_path / "s" / "rocks").iterdir()}
    for kind in (Store, Reader):
        with pytest.raises(StoreFormatError, match=r"has format '2', this release reads format 1.*nothing was changed"):
            kind.open(tmp_path / "s", CONFIG)
    assert {file: file.read_bytes() for file in (tmp_path / "s" / "rocks").iterdir()} == before
    (tmp_path / "s" / "FORMAT").write_text("1\n")
    db = Rocks(tmp_path / "s" / "rocks", 1 << 20)
    db.write([(b"Mformat", b"7")], [], sync=False)
    db.close()
    with pytest.raises(StoreFormatError, match=r"has format '7'"):
        Store.open(tmp_path / "s", CONFIG)
    (tmp_path / "s" / "FORMAT").unlink()
    with pytest.raises(StoreFormatError, match="recurra did not make"):
        Store.open(tmp_path / "s", CONFIG)


class Faulty(Rocks):
    """A database whose writes fail on demand: before or after they took place."""

    def __init__(self, path: Path, cache_bytes: int, secondary: Path | None = None) -> None:
        super().__init__(path, cache_bytes, secondary)
        self.fault: Exception | None = None
        self.after = False

    def write(self, puts: list[tuple[bytes, bytes]], deletes: list[bytes], *, sync: bool) -> None:
        if self.fault is not None and not self.after:
            raise self.fault
        super().write(puts, deletes, sync=sync)
        if self.fault is not None:
            raise self.fault


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(
    "fault", [StoreError("Input/output error"), StoreFullError("no space"), KeyboardInterrupt()], ids=repr
)
def test_a_failed_write_leaves_memory_equal_to_the_disk(tmp_path: Path, fault: Any, after: bool) -> None:
    opened: list[Faulty] = []

    def database(path: Path, cache_bytes: int, secondary: Path | None) -> Rocks:
        opened.append(Faulty(path, cache_bytes, secondary))
        return opened[-1]

    with Store.open(tmp_path / "s", CONFIG, database=database) as store:
        for number in range(5):
            store.apply(batch(number), 10**9)
        users, items, digest = len(store.users), len(store.items), store.digest()
        opened[0].fault, opened[0].after = fault, after
        special = batch(5)
        special.users[0] = "newcomer"
        with pytest.raises(type(fault)):
            store.apply(special, 10**9)
        assert (len(store.users), len(store.items), store.offsets()) == (users, items, {"s": 5})
        assert "newcomer" not in store.users
        assert store.failure is not None
        if not after:
            assert store.digest() == digest
        with pytest.raises(StoreError, match="refuses to write until it is reopened"):
            store.apply(special, 10**9)
        store.reopen()
        assert store.failure is None
        # whether the batch is there or not, its offset says so
        assert store.offsets() == {"s": 6 if after else 5}
        assert ("newcomer" in store.users) == after
        if not after:
            assert store.digest() == digest
            store.apply(special, 10**9)
        with Store.open(tmp_path / "other", CONFIG) as other:
            for number in range(5):
                other.apply(batch(number), 10**9)
            other.apply(special, 10**9)
            assert other.digest() == store.digest()


def test_a_writer_that_lost_the_store_is_fenced(tmp_path: Path) -> None:
    with Store.open(tmp_path / "s", CONFIG) as store:
        store.apply(batch(0), 10**9)
        digest = store.digest()
        (tmp_path / "s" / "OWNER").write_text('{"pid": 1, "started": "later", "epoch": 9}')
        with pytest.raises(StoreFencedError, match=r"process 1 owns it at epoch 9, ours was 1"):
            store.apply(batch(1), 10**9)
        with pytest.raises(StoreFencedError):
            store.reopen()
        assert store.digest() == digest
        (tmp_path / "s" / "OWNER").unlink()
        with pytest.raises(StoreFencedError, match="owner file is gone"):
            store.apply(batch(1), 10**9)


def test_an_unwritable_directory_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "rocks").write_text("a file where the database should be")
    (tmp_path / "s" / "FORMAT").write_text("1\n")
    with pytest.raises(RecurraError, match="cannot open the store"):
        Store.open(tmp_path / "s", CONFIG)
    # the lock was let go
    (tmp_path / "s" / "rocks").unlink()
    Store.open(tmp_path / "s", CONFIG).close()
