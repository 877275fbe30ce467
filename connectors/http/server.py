"""HTTP service around an engine: its verbs, its health, its metrics, and one live page."""

from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

import msgspec
from fastapi import Depends, FastAPI, Query, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.convertors import Convertor, register_url_convertor

from ...engine.errors import BadEventError, BusyError
from ...engine.events import Decoder, Event, Forget, Item
from ...engine.results import Health, SourceHealth
from . import wire
from .bodies import Bodies, TooLargeError
from .failures import add_failures, as_json, only_known_parameters
from .guard import LOOPBACK, Guard
from .lanes import Lanes
from .limits import Limits
from .observed import Observed
from .openapi import MAX_EVENTS, describe

if TYPE_CHECKING:
    from ...engine.engine import Engine

__all__ = ["LiveView", "create_app"]

# a list of so many bytes may become many times as many when it is decoded
_LARGE_BYTES = 1 << 20
# parts of the engine without which events do not come in
_NEEDED = ("store", "housekeeping")
_PAGES = {"/": Path(__file__).with_name("page.html"), "/docs": Path(__file__).with_name("docs.html")}
_PAGE_POLICY = (
    "default-src 'self'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; frame-ancestors 'none'"
)


class LiveView(Protocol):
    """Source of figures that the live page shows beside the engine's own health."""

    def snapshot(self) -> wire.DemoFigures:
        """Return the current figures; called from any thread, about once a second per open page."""
        ...


class _Id(Convertor[str]):
    """An id in a path: any text that is not empty. Starlette's own ``path`` stops at line breaks."""

    regex = "(?s:.+)"

    def convert(self, value: str) -> str:
        """Return the text as it is."""
        return value

    def to_string(self, value: str) -> str:
        """Return the text as it is."""
        return value


register_url_convertor("id", _Id())

K = Annotated[int, Query(description="how many items")]
Where = Annotated[str | None, Query(description="filter over item attributes: 'Drama' in categories")]
Durable = Annotated[bool, Query(description="answer when a power loss cannot undo it")]
Names = Annotated[
    Literal["configured", "standard"], Query(description="names of the fields: those of `[events]`, or user, item, ...")
]


def create_app(
    engine: "Engine",
    *,
    live: LiveView | None = None,
    source: Callable[[], SourceHealth] | None = None,
    hosts: frozenset[str] | None = LOOPBACK,
    limits: Limits = Limits(),  # noqa: B008  # a constant
) -> FastAPI:
    """Return the ASGI application that serves ``engine``.

    ``live`` adds figures to the page; ``source`` returns the health of the source of events: its ``connected`` decides,
    with the engine's status, whether the service is ready. ``hosts`` are the names that requests may give as their
    host (None: any); see ``guard.allowed_hosts``.
    """
    app = FastAPI(
        title="recurra",
        description="Recommendations that reflect a user's last event.",
        version="1",
        dependencies=[Depends(only_known_parameters)],
        # FastAPI's own pages load scripts from elsewhere
        docs_url=None,
        redoc_url=None,
    )
    lanes = Lanes()
    add_failures(app)
    _add_writing(app, engine, lanes, Bodies(limits))
    _add_reading(app, engine, lanes)
    _add_versions(app, engine, lanes)
    _add_status(app, engine, lanes, live, source)
    _add_pages(app)
    describe(app)
    app.add_middleware(Observed, registry=engine.registry)
    app.add_middleware(Guard, hosts=hosts, limits=limits)
    return app


def _add_writing(app: FastAPI, engine: "Engine", lanes: Lanes, bodies: Bodies) -> None:
    decoders = {"configured": Decoder(engine.config.events), "standard": Decoder()}

    async def ingest(request: Request, durable: bool, decode: Callable[[bytes], Event | Forget | Item]) -> Response:
        async with bodies.read(request) as body:
            lane = lanes.writes if len(body) < _LARGE_BYTES else lanes.large_writes
            return as_json(await lane.run(lambda: engine.ingest(_decoded(body, decode), durable=durable)))

    @app.post("/v1/events", tags=["events"], summary="Apply one event or a list of events")
    async def events(request: Request, durable: Durable = False, names: Names = "configured") -> Response:
        """Nothing of the list is applied if one of it is bad."""
        return await ingest(request, durable, decoders[names].event)

    @app.post("/v1/items", tags=["items"], summary="Apply one catalogue record or a list of them")
    async def items(request: Request, durable: Durable = False, names: Names = "configured") -> Response:
        """Nothing of the list is applied if one of it is bad."""
        return await ingest(request, durable, decoders[names].item)

    @app.delete("/v1/users/{user:id}", tags=["users"], summary="Erase everything that is kept of a user")
    async def forget(user: str) -> Response:
        return as_json(wire.Forgotten(user, await lanes.writes.run(lambda: engine.forget(user))))


def _add_reading(app: FastAPI, engine: "Engine", lanes: Lanes) -> None:
    async def ask(request: Request, where: str | None, work: Callable[[Callable[[], bool] | None], Any]) -> Response:
        if where is None:
            return as_json(await lanes.queries.run(lambda: work(None)))
        return as_json(await lanes.filters.run_wanted(request, work))

    @app.get("/v1/users/{user:id}/recommendations", tags=["users"], summary="The user's next items")
    async def recommend(
        request: Request,
        user: str,
        k: K = 10,
        at: Annotated[str | None, Query(description="time to answer for: milliseconds or RFC 3339")] = None,
        where: Where = None,
        explain: Annotated[bool, Query(description="add the score of each part")] = False,
    ) -> Response:
        at_ms = None if at is None else wire.time_ms(at)
        return await ask(
            request, where, lambda gone: engine.recommend(user, k, at=at_ms, where=where, explain=explain, gone=gone)
        )

    @app.get("/v1/users/{user:id}/history", tags=["users"], summary="The user's kept events, oldest first")
    async def history(user: str) -> Response:
        return as_json(wire.History(user, await lanes.queries.run(lambda: engine.history(user))))

    @app.get("/v1/items/{item:id}/similar", tags=["items"], summary="The items most like one")
    async def similar(request: Request, item: str, k: K = 10, where: Where = None) -> Response:
        return await ask(request, where, lambda gone: engine.similar(item, k, where=where, gone=gone))


def _add_versions(app: FastAPI, engine: "Engine", lanes: Lanes) -> None:
    @app.get("/v1/versions", tags=["versions"], summary="All versions that were promoted")
    async def versions() -> Response:
        return as_json(await lanes.versions.run(engine.versions))

    @app.get("/v1/refusals", tags=["versions"], summary="The last candidates that the gate refused")
    async def refusals() -> Response:
        return as_json(await lanes.versions.run(engine.refusals))

    @app.post("/v1/versions/{number}/rollback", tags=["versions"], summary="Serve another version")
    async def rollback(number: int) -> Response:
        return as_json(await lanes.versions.run(lambda: engine.rollback(number)))

    @app.post("/v1/train", tags=["versions"], summary="Train a version now")
    async def train(wait: Annotated[bool, Query(description="answer when training has ended")] = False) -> Response:
        """A version that passes its gate serves at once. Without `wait`, `/health` says how it went."""
        report = await lanes.training.run(lambda: engine.train(wait=wait))
        return as_json(wire.Started(), HTTPStatus.ACCEPTED) if report is None else as_json(report)


def _add_status(
    app: FastAPI,
    engine: "Engine",
    lanes: Lanes,
    live: LiveView | None,
    source: Callable[[], SourceHealth] | None,
) -> None:
    def state() -> Health:
        health = engine.health()
        if source is None:
            return health
        now = source()
        if found := now.problems:
            health = msgspec.structs.replace(health, status="degraded", problems=health.problems | found)
        return msgspec.structs.replace(health, source=now)

    @app.get("/health", tags=["status"], summary="State of the service, with its problems")
    async def health() -> Response:
        return as_json(await lanes.status.run(state))

    @app.get("/livez", tags=["status"], summary="Whether the process answers")
    async def livez() -> Response:
        return as_json(wire.Liveness())

    @app.get("/readyz", tags=["status"], summary="Whether the service takes in events and answers queries")
    async def readyz() -> Response:
        try:
            reasons = _reasons(await lanes.status.run(state))
        except BusyError:
            reasons = ["service: its state could not be read in time"]
        status = HTTPStatus.SERVICE_UNAVAILABLE if reasons else HTTPStatus.OK
        return as_json(wire.Readiness("not ready" if reasons else "ok", reasons), status)

    @app.get("/metrics", tags=["status"], summary="Metrics in Prometheus' text format")
    async def metrics() -> Response:
        text = await lanes.status.run(lambda: generate_latest(engine.registry))
        return Response(text, media_type=CONTENT_TYPE_LATEST)

    @app.get("/v1/digest", tags=["status"], summary="SHA-256 over the records of all users")
    async def digest() -> Response:
        """The same for the same events, however they came. It reads every user: minutes for millions of them."""
        return as_json(wire.Digest(await lanes.digest.run(engine.digest)))

    @app.get("/v1/live", tags=["status"], summary="The figures of the live page")
    async def live_figures() -> Response:
        def figures() -> wire.PageFigures:
            return wire.PageFigures.of(state(), None if live is None else live.snapshot())

        return as_json(await lanes.status.run(figures))


def _add_pages(app: FastAPI) -> None:
    async def page(request: Request) -> Response:
        text = _PAGES[request.url.path].read_bytes()
        return Response(text, media_type="text/html", headers={"content-security-policy": _PAGE_POLICY})

    for path in _PAGES:
        app.get(path, include_in_schema=False)(page)


def _reasons(now: Health) -> list[str]:
    # a training that failed, or one damaged record, keeps neither events nor other answers back
    needed = _NEEDED if now.source is msgspec.UNSET or now.source.connected else (*_NEEDED, "source")
    reasons = [f"{part}: {problem}" for part, problem in now.problems.items() if part in needed]
    if now.source is not msgspec.UNSET and not now.source.connected and now.source.problem is None:
        reasons.append(f"source: {now.source.state}, not connected yet")
    return reasons


def _decoded(body: bytes, decode: Callable[[bytes], Event | Forget | Item]) -> list[Event | Forget | Item]:
    if not body.lstrip().startswith(b"["):
        return [decode(body)]
    try:
        parts = msgspec.json.decode(body, type=list[msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadEventError(f"not a JSON list: {error}") from None
    if len(parts) > MAX_EVENTS:
        raise TooLargeError(f"the request has {len(parts)} records, more than {MAX_EVENTS}; send them in parts")
    values: list[Event | Forget | Item] = []
    for index, part in enumerate(parts):
        try:
            values.append(decode(bytes(part)))
        except BadEventError as error:
            raise BadEventError(f"record {index} of the list (counted from 0): {error}; nothing was applied") from None
    return values
