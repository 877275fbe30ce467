"""Faults of the process itself: few descriptors, a second owner, a stopped owner, signals under load, little memory."""

import contextlib
import json
import random
import resource
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from recurra.connectors.audit import audit
from recurra.engine.config import Config
from recurra.engine.errors import RecurraError
from recurra.engine.store import Reader

from .conftest import START_MS

# small, so that there is something to disturb
BATCH = 8


@pytest.fixture
def events(tmp_path: Path) -> Path:
    """Write 6,000 events, which a service reads in a few seconds."""
    path, draw = tmp_path / "events.jsonl", random.Random(0)
    with path.open("w") as file:
        for number in range(6_000):
            row = {"user": f"u{draw.randrange(300)}", "item": f"i{draw.randrange(200)}", "time": START_MS + number}
            file.write(json.dumps(row) + "\n")
    return path


class Service:
    """``recurra run`` over a file, as a process."""

    def __init__(self, forker: Any, data: Path, source: str | Path) -> None:
        self.data = data
        self.process: Any = None
        self._forker = forker
        self._source = source
        self._log = data.with_suffix(".log")
        self._log.touch()

    def start(self, prefix: str = "", data: Path | None = None) -> None:
        """Start it; ``prefix`` is Python code that the process runs first."""
        config = self._log.with_suffix(".toml")
        config.write_text(f"[store]\nbatch_events = {BATCH}\n")
        arguments = ["run", "--data", data or self.data, "--source", self._source, "--api", "off", "--train", "off"]
        arguments += ["--config", config]
        code = f"{prefix}\nimport sys\nfrom recurra.cli import main\nmain(sys.argv[1:])"
        self.process = self._forker.start_code(code, arguments, self._log)

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def until(self, words: str, count: int = 1) -> None:
        """Wait until the log holds ``words`` so often."""
        self.until_true(lambda: self.log().count(words) >= count)

    def until_true(self, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not holds():
            assert self.process.poll() is None, self.log()
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.01)

    def read(self) -> int:
        """Return the stored offset, 0 while the store is being made."""
        if not (self.data / "store" / "FORMAT").exists():
            return 0
        with contextlib.suppress(RecurraError), Reader.open(self.data / "store") as store:
            return sum(store.offsets().values())
        return 0

    def exact(self, events: Path) -> None:
        """Compare every user with the file up to the stored offset."""
        found = audit(self.data, str(events), Config())
        assert found.ok, found


@pytest.fixture
def service(forker: Any, tmp_path: Path) -> Iterator[Callable[..., Service]]:
    made: list[Service] = []

    def make(source: str | Path, name: str = "data") -> Service:
        made.append(Service(forker, tmp_path / name, source))
        return made[-1]

    yield make
    for each in made:
        if each.process is not None and each.process.poll() is None:
            each.process.kill()
            each.process.wait(30)


def _limit(kind: int, value: int) -> str:
    return f"import resource\nresource.setrlimit({kind}, ({value}, {value}))"


def test_a_service_with_few_file_descriptors_works_or_says_so(service: Callable[..., Service], events: Path) -> None:
    runner = service(events)
    runner.start(_limit(resource.RLIMIT_NOFILE, 64))
    runner.until("the source has ended")
    assert "oo many open files" not in runner.log()
    runner.process.send_signal(signal.SIGTERM)
    assert runner.process.wait(10) == 0, runner.log()
    runner.exact(events)
    # too few to open the store: one sentence, and nothing is harmed
    runner.start(_limit(resource.RLIMIT_NOFILE, 10))
    assert runner.process.wait(20) not in (0, 70), runner.log()
    assert "oo many open files" in runner.log()
    assert "Traceback" not in runner.log()
    assert runner.read() == 6_000
    runner.exact(events)


def test_a_second_service_is_refused_within_two_seconds_and_the_first_goes_on(
    service: Callable[..., Service], events: Path
) -> None:
    first, second = service(events), service(events, "second")
    first.start()
    first.until("reading ")
    asked = time.monotonic()
    second.start(data=first.data)
    status = second.process.wait(10)
    seconds = time.monotonic() - asked
    assert status not in (0, 70), second.log()
    assert f"in use by process {first.process.pid}" in second.log()
    assert seconds < 2
    first.until("the source has ended")
    first.process.send_signal(signal.SIGTERM)
    assert first.process.wait(10) == 0
    first.exact(events)
    assert first.read() == 6_000


def test_a_stopped_owner_keeps_the_store_and_one_that_lost_it_never_commits(
    service: Callable[..., Service], events: Path
) -> None:
    zombie, other = service(events), service(events, "second")
    zombie.start()
    zombie.until_true(lambda: zombie.read() > 0)
    zombie.process.send_signal(signal.SIGSTOP)
    # it still holds the lock: nobody else gets in
    other.start(data=zombie.data)
    assert other.process.wait(10) != 0
    assert f"in use by process {zombie.process.pid}" in other.log()
    before = zombie.read()
    assert before < 6_000
    # a person puts a copy in the place of the directory, and the lock does not go with it
    shutil.copytree(zombie.data, zombie.data.with_name("copy"), symlinks=True)
    zombie.data.rename(zombie.data.with_name("lost"))
    zombie.data.with_name("copy").rename(zombie.data)
    other.data = zombie.data
    other.start()
    other.until("the source has ended")
    zombie.process.send_signal(signal.SIGCONT)
    status = zombie.process.wait(20)
    assert status not in (0, 70), zombie.log()
    assert f"this process lost the store {zombie.data / 'store'}: process {other.process.pid} owns it" in zombie.log()
    other.process.send_signal(signal.SIGTERM)
    assert other.process.wait(10) == 0, other.log()
    assert other.read() == 6_000
    other.exact(events)
    # to what it had it wrote at most the batch that was under way
    zombie.data = zombie.data.with_name("lost")
    assert 0 <= zombie.read() - before <= BATCH
    zombie.exact(events)


# the memories of a large store are folded for minutes, and functions are compiled at the first start of all
SLOW_START = """
import time
from recurra.engine.serving.caches import Caches
print("starting", flush=True)
Caches.recover = lambda self: time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_service_that_is_asked_to_stop_while_it_starts(
    service: Callable[..., Service], events: Path, number: int
) -> None:
    runner = service(events)
    runner.start(SLOW_START)
    runner.until("starting")
    time.sleep(1)
    asked = time.monotonic()
    runner.process.send_signal(number)
    runner.process.wait(20)
    assert time.monotonic() - asked < 5
    runner.start()
    runner.until("the source has ended")
    runner.exact(events)


@pytest.mark.parametrize("kill_after_s", [None, 0.02])
def test_a_service_that_is_asked_to_stop_under_load(
    service: Callable[..., Service], events: Path, kill_after_s: float | None
) -> None:
    runner = service(events)
    runner.start()
    runner.until_true(lambda: runner.read() > 600)
    asked = time.monotonic()
    runner.process.send_signal(signal.SIGTERM)
    if kill_after_s is None:
        assert runner.process.wait(20) == 0, runner.log()
        assert time.monotonic() - asked < 5
        assert runner.log().rstrip().endswith("stopped")
    else:
        time.sleep(kill_after_s)
        runner.process.kill()
        assert runner.process.wait(20) in (0, -signal.SIGKILL)
    assert 600 < runner.read() < 6_000
    runner.exact(events)
    runner.start()
    runner.until("the source has ended")
    assert runner.read() == 6_000
    runner.exact(events)
