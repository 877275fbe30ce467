"""The clients give what the engine gives, and raise what it raises."""

import asyncio
import socket

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


def test_nothing_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with recurra.Client(url) as client, pytest.raises(errors.ServiceError, match=r"cannot reach .*recurra run"):
            client.health()


@pytest.mark.parametrize("url", ["", "127.0.0.1:8000", "ftp://host", "http://"])
def test_an_address_must_be_one(url: str) -> None:
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
