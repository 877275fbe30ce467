"""Clients that are slow, many or careless, over real sockets: health is answered, memory and threads are bounded."""

import asyncio
import contextlib
import http.client
import json
import os
import re
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
import pytest
from prometheus_client import CollectorRegistry

import recurra
from recurra.connectors.http import Listener, create_app
from recurra.connectors.http import listener as listener_module
from recurra.connectors.http.limits import Limits
from recurra.engine import FieldNames

from .conftest import START_MS, Service
from .test_guard import call

SMALL = Limits(connections=60, reserve=4, headers_s=2.0, body_s=2.0, bodies_bytes=16 << 20, room_s=0.3)
MIB = 1 << 20


@pytest.fixture(scope="module")
def small(service: Service) -> Iterator[str]:
    """Serve the engine a second time, with small limits."""
    listener = Listener("127.0.0.1", 0, SMALL)
    # its metrics are those of the first
    engine: Any = _WithoutMetrics(service.engine)
    listener.start(create_app(engine, limits=SMALL))
    yield listener.url
    listener.close()


class _WithoutMetrics:
    def __init__(self, engine: recurra.Engine) -> None:
        self._engine = engine
        self.registry = CollectorRegistry()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


def opened(url: str, text: bytes) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=20)
    sock.sendall(text)
    return sock


def status_of(sock: socket.socket) -> int:
    """Return the status of the answer, 0 if the connection was closed without one."""
    try:
        line = sock.makefile("rb").readline()
    except OSError:
        return 0
    return int(line.split()[1]) if line else 0


def test_slow_headers_do_not_keep_others_out(small: str) -> None:
    slow = []
    for _ in range(200):
        slow.append(opened(small, b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\nX: "))
    began_s = time.monotonic()
    for path in ("/livez", "/readyz", "/v1/users/u1/recommendations"):
        assert call(small, "GET", path)[0] == 200
    assert time.monotonic() - began_s < 2
    # the newest still wait, until their time is over
    assert status_of(slow[-1]) == 0
    assert time.monotonic() - began_s < 6
    for sock in slow:
        sock.close()


def test_health_has_a_reserve(small: str) -> None:
    # bodies that do not come: their connections are at work
    head = b"POST /v1/events HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\n{"
    busy = [opened(small, head) for _ in range(60)]
    time.sleep(0.3)
    assert call(small, "GET", "/livez")[0] == 200
    status, headers, body = call(small, "GET", "/v1/users/u1/recommendations")
    assert status == 503
    assert headers["connection"] == "close"
    assert b"too many connections" in body
    assert status_of(busy[0]) == 408
    for sock in busy:
        sock.close()


def test_unfinished_bodies_take_a_bounded_part_of_memory(small: str, service: Service) -> None:
    head = b"POST /v1/events HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n" % (8 * MIB)
    # one for all senders: they are in the same process
    body = b" " * (8 * MIB - 1)
    before = _resident()
    answers: list[int] = []

    def send() -> None:
        sock = opened(small, head)
        with contextlib.suppress(OSError):
            sock.sendall(body)
        answers.append(status_of(sock))
        sock.close()

    threads = [threading.Thread(target=send) for _ in range(40)]
    for thread in threads:
        thread.start()
    time.sleep(1.0)
    assert _resident() - before < 100 * MIB
    # small ones are taken meanwhile
    event = json.dumps({"user": "beside", "item": "m1", "time": START_MS})
    assert call(small, "POST", "/v1/events", event)[0] == 200
    for thread in threads:
        thread.join()
    assert set(answers) <= {0, 408, 503}
    service.engine.forget("beside")


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


@pytest.mark.parametrize(
    "text",
    [
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n{}",
        b"Content-Length: -1\r\n\r\n{}",
        b"Transfer-Encoding: gzip\r\n\r\n{}",
    ],
)
def test_a_length_in_doubt_is_refused(service: Service, text: bytes) -> None:
    sock = opened(service.url, b"POST /v1/events HTTP/1.1\r\nHost: 127.0.0.1\r\n" + text)
    assert status_of(sock) in (400, 501)
    sock.close()


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/livez?x=1"),
        ("GET", "/health?verbose=true"),
        ("GET", "/v1/users/u1/recommendations?wher=1"),
        ("GET", "/v1/users/u1/recommendations?k=1&k=2"),
        ("GET", "/v1/users/u1/history?k=3"),
        ("GET", "/v1/items/m1/similar?explain=true"),
        ("DELETE", "/v1/users/nobody?dry=1"),
        ("POST", "/v1/events?sync=true"),
        ("POST", "/v1/train?force=1"),
        ("GET", "/v1/versions?all=1"),
        ("GET", "/metrics?name=x"),
    ],
)
def test_a_parameter_that_does_nothing_is_refused(service: Service, method: str, path: str) -> None:
    status, _, body = call(service.url, method, path, "{}" if method == "POST" else None)
    assert status == 422
    assert re.split(r"[?=]", path)[1] in json.loads(body)["message"]


def test_a_filter_limits_similar_items_too(service: Service) -> None:
    with recurra.Client(service.url) as client:
        everything = client.similar("m1", 40).items
        found = client.similar("m1", 40, where="'Drama' in categories")
        assert 0 < len(found.items) < len(everything)
        assert all(int(item[1:]) % 4 == 0 for item in found.items)
        assert found == service.engine.similar("m1", 40, where="'Drama' in categories")


def test_an_attribute_that_no_item_has_is_said(service: Service) -> None:
    with recurra.Client(service.url) as client:
        for answer in (client.recommend("u1", where="brnd == 'Nike'"), client.similar("m1", where="brnd == 'Nike'")):
            assert answer.items == []
            assert "no item has an attribute 'brnd'" in answer.notes[0]
        assert client.recommend("u1", where="title == 'x'").notes == []


def test_configured_names_of_fields_count_for_posts(tmp_path: Path) -> None:
    config = recurra.Config(training=type(recurra.Config().training)(mode="off"))
    config = msgspec.structs.replace(config, events=FieldNames(user="visitor", item="sku", time="at"))
    with recurra.open(tmp_path, config) as engine:
        listener = Listener("127.0.0.1", 0)
        listener.start(create_app(engine))
        event = json.dumps({"visitor": "ann", "sku": "m1", "at": START_MS, "user": "somewhere"})
        assert call(listener.url, "POST", "/v1/events", event)[0] == 200
        assert call(listener.url, "POST", "/v1/items", json.dumps({"sku": "m1", "title": "One"}))[0] == 200
        standard = json.dumps({"user": "bob", "item": "m1", "time": START_MS})
        assert call(listener.url, "POST", "/v1/events", standard)[0] == 422
        # a client has objects, not names
        with recurra.Client(listener.url) as client:
            client.ingest([recurra.Event("bob", "m2", START_MS), recurra.Item("m2", "Two")])
            assert [(entry.item, entry.title) for entry in client.history("ann")] == [("m1", "One")]
            assert [(entry.item, entry.title) for entry in client.history("bob")] == [("m2", "Two")]
            assert client.digest() == engine.digest()
        listener.close()


class _Slow:
    """An engine whose training, reading and writing last until they are let."""

    def __init__(self, engine: recurra.Engine) -> None:
        self.inner = _WithoutMetrics(engine)
        self.release = threading.Event()

    def __getattr__(self, name: str) -> Any:
        if name in ("recommend", "ingest", "train", "versions", "digest"):
            return self._wait
        return getattr(self.inner, name)

    def _wait(self, *_: Any, **__: Any) -> Any:
        self.release.wait(30)
        return None


def test_work_of_one_kind_does_not_hold_up_another(service: Service) -> None:
    engine: Any = _Slow(service.engine)
    listener = Listener("127.0.0.1", 0)
    listener.start(create_app(engine))
    event = json.dumps({"user": "u1", "item": "m1", "time": START_MS})
    asks = [("GET", "/v1/users/u1/recommendations", None), ("POST", "/v1/events", event)]
    asks += [("POST", "/v1/train?wait=true", ""), ("GET", "/v1/versions", None), ("GET", "/v1/digest", None)]
    threads = [threading.Thread(target=call, args=(listener.url, *ask)) for ask in asks * 25]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    began_s = time.monotonic()
    for path in ("/livez", "/readyz", "/health", "/metrics", "/"):
        assert call(listener.url, "GET", path)[0] == 200
    assert time.monotonic() - began_s < 2
    engine.release.set()
    for thread in threads:
        thread.join()
    listener.close()


def test_nobody_works_for_a_client_that_has_gone(service: Service) -> None:
    ends: list[bool] = []
    begun = threading.Event()

    class Watched(_WithoutMetrics):
        def recommend(self, *_: Any, gone: Any, **__: Any) -> Any:
            begun.set()
            deadline = time.monotonic() + 10
            while not gone() and time.monotonic() < deadline:
                time.sleep(0.01)
            ends.append(gone())

    engine: Any = Watched(service.engine)
    listener = Listener("127.0.0.1", 0)
    listener.start(create_app(engine))
    path = f"/v1/users/u1/recommendations?where={quote('title')}"
    sock = opened(listener.url, f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    assert begun.wait(10)
    sock.close()
    for _ in range(300):
        if ends:
            break
        time.sleep(0.01)
    assert ends == [True]
    listener.close()


def test_liveness_before_the_engine_is_there() -> None:
    listener = Listener("127.0.0.1", 0)
    listener.start()
    assert call(listener.url, "GET", "/livez")[0] == 200
    status, _, body = call(listener.url, "GET", "/readyz")
    assert status == 503
    assert "recovering" in json.loads(body)["reasons"][0]
    assert call(listener.url, "GET", "/v1/users/u1/recommendations")[0] == 503
    listener.close()


def test_a_request_that_does_not_end_is_told_that_the_service_stops(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(listener_module, "_STOP_S", 0.3)
    entered = threading.Event()

    async def endless(scope: Any, receive: Any, send: Any) -> None:
        entered.set()
        await asyncio.sleep(600)

    listener = Listener("127.0.0.1", 0)
    listener.start(endless)
    with opened(listener.url, b"GET /v1/users/ann/recommendations HTTP/1.1\r\nhost: x\r\n\r\n") as sock:
        assert entered.wait(10)
        listener.close()
        answer = b"".join(iter(lambda: sock.recv(4096), b"")).decode()
    assert answer.startswith("HTTP/1.1 503")
    assert "the service stops" in answer
    assert "Traceback" not in capfd.readouterr().err


def test_a_service_answers_while_it_recovers_and_a_taken_port_is_found_at_once(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    command = [sys.executable, "-m", "recurra.cli", "run", "--source", "none", "--train", "off", "--api", address]
    environment = {**os.environ, "PYTHONSAFEPATH": "1"}
    process = subprocess.Popen([*command, "--data", str(tmp_path / "a")], stderr=subprocess.PIPE, env=environment)
    seen: list[tuple[int, ...]] = []
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and (200, 200) not in seen:
            try:
                seen.append(
                    (call(f"http://{address}", "GET", "/livez")[0], call(f"http://{address}", "GET", "/readyz")[0])
                )
            except (OSError, http.client.HTTPException):
                time.sleep(0.02)
        assert seen[0] == (200, 503)
        assert seen[-1] == (200, 200)
        before_s = _children_s()
        second = subprocess.run(
            [*command, "--data", str(tmp_path / "b")], capture_output=True, text=True, env=environment, timeout=60
        )
        assert second.returncode == 1
        assert "it is in use" in second.stderr
        # the imports of the engine took 4.8 s of the processor first
        assert _children_s() - before_s < 3
    finally:
        process.terminate()
        process.communicate(timeout=30)


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.parametrize("path", ["/docs", "/"])
def test_pages_load_nothing_from_elsewhere(service: Service, path: str) -> None:
    _, headers, body = call(service.url, "GET", path)
    assert not re.findall(rb"""(?:src|href)=["'](?:https?:)?//""", body)
    assert "default-src 'self'" in headers["content-security-policy"]
    assert call(service.url, "GET", "/redoc")[0] == 404
