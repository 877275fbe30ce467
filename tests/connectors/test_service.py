"""The service: sources that end, what it says, how it stops."""

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

import recurra
from recurra.connectors.http import Listener
from recurra.connectors.local_sources import FileSource
from recurra.connectors.service import run_service
from recurra.engine import errors
from recurra.engine.config import TrainingConfig

START_MS = 1_700_000_000_000
CONFIG = recurra.Config(training=TrainingConfig(mode="off"))


class Running:
    """A service in a thread."""

    def __init__(self, data: Path, source: str, config: recurra.Config = CONFIG) -> None:
        self.said: list[str] = []
        self.failure: BaseException | None = None
        self._stopped = threading.Event()
        self._arguments = (data, config, source)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        data, config, source = self._arguments
        try:
            api = Listener("127.0.0.1", 0)
            run_service(data, config, source=source, api=api, stopped=self._stopped, say=self.said.append)
        except Exception as error:
            self.failure = error

    @property
    def url(self) -> str:
        return next(line.removeprefix("serving ") for line in self.said if line.startswith("serving "))

    def until(self, words: str, timeout_s: float = 30) -> None:
        deadline = time.monotonic() + timeout_s
        while not any(words in line for line in self.said):
            assert self._thread.is_alive(), (self.said, self.failure)
            assert time.monotonic() < deadline, self.said
            time.sleep(0.02)

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join(20)
        assert not self._thread.is_alive()


@contextmanager
def running(data: Path, source: str) -> Iterator[Running]:
    service = Running(data, source)
    try:
        yield service
    finally:
        service.stop()


def _lines(path: Path, count: int, start: int = 0) -> None:
    with path.open("a") as file:
        for i in range(start, start + count):
            file.write(json.dumps({"user": f"u{i % 9}", "item": f"m{i % 31}", "time": START_MS + i}) + "\n")


def test_a_file_is_read_to_its_end_and_continued(tmp_path: Path) -> None:
    path, data = tmp_path / "events.jsonl", tmp_path / "data"
    _lines(path, 1_500)
    with path.open("a") as file:
        file.write("not an event\n")
    with running(data, str(path)) as service:
        service.until("the source has ended")
        health = httpx.get(f"{service.url}/health").json()
        assert health["events"] == 1_500
        assert health["source"] | {"path": ""} == {
            "kind": "file", "path": "", "connected": True, "state": "ended", "problem": None,
            "events": 1_500, "total": 1_500, "refused": 1,
        }  # fmt: skip
        assert httpx.get(f"{service.url}/readyz").status_code == 200
    assert service.failure is None
    assert service.said[-1] == "stopped"
    (letter,) = (data / "dead-letters.jsonl").read_text().splitlines()
    assert json.loads(letter)["text"] == "not an event"
    # the next start reads what has come since, and nothing twice
    _lines(path, 100, start=1_500)
    with running(data, str(path)) as service:
        service.until("the source has ended")
        assert httpx.get(f"{service.url}/health").json()["events"] == 1_600


def test_a_file_that_is_empty_at_first_is_read_at_the_next_start(tmp_path: Path) -> None:
    path, data = tmp_path / "events.jsonl", tmp_path / "data"
    path.write_text("")
    with running(data, str(path)) as service:
        service.until("the source has ended")
        assert httpx.get(f"{service.url}/health").json()["source"]["state"] == "ended"
    _lines(path, 20)
    with path.open("a") as file:
        file.write('{"user": "u1", "it')
    with running(data, str(path)) as service:
        service.until("the source has ended")
        assert httpx.get(f"{service.url}/health").json()["events"] == 20
    assert not (data / "dead-letters.jsonl").exists()


def test_a_file_that_is_refused_whole_is_a_problem(tmp_path: Path) -> None:
    path, data = tmp_path / "events.jsonl", tmp_path / "data"
    path.write_text("no event\n" * 30)
    with running(data, str(path)) as service:
        service.until("all 30 lines")
        health = httpx.get(f"{service.url}/health").json()
        assert health["status"] == "degraded"
        assert "all 30 lines" in health["problems"]["source"]
        ready = httpx.get(f"{service.url}/readyz")
        assert ready.status_code == 503
        assert "all 30 lines" in ready.json()["reasons"][0]
        assert httpx.get(f"{service.url}/v1/users/u/recommendations").status_code == 200


def test_what_was_added_to_a_file_and_refused_whole_is_a_problem(tmp_path: Path) -> None:
    path, data = tmp_path / "events.jsonl", tmp_path / "data"
    _lines(path, 20)
    with running(data, str(path)) as service:
        service.until("the source has ended")
    with path.open("a") as file:
        file.write("no event\n" * 3)
    with running(data, str(path)) as service:
        service.until("all 3 lines that were added")
        assert httpx.get(f"{service.url}/readyz").status_code == 503
    _lines(path, 1, start=20)
    with running(data, str(path)) as service:
        service.until("the source has ended")
        assert httpx.get(f"{service.url}/readyz").status_code == 200


def test_a_file_that_changed_otherwise_is_refused(tmp_path: Path) -> None:
    path, data = tmp_path / "events.jsonl", tmp_path / "data"
    _lines(path, 20)
    with running(data, str(path)) as service:
        service.until("the source has ended")
    path.unlink()
    _lines(path, 20, start=7)
    service = Running(data, str(path))
    service._thread.join(30)
    assert isinstance(service.failure, errors.SourceMismatchError)
    with recurra.open(data, read_only=True) as engine:
        assert engine.health().events == 20


@pytest.mark.parametrize(
    ("source", "error", "words"),
    [
        ("/no/such/file.inter", errors.InputError, "no file at /no/such/file.inter"),
        ("kafka://nonsense", errors.InputError, "expected kafka://HOST:PORT/TOPIC"),
        ("/", errors.InputError, "is a directory"),
        ("gopher://plays", errors.InputError, "unknown scheme"),
    ],
)
def test_a_source_that_cannot_be(tmp_path: Path, source: str, error: type[Exception], words: str) -> None:
    service = Running(tmp_path / "data", source)
    service._thread.join(30)
    assert isinstance(service.failure, error)
    assert words in str(service.failure)
    assert not (tmp_path / "data").exists()


def test_a_truncated_parquet_file(tmp_path: Path) -> None:
    path = tmp_path / "events.parquet"
    path.write_bytes(b"PAR1" + bytes(100))
    service = Running(tmp_path / "data", str(path))
    service._thread.join(30)
    assert isinstance(service.failure, errors.InputError)
    assert str(path) in str(service.failure)


def test_what_is_no_exception_ends_the_service_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Panic(BaseException):
        """What libraries with native code raise."""

    def panic(*_: object) -> None:
        raise Panic("index out of range")

    monkeypatch.setattr(FileSource, "run", panic)
    path = tmp_path / "events.jsonl"
    path.write_text("")
    service = Running(tmp_path / "data", str(path))
    service._thread.join(30)
    assert isinstance(service.failure, errors.ServiceError)
    assert "Panic: index out of range" in str(service.failure)


def test_a_broker_that_is_away_is_waited_for(tmp_path: Path) -> None:
    with recurra.open(tmp_path, CONFIG) as engine:
        engine.ingest([recurra.Event("ann", "m1", START_MS), recurra.Event("bob", "m2", START_MS)])
    with running(tmp_path, "kafka://127.0.0.1:9/events") as service:
        service.until("source: ")
        assert httpx.get(f"{service.url}/readyz").status_code == 503
        assert httpx.get(f"{service.url}/livez").status_code == 200
        with recurra.Client(service.url) as client:
            assert client.recommend("ann", 5).items == ["m2"]
    assert service.failure is None


class TestStandardInput:
    @pytest.fixture
    def pipe(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bytes], None]]:
        reading, writing = os.pipe()

        class Input:
            def fileno(self) -> int:
                return reading

        monkeypatch.setattr("sys.stdin", Input())
        closed = False

        def write(data: bytes) -> None:
            nonlocal closed
            if data:
                os.write(writing, data)
            else:
                os.close(writing)
                closed = True

        yield write
        os.close(reading)
        if not closed:
            os.close(writing)

    def test_lines_are_visible_soon_and_the_end_is_said(self, tmp_path: Path, pipe: Callable[[bytes], None]) -> None:
        with running(tmp_path, "-") as service:
            service.until("reading -")
            pipe(b'\xef\xbb\xbf{"user":"ann","item":"m1","time":1700000000000}\n\nnonsense\n{"user":"bob","it')
            _until(lambda: _health(service)["events"] == 1)
            pipe(b'em":"m2","time":1700000000000}\r\n{"user":"eve","item":"m3","time":1700000000000}')
            pipe(b"")
            service.until("the source has ended")
            health = _health(service)
            assert health["events"] == 3
            assert health["source"]["refused"] == 1
        assert "nonsense" in (tmp_path / "dead-letters.jsonl").read_text()

    def test_it_stops_while_nothing_comes(self, tmp_path: Path, pipe: Callable[[bytes], None]) -> None:
        with running(tmp_path, "-") as service:
            service.until("reading -")
            pipe(b'{"user":"ann","item":"m1","time":1700000000000}\n')
            _until(lambda: _health(service)["events"] == 1)
        assert service.failure is None
        assert service.said[-1] == "stopped"


def _health(service: Running) -> dict[str, Any]:
    answer: dict[str, Any] = httpx.get(f"{service.url}/health").json()
    return answer


def _until(done: Callable[[], bool], timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.02)
