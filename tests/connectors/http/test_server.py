"""The service: status codes, limits, status pages, the description of the API."""

import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import msgspec
import pytest

import recurra
from recurra.connectors.http import Listener, create_app
from recurra.engine.errors import ConfigError

from .conftest import START_MS, Service


@pytest.fixture
def http(service: Service) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.url) as http:
        yield http


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "error", "words"),
    [
        ("GET", "/nope", None, 404, "ServiceError", "/docs"),
        ("PUT", "/health", None, 405, "ServiceError", "Method Not Allowed"),
        ("GET", "/v1/users/u1/recommendations?k=many", None, 422, "InputError", "k: "),
        ("GET", "/v1/users/u1/recommendations?k=0", None, 422, "InputError", "k must be"),
        ("GET", "/v1/users/u1/recommendations?k=1000000000", None, 422, "InputError", "k must be"),
        ("GET", "/v1/users/u1/recommendations?at=yesterday", None, 422, "InputError", "time zone"),
        ("GET", "/v1/users/u1/recommendations?at=-5", None, 422, "InputError", "between 0"),
        ("GET", "/v1/users/u1/recommendations?where=((", None, 422, "InputError", "filter"),
        ("GET", "/v1/users/nobody/history", None, 404, "UnknownUserError", "nobody"),
        ("GET", "/v1/items/nothing/similar", None, 404, "UnknownItemError", "nothing"),
        ("POST", "/v1/versions/99/rollback", None, 409, "VersionError", "99"),
        ("POST", "/v1/versions/x/rollback", None, 422, "InputError", "number"),
        ("POST", "/v1/events", b"", 422, "BadEventError", "empty"),
        ("POST", "/v1/events", b"{", 422, "BadEventError", "JSON"),
        ("POST", "/v1/events", b"[{]", 422, "BadEventError", "JSON list"),
        ("POST", "/v1/events", b"\xff\xfe", 422, "BadEventError", "UTF-8"),
        ("POST", "/v1/events", b"[" * 100_000, 422, "BadEventError", "JSON list"),
        ("POST", "/v1/events", b'{"user":"a","item":"b","time":NaN}', 422, "BadEventError", "JSON"),
        ("POST", "/v1/events", b'{"user":"a","item":"b","time":1e20}', 422, "BadEventError", "time"),
        ("POST", "/v1/events", b'[{"user":"z","item":"b","time":1},7]', 422, "BadEventError", "record 1"),
        ("POST", "/v1/items", b'{"title":"no item"}', 422, "BadEventError", "item"),
        ("POST", "/v1/events", b" " * (9 << 20), 413, "InputError", "larger than"),
        ("POST", "/v1/events", b"[" + b"0," * 10_001 + b"0]", 413, "InputError", "more than 10000"),
    ],
)
def test_what_is_refused(
    http: httpx.Client, method: str, path: str, body: bytes | None, status: int, error: str, words: str
) -> None:
    before = http.get("/health").json()["events"]
    answer = http.request(method, path, content=body)
    assert answer.status_code == status
    assert answer.json()["error"] == error
    assert words in answer.json()["message"]
    assert http.get("/health").json()["events"] == before


def test_one_event_or_a_list(http: httpx.Client) -> None:
    one = {"user": 17, "item": "m1", "time": "2023-11-14T22:13:20Z"}
    many = [{"user": "17", "item": "m2", "time": START_MS + 5, "type": "play", "unknown": [1]}, one]
    assert http.post("/v1/events", json=one).json()["applied"] == 1
    assert http.post("/v1/events?durable=true", json=many).json() | {"users": []} == {
        **dict.fromkeys(recurra.IngestReport.__struct_fields__, 0),
        "applied": 1,
        "duplicate": 1,
        "users": [],
    }
    kept = http.get("/v1/users/17/history").json()
    assert [event["item"] for event in kept["events"]] == ["m1", "m2"]
    assert http.post("/v1/events", json={"user": 17, "forget": True}).json()["forgotten"] == 1


def test_a_time_is_taken_as_text_too(http: httpx.Client) -> None:
    by_number = http.get("/v1/users/u1/recommendations", params={"at": "1700000100000"})
    by_text = http.get("/v1/users/u1/recommendations", params={"at": "2023-11-14T22:15:00+00:00"})
    assert by_number.json() == by_text.json()


def test_how_it_is(http: httpx.Client) -> None:
    health = http.get("/health").json()
    assert health["version"] == 0
    assert health["users"] >= 20
    assert http.get("/livez").json() == {"status": "ok"}
    assert http.get("/v1/live").json()["items"] == health["items"]


def test_metrics_count_by_route_and_not_by_user(http: httpx.Client) -> None:
    def count() -> float:
        text = http.get("/metrics").text
        found = re.search(
            r'^recurra_http_requests_total\{route="/v1/users/.*/recommendations",status="200"\} (.+)$', text, re.M
        )
        return float(found[1]) if found else 0.0

    before = count()
    http.get("/v1/users/secret-user/recommendations")
    assert count() == before + 1
    metrics = http.get("/metrics").text
    assert "secret-user" not in metrics
    assert "recurra_records_total" in metrics


def test_the_api_is_described(http: httpx.Client) -> None:
    described = http.get("/openapi.json").json()
    assert described["paths"].keys() >= {
        "/v1/events",
        "/v1/items",
        "/v1/users/{user}/recommendations",
        "/v1/users/{user}/history",
        "/v1/users/{user}",
        "/v1/items/{item}/similar",
        "/v1/versions",
        "/v1/versions/{number}/rollback",
        "/v1/train",
        "/health",
        "/metrics",
    }
    named = set(re.findall(r'#/components/schemas/(\w+)"', json.dumps(described)))
    assert named <= described["components"]["schemas"].keys()
    answer = http.get("/v1/users/u1/recommendations").json()
    assert answer.keys() == described["components"]["schemas"]["Recommendation"]["properties"].keys()
    assert http.get("/docs").status_code == 200


def test_the_page_needs_nothing_from_elsewhere(http: httpx.Client) -> None:
    page = http.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert not re.findall(r'(?:src|href)="(?:https?:)?//', page.text)


def test_not_ready_while_the_source_is_away(tmp_path: Path) -> None:
    source = recurra.SourceHealth(kind="kafka", connected=False, state="waiting", problem="no broker", lag={"t/0": 3})
    with recurra.open(tmp_path) as engine:
        listener = Listener("127.0.0.1", 0)
        listener.start(create_app(engine, source=lambda: source))
        with httpx.Client(base_url=listener.url) as http:
            answer = http.get("/readyz")
            assert answer.status_code == 503
            assert "no broker" in answer.text
            # queries are answered all the same
            assert http.get("/v1/users/u1/recommendations").status_code == 200
            source = msgspec.structs.replace(source, connected=True, problem=None)
            assert http.get("/readyz").status_code == 200
            shown = http.get("/health").json()["source"]
            assert shown == {"kind": "kafka", "connected": True, "state": "waiting", "problem": None, "lag": {"t/0": 3}}
            # a training that failed keeps neither events nor answers back
            engine._training.failure = "the training program ended"
            assert http.get("/health").json()["status"] == "degraded"
            assert http.get("/readyz").status_code == 200
        listener.close()


def test_a_taken_address_is_refused_at_once() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"127.0.0.1:{port}: it is in use"):
            Listener("127.0.0.1", port)
