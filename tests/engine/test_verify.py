"""Damage of every kind in a directory: what the check finds, what is put aside, and what is there again afterwards."""

import os
import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import recurra
from recurra.engine.config import Config, StoreConfig, TrainingConfig
from recurra.engine.errors import StoreCorruptError, StoreInUseError
from recurra.engine.store import Batch, Store
from recurra.engine.store.records import TAIL, row_key
from recurra.engine.store.rocks import Rocks
from recurra.engine.verify import repair, verify

CONFIG = Config(
    store=StoreConfig(anchor=8, tail_events=4, hot_histories=64, batch_events=64),
    training=TrainingConfig(mode="off", min_events=100, first_passes=1),
)
NOW_MS = 1_700_000_000_000


def events(first: int, count: int) -> list[recurra.Event]:
    return [recurra.Event(f"u{n * 7 % 40}", f"i{n * n % 23}", NOW_MS + n, "play") for n in range(first, first + count)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a directory with a store of many files, a snapshot of the caches, and two versions."""
    path = tmp_path_factory.mktemp("verify") / "data"
    with recurra.open(path, CONFIG) as engine:
        for part in range(3):
            engine.ingest(events(400 * part, 400))
            engine.train()
    assert verify(path, CONFIG) == []
    return path


@pytest.fixture
def data(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "data"))


def flip(path: Path, at: int, bit: int = 1) -> None:
    raw = bytearray(path.read_bytes())
    raw[at] ^= bit
    path.write_bytes(raw)


def damaged_parts(path: Path) -> list[str]:
    return [each.part for each in verify(path, CONFIG)]


def test_every_flipped_bit_is_found_or_changes_nothing(data: Path, tmp_path: Path) -> None:
    with recurra.open(data, CONFIG, read_only=True) as engine:
        digest = engine.digest()
    files = [*(data / "store" / "rocks").glob("*.sst"), *(data / "store" / "rocks").glob("MANIFEST*")]
    assert len(files) > 1
    draw, found = random.Random(5), 0
    for _ in range(25):
        file = draw.choice(files)
        before = file.read_bytes()
        flip(file, draw.randrange(len(before)), 1 << draw.randrange(8))
        if verify(data, CONFIG):
            found += 1
        else:
            with recurra.open(data, CONFIG, read_only=True) as engine:
                assert engine.digest() == digest
        file.write_bytes(before)
    assert found >= 20
    assert verify(data, CONFIG) == []


def malformed_history(data: Path) -> None:
    db = Rocks(data / "store" / "rocks", 1 << 20)
    db.write([(row_key(TAIL, 3), b"\x02" + bytes(30))], [], sync=True)
    db.close()


def lost_item(data: Path) -> None:
    db = Rocks(data / "store" / "rocks", 1 << 20)
    db.write([], [row_key(b"I", 3)], sync=True)
    db.close()


def lost_user(data: Path) -> None:
    db = Rocks(data / "store" / "rocks", 1 << 20)
    db.write([], [row_key(b"U", 3)], sync=True)
    db.close()


def hole_in_the_log(data: Path) -> None:
    db = Rocks(data / "store" / "rocks", 1 << 20)
    keys = list(db.keys(b"L"))
    assert len(keys) > 2
    db.write([], [keys[1]], sync=True)
    db.close()


def half_a_table(data: Path) -> None:
    file = max((data / "store" / "rocks").glob("*.sst"), key=lambda each: each.stat().st_size)
    os.truncate(file, file.stat().st_size // 2)


def lost_table(data: Path) -> None:
    max((data / "store" / "rocks").glob("*.sst"), key=lambda each: each.stat().st_size).unlink()


@pytest.mark.parametrize(
    ("harm", "part"),
    [
        (malformed_history, "users"),
        (lost_item, "database"),
        (lost_user, "database"),
        (hole_in_the_log, "log"),
        (half_a_table, "database"),
        (lost_table, "database"),
    ],
)
def test_a_damaged_store_is_put_aside_and_built_again(data: Path, harm: Callable[[Path], None], part: str) -> None:
    harm(data)
    found = verify(data, CONFIG)
    assert part in [each.part for each in found]
    assert {each.kind for each in found} == {"store"}
    quarantine = repair(data, found)
    assert quarantine is not None
    assert (quarantine / "store" / "rocks").is_dir()
    # the versions are sound and serve on, over the events that come again
    with recurra.open(data, CONFIG) as engine:
        engine.ingest(events(0, 1_200))
        assert engine.version > 0
        assert engine.health().status == "ok"
    assert verify(data, CONFIG) == []


def test_a_damaged_version_is_put_aside_and_the_one_before_serves(data: Path) -> None:
    with recurra.open(data, CONFIG, read_only=True) as engine:
        numbers = [each.number for each in engine.versions()]
    flip(data / "models" / f"{numbers[-1]:06d}" / "weights.safetensors", 500)
    found = verify(data, CONFIG)
    assert [each.part for each in found] == [f"version {numbers[-1]}"]
    assert repair(data, found) is not None
    assert verify(data, CONFIG) == []
    with recurra.open(data, CONFIG) as engine:
        assert engine.version == (numbers[-2] if len(numbers) > 1 else 0)
        assert engine.health().status == "ok"


@pytest.mark.parametrize("content", [None, b"{", b'{"number": 77}'])
def test_a_bad_pointer_gives_way_to_the_newest_version(data: Path, content: bytes | None) -> None:
    pointer = data / "models" / "current.json"
    pointer.unlink() if content is None else pointer.write_bytes(content)
    found = verify(data, CONFIG)
    assert [(each.kind, each.part, each.path) for each in found] == [("version", "serving version", str(pointer))]
    repair(data, found)
    assert verify(data, CONFIG) == []
    with recurra.open(data, CONFIG, read_only=True) as engine:
        assert engine.version == max(each.number for each in engine.versions())


def test_damaged_caches_and_marks_are_put_aside(data: Path) -> None:
    (cache,) = (data / "store" / "caches").iterdir()
    flip(cache, cache.stat().st_size // 2)
    flip(data / "store" / "SYNCED", 30)
    found = verify(data, CONFIG)
    assert [each.kind for each in found] == ["mark", "cache"]
    repair(data, found)
    assert verify(data, CONFIG) == []
    with recurra.open(data, CONFIG) as engine:
        assert engine.health().events == 1_200
    assert (data / "store" / "SYNCED").exists()


def test_a_directory_in_use_is_not_touched(data: Path) -> None:
    with recurra.open(data, CONFIG):
        with pytest.raises(StoreInUseError, match=f"in use by process {os.getpid()}"):
            verify(data, CONFIG)
        with pytest.raises(StoreInUseError):
            repair(data, [])


PROGRAM = """
import os, signal, sys
import recurra
from recurra.engine.config import Config, StoreConfig, TrainingConfig
config = Config(store=StoreConfig(anchor=8, tail_events=4, hot_histories=64, batch_events=64, sync_ms=60_000),
                training=TrainingConfig(mode="off"))
with recurra.open(sys.argv[1], config) as engine:
    for n in range(60):
        engine.ingest([recurra.Event(f"u{n % 9}", f"i{n}", 1_700_000_000_000 + n)], durable=n < 50)
    engine.forget("u0")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def killed(forker: Any, tmp_path: Path) -> Path:
    """Make a directory whose engine was killed after durable events, all in its write-ahead log."""
    assert forker.run(PROGRAM, [tmp_path / "data"], tmp_path / "log") == -signal.SIGKILL
    return tmp_path / "data"


def log_of(data: Path) -> Path:
    return max((data / "store" / "rocks").glob("*.log"), key=lambda file: file.stat().st_size)


def test_a_log_cut_in_what_was_not_synced_loses_nothing_that_was_promised(killed: Path) -> None:
    # a torn end is what a kill or a power loss leaves
    with log_of(killed).open("ab") as file:
        file.write(b"\x17" * 100)
    assert verify(killed, CONFIG) == []
    with recurra.open(killed, CONFIG) as engine:
        assert engine.health().status == "ok"


def test_durable_events_that_a_damaged_log_lost_are_in_health_until_a_person_closes_it(
    killed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = log_of(killed)
    flip(log, log.stat().st_size // 2)
    assert "database" in damaged_parts(killed)
    for _ in range(2):
        with recurra.open(killed, CONFIG) as engine:
            health = engine.health()
            assert health.status == "degraded"
            problem = health.problems["damage"]
            assert "synced events" in problem
            assert "sent again" in problem
    assert 0 < int(problem.split()[0]) < 60
    found = verify(killed, CONFIG)
    assert [each.kind for each in found] == ["loss"]
    repair(killed, found)
    with recurra.open(killed, CONFIG) as engine:
        assert engine.health().status == "ok"


def test_a_lost_forget_is_noticed_too(killed: Path) -> None:
    """No event is missing then, but a user is back who was erased durably."""
    log = log_of(killed)
    raw = log.read_bytes()
    log.write_bytes(raw[: len(raw) - 20])
    with recurra.open(killed, CONFIG) as engine:
        assert engine.history("u0")
        assert "records) were missing" in engine.health().problems["damage"]


def test_a_record_found_damaged_while_it_runs_is_in_health(data: Path) -> None:
    with recurra.open(data, CONFIG) as engine:
        store = engine._store
        assert isinstance(store, Store)
        user = next(name for name, row in store.users.items() if row == 3)
        store._db.write([(row_key(TAIL, 3), b"\x02" + bytes(30))], [], sync=True)
        store._histories.drop([3])
        with pytest.raises(StoreCorruptError, match="recurra verify"):
            engine.history(user)
        health = engine.health()
        assert health.status == "degraded"
        assert "history of user row 3 is missing or malformed" in health.problems["damage"]


def test_the_mark_costs_no_sync_and_survives_a_full_device(tmp_path: Path) -> None:
    with Store.open(tmp_path / "s", CONFIG.store) as store:
        (tmp_path / "s" / "SYNCED").unlink()
        (tmp_path / "s" / "SYNCED").mkdir()
        store.apply(Batch.of(events(0, 3)), NOW_MS * 2)
        store.sync()
        assert store.failure is None
