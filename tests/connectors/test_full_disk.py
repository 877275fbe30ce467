"""A disk that is really full, under a running service: it stays up, answers, and goes on when there is room."""

import contextlib
import json
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx

import recurra
from recurra.connectors.audit import audit
from recurra.connectors.dead_letter import FileDeadLetters, read_dead_letters
from recurra.connectors.local_sources import FileSource
from recurra.engine.config import Config

NOW_MS = 1_700_000_000_000
# of the small disk
SIZE_MB = 48


@contextlib.contextmanager
def _service(forker: Any, data: Path, source: str) -> Iterator[tuple[Any, httpx.Client]]:
    log = data.parent.parent / "log"
    log.touch()
    process = forker.start(["run", "--data", data, "--source", source, "--api", "127.0.0.1:0", "--train", "off"], log)
    try:
        url = ""
        deadline = time.monotonic() + 120
        while not url:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            found = [line for line in log.read_text().splitlines() if "serving http://" in line]
            url = found[0].split("serving ")[1] if found else ""
            time.sleep(0.05)
        with httpx.Client(base_url=url, timeout=60) as http:
            yield process, http
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def _until(holds: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def _events(number: int, count: int = 500) -> list[dict[str, Any]]:
    return [{"user": f"u{i}", "item": f"i{number % 50}", "time": NOW_MS + number} for i in range(count)]


def test_a_service_with_http_alone_goes_on_when_there_is_room(
    forker: Any, small_disk: Path, fill_up: Callable[..., Path]
) -> None:
    with _service(forker, small_disk / "data", "none") as (process, http):
        assert http.post("/v1/events", json=_events(0)).status_code == 200
        ballast = fill_up(small_disk)
        number = 1
        answer = http.post("/v1/events", json=_events(number))
        while answer.status_code == 200:
            number += 1
            assert number < 200
            answer = http.post("/v1/events", json=_events(number))
        # full stays full, and says so, for as long as it lasts
        for _ in range(4):
            answer = http.post("/v1/events", json=_events(500))
            assert (answer.status_code, answer.json()["error"]) == (507, "StoreFullError")
            time.sleep(0.5)
        assert process.poll() is None
        assert http.get("/v1/users/u1/recommendations").status_code == 200
        health = http.get("/health").json()
        assert health["status"] == "degraded"
        assert "No space left" in health["problems"]["store"]
        assert http.get("/readyz").status_code == 503
        ballast.unlink()
        _until(lambda: http.post("/v1/events", json=_events(501)).status_code == 200)
        _until(lambda: http.get("/readyz").status_code == 200)
        assert http.get("/health").json()["problems"] == {}
        # everything that was acknowledged is there, nothing of what was refused
        known = {entry["time_ms"] - NOW_MS for entry in http.get("/v1/users/u3/history").json()["events"]}
        assert set(range(number)) | {501} <= known
        assert number not in known
        assert 500 not in known


def test_a_service_that_starts_on_a_full_disk_waits_for_room(
    forker: Any, small_disk: Path, fill_up: Callable[..., Path]
) -> None:
    data = small_disk / "data"
    with recurra.open(data) as engine:
        engine.ingest([recurra.Event(f"u{at}", "m1", NOW_MS + at) for at in range(50)])
    ballast, log = fill_up(small_disk), small_disk.parent / "log"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = forker.start(["run", "--data", data, "--api", f"127.0.0.1:{port}", "--train", "off"], log)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
            _until(lambda: "waiting for room" in log.read_text())
            time.sleep(2.5)
            assert process.poll() is None
            assert http.get("/livez").status_code == 200
            answer = http.get("/readyz")
            assert (answer.status_code, "No space left" in answer.text) == (503, True)
            assert log.read_text().count("waiting for room") == 1
            ballast.unlink()
            _until(lambda: http.get("/readyz").status_code == 200)
            assert http.get("/health").json()["events"] == 50
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def test_a_file_source_waits_for_room_and_loses_nothing(forker: Any, small_disk: Path, tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with path.open("w") as file:
        for number in range(100):
            # ids long enough to fill the disk
            rows = (event | {"item": f"{'x' * 200}{number}-{at}"} for at, event in enumerate(_events(number, 400)))
            file.writelines(json.dumps(row) + "\n" for row in rows)
    data = small_disk / "data"
    data.mkdir()
    # room for the store to open and for some of the events
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * ((SIZE_MB - 6) << 20))
    with _service(forker, data, str(path)) as (process, http):

        def waiting() -> bool:
            health = http.get("/health").json()
            assert health["source"]["state"] != "ended"
            return health["status"] == "degraded" and "No space left" in str(health["source"]["problem"])

        _until(waiting)
        time.sleep(3)
        assert waiting()
        assert process.poll() is None
        assert http.get("/v1/users/u1/recommendations").status_code == 200
        applied = http.get("/health").json()["events"]
        ballast.unlink()
        _until(lambda: http.get("/health").json()["source"]["state"] == "ended", 120)
        assert http.get("/health").json()["status"] == "ok"
        assert applied < http.get("/health").json()["events"] == 100 * 400
    found = audit(data, str(path), Config())
    assert found.ok, found


def test_a_source_waits_for_room_for_its_dead_letters(
    small_disk: Path, fill_up: Callable[..., Path], tmp_path: Path
) -> None:
    path = tmp_path / "events.jsonl"
    bad = "x" * 3_000
    path.write_text("".join(f"{json.dumps(event)}\n{bad}{number}\n" for number, event in enumerate(_events(0, 40))))
    letters = small_disk / "dead-letters.jsonl"
    stopped = threading.Event()
    with recurra.open(tmp_path / "data", Config()) as engine:
        source = FileSource(engine, path, Config(), FileDeadLetters(letters))
        ballast = fill_up(small_disk)
        reading = threading.Thread(target=source.run, args=(stopped,))
        reading.start()
        try:
            _until(lambda: "dead letters cannot be kept" in str(source.health().problem))
            assert not source.health().connected
            time.sleep(0.5)
            # nothing has moved past a line that could not be kept
            assert engine.health().events == 0
            ballast.unlink()
            _until(lambda: source.health().state == "ended")
        finally:
            stopped.set()
            reading.join()
        assert engine.health().events == 40
    kept = {letter["payload"] for letter in read_dead_letters(letters)}
    assert kept == {f"{bad}{number}".encode() for number in range(40)}
