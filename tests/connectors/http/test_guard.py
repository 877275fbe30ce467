"""Requests that a browser was tricked into, ids of every kind, and one training at a time, over a real socket."""

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

import recurra
from recurra.connectors.http import Listener, allowed_hosts, create_app
from recurra.engine import errors

from .conftest import START_MS, Service

FORGET = json.dumps({"user": "victim", "forget": True})


@pytest.fixture
def victim(service: Service) -> Iterator[Service]:
    service.engine.ingest([recurra.Event("victim", "m1", START_MS)])
    yield service
    assert [entry.item for entry in service.engine.history("victim")] == ["m1"]
    service.engine.forget("victim")


def call(
    url: str, method: str, path: str, body: str | None = None, headers: dict[str, str] | None = None
) -> tuple[int, dict[str, str], bytes]:
    """Send a request whose path and headers no library corrects."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
    given = headers or {}
    connection.putrequest(method, path, skip_host="host" in given, skip_accept_encoding=True)
    if body is not None:
        connection.putheader("content-length", str(len(body.encode())))
    for name, value in given.items():
        connection.putheader(name, value)
    connection.endheaders(None if body is None else body.encode())
    answer = connection.getresponse()
    found = answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    connection.close()
    return found


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://["}, 403),
        ({"origin": "http://127.0.0.1:1"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"content-type": "text/plain"}, 415),
        ({"content-type": "text/plain; charset=utf-8"}, 415),
        ({"content-type": "multipart/form-data; boundary=x"}, 415),
        ({"host": "evil.example"}, 421),
        ({"host": "evil.example:80"}, 421),
    ],
)
def test_no_page_of_another_site_writes_or_erases(victim: Service, headers: dict[str, str], status: int) -> None:
    assert call(victim.url, "POST", "/v1/events", FORGET, headers)[0] == status
    if status != 415:
        assert call(victim.url, "DELETE", "/v1/users/victim", None, headers)[0] == status
        assert call(victim.url, "POST", "/v1/train", "", headers)[0] == status


@pytest.mark.parametrize("head", ["content-length: 500", "transfer-encoding: chunked"])
def test_a_client_that_goes_away_in_its_body_is_no_failure(
    service: Service, head: str, caplog: pytest.LogCaptureFixture
) -> None:
    def count() -> float:
        labels = {"route": "/v1/events", "status": "400"}
        return service.engine.registry.get_sample_value("recurra_http_requests_total", labels) or 0.0

    before, where = count(), urlsplit(service.url)
    assert where.hostname is not None
    with socket.create_connection((where.hostname, where.port or 80)) as connection:
        line = f"POST /v1/events HTTP/1.1\r\nhost: {where.netloc}\r\ncontent-type: application/json\r\n{head}\r\n\r\n"
        connection.sendall(line.encode() + (b'7\r\n{"user"\r\n' if "chunked" in head else b'{"user"'))
        time.sleep(0.2)
    deadline = time.monotonic() + 10
    while count() == before:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert "Traceback" not in caplog.text


def test_a_host_that_is_not_served_is_not_read_either(service: Service) -> None:
    assert call(service.url, "GET", "/v1/users/u1/history", None, {"host": "rebound.example"})[0] == 421
    for host in ("localhost", "LOCALHOST:99", "127.0.0.1", "[::1]:8000"):
        assert call(service.url, "GET", "/v1/users/u1/history", None, {"host": host})[0] == 200


def test_the_page_itself_and_programs_may_write(service: Service) -> None:
    event = json.dumps({"user": "page", "item": "m1", "time": START_MS})
    netloc = urlsplit(service.url).netloc
    for headers in (
        {"origin": f"http://{netloc}", "sec-fetch-site": "same-origin", "content-type": "application/json"},
        {"content-type": "application/x-www-form-urlencoded"},
        {},
    ):
        assert call(service.url, "POST", "/v1/events", event, headers)[0] == 200
    service.engine.forget("page")


@pytest.mark.parametrize("path", ["/", "/health", "/v1/users/u1/recommendations", "/nowhere", "/docs"])
def test_every_answer_has_the_headers_that_protect_a_browser(service: Service, path: str) -> None:
    _, headers, _ = call(service.url, "GET", path)
    assert headers["x-content-type-options"] == "nosniff"
    assert "frame-ancestors 'none'" in headers["content-security-policy"]


def test_which_hosts_are_served() -> None:
    assert allowed_hosts("127.0.0.1", ()) == frozenset({"127.0.0.1", "localhost", "::1"})
    assert allowed_hosts("127.0.0.1", ("Shop.example",)) == frozenset({"127.0.0.1", "localhost", "::1", "shop.example"})
    assert allowed_hosts("0.0.0.0", ()) is None
    assert allowed_hosts("0.0.0.0", ("a",)) == frozenset({"127.0.0.1", "localhost", "::1", "a"})


IDS = ["ann\n", "\nann", "a\nb", "a/b", "/", "..", ".", "a?b#c", "%41", "history", "x/history", " ", "\u2028", "é\r\n"]


@pytest.mark.parametrize("user", IDS)
def test_an_id_is_the_one_that_was_meant(service: Service, user: str) -> None:
    plain = user.strip() or "plain"
    service.engine.ingest([recurra.Event(name, "m1", START_MS) for name in {user, plain}])
    with recurra.Client(service.url) as client:
        assert [entry.item for entry in client.history(user)] == ["m1"]
        assert "m1" not in client.recommend(user).items
        assert client.forget(user)
        with pytest.raises(errors.UnknownUserError):
            client.history(user)
        if plain != user:
            assert [entry.item for entry in client.history(plain)] == ["m1"]
            client.forget(plain)


@pytest.mark.parametrize("path", ["/v1/users/%FF", "/v1/users/%FE", "/v1/users/a%C3"])
def test_an_id_that_is_no_text_is_refused(service: Service, path: str) -> None:
    service.engine.ingest([recurra.Event("\ufffd", "m1", START_MS)])
    for method, rest in (("GET", "/history"), ("DELETE", "")):
        assert call(service.url, method, path + rest)[0] == 400
    assert call(service.url, "GET", f"/v1/users/{quote(chr(0xFFFD))}/history")[0] == 200
    service.engine.forget("\ufffd")


def test_nobody_is_erased_without_an_id(service: Service) -> None:
    assert call(service.url, "DELETE", "/v1/users/")[0] in (404, 405)


def test_one_training_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = recurra.Config(training=type(recurra.Config().training)(mode="off"))
    with recurra.open(tmp_path, config) as engine:
        release = threading.Event()

        class Slow:
            """A training program that ends when it is let."""

            pid = 1

            def train(self, **_: Any) -> recurra.TrainReport:
                release.wait(30)
                return recurra.TrainReport(verdict="kept", reason="slow")

            def close(self) -> None: ...

        monkeypatch.setattr(engine._training, "_new_trainer", Slow)
        listener = Listener("127.0.0.1", 0)
        listener.start(create_app(engine))
        assert call(listener.url, "POST", "/v1/train")[0] == 202
        threads = threading.active_count()
        for wait in ("true", "false") * 20:
            status, _, body = call(listener.url, "POST", f"/v1/train?wait={wait}")
            assert (status, json.loads(body)["error"]) == (409, "TrainingBusyError")
        assert threading.active_count() <= threads + 5
        assert call(listener.url, "GET", "/livez")[0] == 200
        with pytest.raises(errors.TrainingBusyError):
            engine.train()
        release.set()
        for _ in range(100):
            if not engine.health().training.running:
                break
            threading.Event().wait(0.05)
        assert engine.train().reason == "slow"
        listener.close()
