import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from recurra import Event
from recurra.engine.clock import EventClock
from recurra.engine.config import Config
from recurra.engine.errors import ClosedError, TrainingError
from recurra.engine.store import Batch, Store
from recurra.engine.training import Trainer, supervisor
from recurra.engine.training.windows import UserLog
from recurra.engine.versions import VersionStore

# stands in for the program where what it learns is not the point: says what a test tells it to
_ECHO = """
import json, sys
for line in sys.stdin:
    request = json.loads(line)
    {body}
"""


@pytest.fixture
def echo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, config: Config) -> Iterator[Callable[[str], Trainer]]:
    trainers = []

    def start(body: str) -> Trainer:
        monkeypatch.setattr(supervisor, "_PROGRAM", _ECHO.format(body=body))
        trainers.append(Trainer(tmp_path, config, 1))
        return trainers[-1]

    yield start
    for trainer in trainers:
        trainer.close()


_KEPT = (
    'print(json.dumps({"id": request["id"], "report": {"verdict": "kept", "reason": str(request["id"])}}), flush=True)'
)


def test_requests_are_answered_one_after_the_other(echo: Callable[[str], Trainer]) -> None:
    trainer = echo(_KEPT)
    assert trainer.pid is None
    assert trainer.train().reason == "1"
    pid = trainer.pid
    assert trainer.train().reason == "2"
    assert trainer.pid == pid
    with pytest.raises(TrainingError, match="start one first"):
        trainer.poll()


def test_progress_comes_before_the_report(echo: Callable[[str], Trainer]) -> None:
    trainer = echo('print(json.dumps({"id": 1, "progress": 0.5}), flush=True); sys.stdin.readline(); ' + _KEPT)
    trainer.start()
    assert trainer.busy
    with pytest.raises(TrainingError, match="under way already"):
        trainer.start()
    assert trainer.poll(wait_s=60) is None
    assert trainer.progress == 0.5
    assert trainer.poll() is None


def test_an_error_is_raised_with_its_sentence(echo: Callable[[str], Trainer]) -> None:
    trainer = echo(
        'print(json.dumps({"id": request["id"], "error": "the sky fell; the serving version stays"}), flush=True)'
    )
    for _ in range(2):
        with pytest.raises(TrainingError, match=r"^the sky fell; the serving version stays$"):
            trainer.train()
    assert not trainer.busy


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "signal 9"),
        ("sys.exit('no room for weights')", r"exit status 1 \(no room for weights\)"),
        ("print('{\"id\"', flush=True); sys.exit(0)", "exit status 0"),
    ],
)
def test_a_program_that_dies_is_started_anew(
    echo: Callable[[str], Trainer], monkeypatch: pytest.MonkeyPatch, body: str, reason: str
) -> None:
    trainer = echo(body)
    with pytest.raises(TrainingError, match=rf"ended before it answered: {reason}; the serving version stays"):
        trainer.train()
    assert trainer.pid is None
    monkeypatch.setattr(supervisor, "_PROGRAM", _ECHO.format(body=_KEPT))
    assert trainer.train().reason == "2"


def test_closing_gives_up_the_training_under_way(echo: Callable[[str], Trainer]) -> None:
    trainer = echo("pass")
    failures: list[str] = []

    def wait() -> None:
        try:
            trainer.train()
        except TrainingError as error:
            failures.append(str(error))

    waiter = threading.Thread(target=wait)
    waiter.start()
    while trainer.pid is None:
        time.sleep(0.01)
    trainer.close()
    waiter.join(60)
    assert failures == ["the training program ended before it answered: it was closed; the serving version stays"]
    with pytest.raises(ClosedError):
        trainer.start()
    trainer.close()


def test_a_program_that_cannot_be_started_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, config: Config
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "missing"))
    with pytest.raises(TrainingError, match="cannot start the training program: No such file"):
        Trainer(tmp_path, config, 1).train()


def _fill(path: Path, log: UserLog, config: Config) -> Store:
    store = Store.open(path / "store", config.store, clock=EventClock(10**12))
    rows = sorted(zip(log.seqs, log.users, log.items, log.times_ms, strict=True))
    events = [Event(f"u{user}", f"i{item}", int(time_ms)) for _, user, item, time_ms in rows]
    for begin in range(0, len(events), 100):
        store.apply(Batch.of(events[begin : begin + 100]))
    return store


def _gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_a_version_is_trained_on_the_store_and_published(
    tmp_path: Path, config: Config, stream: Callable[..., UserLog], monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = VersionStore(tmp_path / "models")
    with _fill(tmp_path, stream(800), config) as store:
        trainer = Trainer(tmp_path, config, store.epoch)
        # killed when the version is on disk and not yet current: nothing has changed
        monkeypatch.setenv("RECURRA_FAILPOINT", "versions.named")
        with pytest.raises(TrainingError, match="signal 9"):
            trainer.train(699)
        assert versions.current() == 0
        monkeypatch.delenv("RECURRA_FAILPOINT")
        report = trainer.train(699)
        assert (report.verdict, report.newest_seq, report.number) == ("promoted", 699, 2)
        assert report.cpu_s > 0
        version = versions.load(versions.current())
        assert version.number == 2
        assert version.facts.store_id == store.store_id
        assert version.facts.cutoff_seq == report.cutoff_seq == 599
        assert msgspec.convert(version.report, type(report)).ndcg_candidate == report.ndcg_candidate
        # the same program goes on from there, on what was committed since
        again = trainer.train()
        assert (again.parent, again.newest_seq) == (2, 799)
        assert again.steps > 0
        with pytest.raises(TrainingError, match="up to event 900 was asked for, the log ends at 799"):
            trainer.train(900)
        trainer.close()


def test_only_what_trained_counts_as_an_attempt(tmp_path: Path, config: Config, stream: Callable[..., UserLog]) -> None:
    # else a first version that was refused would wait for ever more events than there are
    versions = VersionStore(tmp_path / "models")
    with _fill(tmp_path, stream(500), config) as store:
        trainer = Trainer(tmp_path, config, store.epoch)
        assert trainer.train(299).verdict == "kept"
        assert versions.attempted() == -1
        assert trainer.train().steps > 0
        assert versions.attempted() == 499
        trainer.close()


def test_a_former_owner_publishes_nothing(tmp_path: Path, config: Config, stream: Callable[..., UserLog]) -> None:
    with _fill(tmp_path, stream(500), config) as store:
        trainer = Trainer(tmp_path, config, store.epoch - 1)
        with pytest.raises(TrainingError, match=r"new owner \(epoch 1, the training began under 0\)"):
            trainer.train()
        trainer.close()
    assert VersionStore(tmp_path / "models").list() == []


_PARENT = """
import sys, time
from recurra.engine.config import Config, TrainingConfig
from recurra.engine.training import Trainer
trainer = Trainer(sys.argv[1], Config(), 1)
trainer.start()
print(trainer.pid, flush=True)
time.sleep(float(sys.argv[2]))
"""


@pytest.mark.parametrize("after_s", [0.0, 5.0])
def test_no_program_outlives_a_killed_engine(tmp_path: Path, after_s: float) -> None:
    # 0 s: amid its imports; 5 s: at work or waiting for the next request
    environment = {**os.environ, "PYTHONSAFEPATH": "1"}
    command = [sys.executable, "-c", _PARENT, str(tmp_path), "600"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        time.sleep(after_s)
        assert not _gone(pid)
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 20
    while not _gone(pid):
        assert time.monotonic() < deadline
        time.sleep(0.05)
