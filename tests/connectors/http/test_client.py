"""The clients give what the engine gives, and raise what it raises."""

import asyncio
import math
import socket
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import recurra
from recurra import errors

from .conftest import START_MS, Service

IDS = st.text(min_size=1, max_size=40).filter(lambda text: text.isprintable())


def test_recommendations_are_the_engines(service: Service, client: recurra.Client) -> None:
    at = START_MS + 500_000
    assert client.recommend("u3", 7, at=at) == service.engine.recommend("u3", 7, at=at)
    assert len(client.recommend("u3", 7, at=at).items) == 7
    assert client.recommend("nobody", 5).source == "popular"


def test_explain_names_the_parts(client: recurra.Client) -> None:
    answer = client.recommend("u3", 3, explain=True)
    assert answer.explain is not None
    assert len(answer.explain) == 3
    assert answer.explain[0]
    assert answer.weights


def test_where_filters(client: recurra.Client) -> None:
    answer = client.recommend("u3", 10, where="'Drama' in categories")
    assert answer.items
    assert all(int(item[1:]) % 4 == 0 for item in answer.items)


def test_similar_history_versions_health(service: Service, client: recurra.Client) -> None:
    assert client.similar("m7", 3) == service.engine.similar("m7", 3)
    assert client.history("u3") == service.engine.history("u3")
    assert client.versions() == []
    assert client.health().users == service.engine.health().users


def test_what_is_ingested_is_visible_at_once(client: recurra.Client) -> None:
    user = "visible"
    report = client.ingest(
        [
            recurra.Event(user, "m1", START_MS, "play", 2.5, "id-1"),
            recurra.Item("m41", "Brand new", ("Drama",), True, {"year": 2026}),
            recurra.Event(user, "m2", START_MS + 1),
            recurra.Event(user, "m1", START_MS, "play", 2.5, "id-1"),
        ],
        durable=True,
    )
    assert (report.applied, report.duplicate, report.items) == (2, 1, 1)
    assert set(report.users) == {user}
    assert client.history(user) == [
        recurra.HistoryEntry("m1", START_MS, "play", 2.5, "Title 1"),
        recurra.HistoryEntry("m2", START_MS + 1, title="Title 2"),
    ]
    assert not {"m1", "m2"} & set(client.recommend(user, 50).items)
    assert client.recommend(user, 50, where="year == 2026").titles == ["Brand new"]


def test_forget(client: recurra.Client) -> None:
    client.ingest([recurra.Event("gone", "m1", START_MS), recurra.Event("gone too", "m1", START_MS)])
    assert client.forget("gone") is True
    assert client.forget("gone") is False
    assert client.ingest([recurra.Forget("gone too")]).forgotten == 1
    for user in ("gone", "gone too"):
        with pytest.raises(errors.UnknownUserError, match=user):
            client.history(user)


@given(user=IDS, item=IDS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_id_travels(client: recurra.Client, user: str, item: str) -> None:
    client.ingest([recurra.Event(user, item, START_MS)])
    assert item in [entry.item for entry in client.history(user)]
    assert item not in client.recommend(user, 3).items
    client.similar(item, 1)


@pytest.mark.parametrize("path", ["..", ".", "a/b", "a/history", "%2F", "?x=1", "#", "x/recommendations"])
def test_ids_that_look_like_addresses(client: recurra.Client, path: str) -> None:
    # drawn ids of another test may have been the same
    client.forget(path)
    client.ingest([recurra.Event(path, path, START_MS)])
    assert [entry.item for entry in client.history(path)] == [path]
    assert client.forget(path) is True


@pytest.mark.parametrize("k", [0, -1, 10**9])
def test_errors_are_the_engines(service: Service, client: recurra.Client, k: int) -> None:
    with pytest.raises(errors.InputError, match="k must be") as ours:
        service.engine.recommend("u1", k)
    with pytest.raises(type(ours.value)) as theirs:
        client.recommend("u1", k)
    assert str(theirs.value) == str(ours.value)


def test_errors_keep_their_class(client: recurra.Client) -> None:
    with pytest.raises(errors.UnknownItemError, match="no-such-item"):
        client.similar("no-such-item")
    with pytest.raises(errors.VersionError, match="99"):
        client.rollback(99)
    with pytest.raises(errors.InputError, match="event 1: field 'user' is empty"):
        client.ingest([recurra.Event("half", "m1", START_MS), recurra.Event("", "m1", START_MS)])
    with pytest.raises(errors.UnknownUserError):
        client.history("half")
    with pytest.raises(errors.InputError, match="filter"):
        client.recommend("u1", where="((")


HUGE = 10**5_000
TO_ANY: Any = [HUGE]
for _ in range(100_000):
    TO_ANY = [TO_ANY]
# what no engine takes, by a name for the test
REFUSED: dict[str, Callable[[Any], Any]] = {
    "k as text": lambda engine: engine.recommend("u1", k="5"),
    "k true": lambda engine: engine.recommend("u1", k=True),
    "k with a point": lambda engine: engine.recommend("u1", k=5.0),
    "k of 0": lambda engine: engine.recommend("u1", k=0),
    "k huge": lambda engine: engine.recommend("u1", k=HUGE),
    "at as text": lambda engine: engine.recommend("u1", at="2023-11-14T22:13:20Z"),
    "at before 1970": lambda engine: engine.recommend("u1", at=-1),
    "at with a point": lambda engine: engine.recommend("u1", at=1.5),
    "at true": lambda engine: engine.recommend("u1", at=True),
    "at huge": lambda engine: engine.recommend("u1", at=HUGE),
    "where a number": lambda engine: engine.recommend("u1", where=5),
    "where bytes": lambda engine: engine.recommend("u1", where=b"available"),
    "where long": lambda engine: engine.recommend("u1", where="x" * 70_000),
    "where no Unicode": lambda engine: engine.recommend("u1", where="'\ud800' in title"),
    "where huge": lambda engine: engine.recommend("u1", where=HUGE),
    "user a number": lambda engine: engine.recommend(42),
    "user huge": lambda engine: engine.recommend(HUGE),
    "user empty": lambda engine: engine.recommend(""),
    "user long": lambda engine: engine.recommend("x" * 600),
    "user no Unicode": lambda engine: engine.recommend("\ud800"),
    "similar to a number": lambda engine: engine.similar(1),
    "similar, k as text": lambda engine: engine.similar("m1", k="3"),
    "similar, k huge": lambda engine: engine.similar("m1", k=HUGE),
    "similar, where a number": lambda engine: engine.similar("m1", where=5),
    "similar, where long": lambda engine: engine.similar("no such item", where="x" * 70_000),
    "history of a number": lambda engine: engine.history(42),
    "history huge": lambda engine: engine.history(HUGE),
    "forget none": lambda engine: engine.forget(None),
    "forget huge": lambda engine: engine.forget(HUGE),
    "rollback to text": lambda engine: engine.rollback("../../users/u1"),
    "rollback to true": lambda engine: engine.rollback(True),
    "rollback huge": lambda engine: engine.rollback(HUGE),
    "ingest one": lambda engine: engine.ingest(recurra.Event("u1", "m1", START_MS)),
    "ingest a number": lambda engine: engine.ingest(5),
    "ingest text": lambda engine: engine.ingest("abc"),
    "time huge": lambda engine: engine.ingest([recurra.Event("u1", "m1", HUGE)]),
    "weight huge": lambda engine: engine.ingest([recurra.Event("u1", "m1", 1, weight=HUGE)]),
    "weight a list": lambda engine: engine.ingest([recurra.Event("u1", "m1", 1, weight=[HUGE])]),  # type: ignore[arg-type]
    "id huge": lambda engine: engine.ingest([recurra.Event("u1", "m1", 1, id=HUGE)]),  # type: ignore[arg-type]
    "forget request huge": lambda engine: engine.ingest([recurra.Forget(HUGE)]),  # type: ignore[arg-type]
    "attribute huge": lambda engine: engine.ingest([recurra.Item("m1", attributes={"size": HUGE})]),
    "attribute holds it": lambda engine: engine.ingest([recurra.Item("m1", attributes={"size": [HUGE]})]),
    "attribute a set": lambda engine: engine.ingest([recurra.Item("m1", attributes={"size": {HUGE}})]),
    "attribute's name": lambda engine: engine.ingest([recurra.Item("m1", attributes={HUGE: 1})]),  # type: ignore[dict-item]
    "attribute deep": lambda engine: engine.ingest([recurra.Item("m1", attributes={"size": TO_ANY})]),
    "categories huge": lambda engine: engine.ingest([recurra.Item("m1", categories=(HUGE,))]),  # type: ignore[arg-type]
    "categories deep": lambda engine: engine.ingest([recurra.Item("m1", categories=TO_ANY)]),
    "available huge": lambda engine: engine.ingest([recurra.Item("m1", available=HUGE)]),  # type: ignore[arg-type]
    "title huge": lambda engine: engine.ingest([recurra.Item("m1", HUGE)]),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", REFUSED)
def test_arguments_are_refused_as_the_engine_does_and_nothing_is_sent(service: Service, name: str) -> None:
    sent: list[httpx.Request] = []

    def note(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        return httpx.Response(500)

    with pytest.raises(errors.InputError) as ours:
        REFUSED[name](service.engine)
    with (
        recurra.Client("http://x", transport=httpx.MockTransport(note)) as client,
        pytest.raises(errors.InputError) as theirs,
    ):
        REFUSED[name](client)
    assert (type(theirs.value), str(theirs.value)) == (type(ours.value), str(ours.value))

    async def ask() -> None:
        async with recurra.AsyncClient("http://x", transport=httpx.MockTransport(note)) as client:
            await REFUSED[name](client)

    with pytest.raises(errors.InputError) as later:
        asyncio.run(ask())
    assert (type(later.value), str(later.value)) == (type(ours.value), str(ours.value))
    assert not sent


def test_a_filter_with_many_letters_beyond_ascii(client: recurra.Client) -> None:
    assert client.recommend("u1", where=f"title != '{'é' * 9_900}'").items
    with pytest.raises(errors.InputError, match=r"takes 891\d\d bytes in the address of a request, more than 60000"):
        client.recommend("u1", where=f"title != '{'日' * 9_900}'")


@pytest.mark.parametrize(
    "timeout_s", ["5", -1, 0, math.nan, math.inf, True, None, HUGE], ids=lambda value: str(type(value))
)
def test_a_timeout_must_be_a_number_of_seconds(timeout_s: Any) -> None:
    for kind in (recurra.Client, recurra.AsyncClient):
        with pytest.raises(errors.ConfigError, match="timeout_s must be a number of seconds"):
            kind(timeout_s=timeout_s)


def test_nothing_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with recurra.Client(url) as client, pytest.raises(errors.ServiceError, match=r"cannot reach .*recurra run"):
            client.health()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:8000",
        "ftp://host",
        "http://",
        "http://host:65536",
        "http://host:-1",
        "http://a..b",
        "http://" + "x" * 300,
        "http://\ud800",
        None,
        10**5_000,
    ],
    ids=lambda url: str(type(url)) if isinstance(url, int) else repr(url)[:30],
)
def test_an_address_must_be_one(url: Any) -> None:
    with pytest.raises(errors.ConfigError, match="expected a service address"):
        recurra.Client(url)


@pytest.mark.parametrize(
    ("status", "body", "match"),
    [
        (500, b"<html>", "status 500"),
        (200, b"not json", "something else"),
        (404, b'{"error":"str","message":"m"}', "^m$"),
    ],
)
def test_somebody_else_answers(status: int, body: bytes, match: str) -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(status, content=body))
    with (
        recurra.Client("http://other", transport=transport) as client,
        pytest.raises(errors.ServiceError, match=match),
    ):
        client.recommend("u1")


def test_a_service_that_hangs() -> None:
    def hang(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("", request=request)

    with (
        recurra.Client("http://slow", transport=httpx.MockTransport(hang)) as client,
        pytest.raises(errors.ServiceError, match="did not answer in time"),
    ):
        client.health()


def test_async_client(service: Service) -> None:
    async def use() -> None:
        async with recurra.AsyncClient(service.url) as client:
            report = await client.ingest([recurra.Event("async", "m5", START_MS)])
            assert report.applied == 1
            answers = await asyncio.gather(*(client.recommend("async", k) for k in range(1, 9)))
            assert [len(answer.items) for answer in answers] == list(range(1, 9))
            assert [entry.item for entry in await client.history("async")] == ["m5"]
            assert (await client.similar("m5", 2)).items
            assert await client.versions() == []
            assert (await client.health()).version == 0
            assert await client.forget("async") is True
            with pytest.raises(errors.VersionError):
                await client.rollback(99)
            with pytest.raises(errors.InputError):
                await client.recommend("async", 0)

    asyncio.run(use())


def test_both_clients_have_the_engines_verbs() -> None:
    verbs = {name for name in vars(recurra.Client) if not name.startswith("_")}
    assert verbs == {name for name in vars(recurra.AsyncClient) if not name.startswith("_")}
    assert verbs <= set(dir(recurra.Engine))
