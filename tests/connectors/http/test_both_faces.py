"""An engine and a client of a service behave alike: results, refusals, and what is left after a refusal."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

import recurra
from recurra import Event, Forget, Item, Recommender
from recurra.engine import errors

from .conftest import START_MS, Service

CALLS: list[Callable[[Any], object]] = [
    lambda face: face.recommend(""),
    lambda face: face.recommend(5),
    lambda face: face.recommend("x\ud800"),
    lambda face: face.recommend("u" * 600),
    lambda face: face.recommend("u1", k=0),
    lambda face: face.recommend("u1", where="import os"),
    lambda face: face.history("nobody"),
    lambda face: face.history(""),
    lambda face: face.history("x\ud800"),
    lambda face: face.similar(""),
    lambda face: face.similar("nothing"),
    lambda face: face.similar(1),
    lambda face: face.forget(""),
    lambda face: face.forget(7),
    lambda face: face.rollback(77),
    lambda face: face.ingest([{"user": "x"}]),
    lambda face: face.ingest("abc"),
    lambda face: face.ingest([Event("kept-out", "m1", START_MS), Item("m2"), Event("", "m1", 5)]),
    lambda face: face.ingest([Event("kept-out", "m1", -1)]),
    lambda face: face.ingest([Item("m1", categories="Drama")]),  # type: ignore[arg-type]  # the wrong type is the point
    lambda face: face.ingest([Forget(3)]),  # type: ignore[arg-type]  # the wrong type is the point
]


def _failure(call: Callable[[Recommender], object], face: Recommender) -> tuple[type, str]:
    with pytest.raises(errors.RecurraError) as caught:
        call(face)
    return type(caught.value), str(caught.value)


@pytest.mark.parametrize("number", range(len(CALLS)))
def test_refusals_are_the_same(service: Service, client: recurra.Client, number: int) -> None:
    call = CALLS[number]
    assert _failure(call, client) == _failure(call, service.engine)
    with pytest.raises(errors.UnknownUserError):
        service.engine.history("kept-out")


@pytest.mark.parametrize("number", range(len(CALLS)))
def test_refusals_of_coroutines_are_the_same(service: Service, number: int) -> None:
    async def use() -> tuple[type, str]:
        async with recurra.AsyncClient(service.url) as client:
            with pytest.raises(errors.RecurraError) as caught:
                await CALLS[number](client)  # type: ignore[misc]  # a coroutine here
            return type(caught.value), str(caught.value)

    assert asyncio.run(use()) == _failure(CALLS[number], service.engine)


def test_results_are_the_same(service: Service, client: recurra.Client) -> None:
    for face in (service.engine, client):
        user = f"same-{type(face).__name__}"
        report = face.ingest([Event(user, "m1", START_MS), Item("m1", "Title 1"), Event(user, "m2", START_MS + 1)])
        assert (report.applied, report.items, report.users) == (2, 1, [user])
        assert [entry.item for entry in face.history(user)] == ["m1", "m2"]
        assert face.forget(user) is True
        assert face.forget(user) is False
    at = START_MS + 10**6
    assert client.recommend("u1", 5, at=at, explain=True) == service.engine.recommend("u1", 5, at=at, explain=True)
    assert client.similar("m1", 3) == service.engine.similar("m1", 3)
    assert client.versions() == service.engine.versions()
    assert client.refusals() == service.engine.refusals()
    assert client.health().training == service.engine.health().training


def test_a_closed_client_says_so(service: Service) -> None:
    face: Recommender
    with recurra.Client(service.url) as face:
        face.health()
    face.close()
    with pytest.raises(errors.ClosedError):
        face.recommend("u1")

    async def use() -> None:
        client = recurra.AsyncClient(service.url)
        await client.close()
        with pytest.raises(errors.ClosedError):
            await client.health()

    asyncio.run(use())
