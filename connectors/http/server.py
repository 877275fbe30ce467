"""HTTP service around an engine: its verbs, its health, its metrics, and one live page."""

from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import msgspec
from anyio.to_thread import run_sync
from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.convertors import Convertor, register_url_convertor
from starlette.exceptions import HTTPException

from ...engine.errors import BadEventError, InputError, RecurraError
from ...engine.events import Decoder, Event, Forget, Item
from ...engine.results import Health, SourceHealth
from . import wire
from .guard import LOOPBACK, Guard
from .observed import Observed
from .openapi import describe

if TYPE_CHECKING:
    from ...engine.engine import Engine

__all__ = ["MAX_BODY_BYTES", "LiveView", "create_app"]

MAX_BODY_BYTES = 8 << 20
# more events than this in one request would hold up the other writers for too long
MAX_EVENTS = 10_000

_PAGE = Path(__file__).with_name("page.html")


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


class _TooLargeError(InputError):
    """The request's body is larger than the service accepts."""


def create_app(
    engine: "Engine",
    *,
    live: LiveView | None = None,
    source: Callable[[], SourceHealth] | None = None,
    hosts: frozenset[str] | None = LOOPBACK,
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
        swagger_ui_parameters={"defaultModelsExpandDepth": -1},
    )
    _add_failures(app)
    _add_writing(app, engine)
    _add_reading(app, engine)
    _add_versions(app, engine)
    _add_status(app, engine, live, source)
    describe(app)
    app.add_middleware(Observed, registry=engine.registry)
    app.add_middleware(Guard, hosts=hosts)
    return app


def _add_writing(app: FastAPI, engine: "Engine") -> None:
    decoder = Decoder()

    async def ingest(request: Request, durable: bool, decode: Callable[[bytes], Event | Forget | Item]) -> Response:
        body = await _body(request)

        def apply() -> Response:
            return _json(engine.ingest(_decoded(body, decode), durable=durable))

        return await run_sync(apply)

    @app.post("/v1/events", tags=["events"], summary="Apply one event or a list of events")
    async def events(request: Request, durable: bool = False) -> Response:
        """Nothing of the list is applied if one of it is bad. `durable` waits until a power loss cannot undo it."""
        return await ingest(request, durable, decoder.event)

    @app.post("/v1/items", tags=["items"], summary="Apply one catalogue record or a list of them")
    async def items(request: Request, durable: bool = False) -> Response:
        return await ingest(request, durable, decoder.item)

    @app.delete("/v1/users/{user:id}", tags=["users"], summary="Erase everything that is kept of a user")
    def forget(user: str) -> Response:
        return _json(wire.Forgotten(user, engine.forget(user)))


def _add_reading(app: FastAPI, engine: "Engine") -> None:
    @app.get("/v1/users/{user:id}/recommendations", tags=["users"], summary="The user's next items")
    def recommend(
        user: str,
        k: Annotated[int, Query(description="how many items")] = 10,
        at: Annotated[str | None, Query(description="time to answer for: milliseconds or RFC 3339")] = None,
        where: Annotated[str | None, Query(description="filter over item attributes: 'Drama' in categories")] = None,
        explain: Annotated[bool, Query(description="add the score of each part")] = False,
    ) -> Response:
        at_ms = None if at is None else wire.time_ms(at)
        return _json(engine.recommend(user, k, at=at_ms, where=where, explain=explain))

    @app.get("/v1/users/{user:id}/history", tags=["users"], summary="The user's kept events, oldest first")
    def history(user: str) -> Response:
        return _json(wire.History(user, engine.history(user)))

    @app.get("/v1/items/{item:id}/similar", tags=["items"], summary="The items most like one")
    def similar(item: str, k: Annotated[int, Query(description="how many items")] = 10) -> Response:
        return _json(engine.similar(item, k))


def _add_versions(app: FastAPI, engine: "Engine") -> None:
    @app.get("/v1/versions", tags=["versions"], summary="All versions that were promoted")
    def versions() -> Response:
        return _json(engine.versions())

    @app.get("/v1/refusals", tags=["versions"], summary="The last candidates that the gate refused")
    def refusals() -> Response:
        return _json(engine.refusals())

    @app.post("/v1/versions/{number}/rollback", tags=["versions"], summary="Serve another version")
    def rollback(number: int) -> Response:
        return _json(engine.rollback(number))

    @app.post("/v1/train", tags=["versions"], summary="Train a version now")
    def train(wait: Annotated[bool, Query(description="answer when training has ended")] = False) -> Response:
        """A version that passes its gate serves at once. Without `wait`, `/health` says how it went."""
        report = engine.train(wait=wait)
        return _json(wire.Started(), HTTPStatus.ACCEPTED) if report is None else _json(report)


def _add_status(
    app: FastAPI, engine: "Engine", live: LiveView | None, source: Callable[[], SourceHealth] | None
) -> None:
    def state() -> Health:
        health = engine.health()
        if source is None:
            return health
        now = source()
        if now.problem is not None:
            problems = health.problems | {"source": now.problem}
            health = msgspec.structs.replace(health, status="degraded", problems=problems)
        return msgspec.structs.replace(health, source=now)

    @app.get("/health", tags=["status"], summary="State of the service, with its problems")
    def health() -> Response:
        return _json(state())

    @app.get("/livez", tags=["status"], summary="Whether the process answers")
    def livez() -> Response:
        return _json(wire.Liveness())

    @app.get("/readyz", tags=["status"], summary="Whether the service takes in events and answers queries")
    def readyz() -> Response:
        now = state()
        reasons = [f"{part}: {problem}" for part, problem in now.problems.items()]
        if now.source is not msgspec.UNSET and not now.source.connected and now.source.problem is None:
            reasons.append(f"source: {now.source.state}, not connected yet")
        status = HTTPStatus.SERVICE_UNAVAILABLE if reasons else HTTPStatus.OK
        return _json(wire.Readiness("not ready" if reasons else "ok", reasons), status)

    @app.get("/metrics", tags=["status"], summary="Metrics in Prometheus' text format")
    def metrics() -> Response:
        return Response(generate_latest(engine.registry), media_type=CONTENT_TYPE_LATEST)

    @app.get("/v1/live", tags=["status"], summary="The figures of the live page")
    def live_figures() -> Response:
        return _json(wire.PageFigures.of(state(), None if live is None else live.snapshot()))

    @app.get("/", include_in_schema=False)
    def page() -> Response:
        policy = "default-src 'self'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
        policy += "; frame-ancestors 'none'"
        return Response(_PAGE.read_bytes(), media_type="text/html", headers={"content-security-policy": policy})


def _add_failures(app: FastAPI) -> None:
    def failed(_request: Request, error: Exception) -> Response:
        assert isinstance(error, RecurraError)
        return _json(wire.Failure(type(error).__name__, str(error)), wire.status_of(error))

    def too_large(_request: Request, error: Exception) -> Response:
        return _json(wire.Failure("InputError", str(error)), HTTPStatus.REQUEST_ENTITY_TOO_LARGE)

    def invalid(_request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        problems = [f"{problem['loc'][-1]}: {problem['msg']}" for problem in error.errors()]
        return _json(wire.Failure("InputError", "; ".join(problems)), HTTPStatus.UNPROCESSABLE_ENTITY)

    def missing(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        message = f"{request.method} {request.url.path}: {error.detail}; the API is described at /docs"
        return _json(wire.Failure("ServiceError", message), error.status_code)

    def broken(_request: Request, _error: Exception) -> Response:
        message = "the service failed on this request; its log says why"
        return _json(wire.Failure("ServiceError", message), HTTPStatus.INTERNAL_SERVER_ERROR)

    app.add_exception_handler(_TooLargeError, too_large)
    app.add_exception_handler(RecurraError, failed)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, missing)
    app.add_exception_handler(Exception, broken)


async def _body(request: Request) -> bytes:
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            raise _TooLargeError(f"the request's body is larger than {MAX_BODY_BYTES} bytes; send it in parts")
        chunks.append(chunk)
    return b"".join(chunks)


def _decoded(body: bytes, decode: Callable[[bytes], Event | Forget | Item]) -> list[Event | Forget | Item]:
    if not body.lstrip().startswith(b"["):
        return [decode(body)]
    try:
        parts = msgspec.json.decode(body, type=list[msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadEventError(f"not a JSON list: {error}") from None
    if len(parts) > MAX_EVENTS:
        raise _TooLargeError(f"the request has {len(parts)} records, more than {MAX_EVENTS}; send them in parts")
    values: list[Event | Forget | Item] = []
    for index, part in enumerate(parts):
        try:
            values.append(decode(bytes(part)))
        except BadEventError as error:
            raise BadEventError(f"record {index} of the list (counted from 0): {error}; nothing was applied") from None
    return values


def _json(value: Any, status: int = HTTPStatus.OK) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")
