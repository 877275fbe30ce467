"""Answers to what fails, and to what was not asked rightly: one JSON body for all, with the status of the error."""

from collections import Counter
from http import HTTPStatus
from typing import Any

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from ...engine.errors import BusyError, InputError, RecurraError
from . import wire
from .bodies import SlowBodyError, TooLargeError
from .guard import PROTECTION

__all__ = ["add_failures", "as_json", "only_known_parameters"]

_CLOSE = {"connection": "close"}


def as_json(value: Any, status: int = HTTPStatus.OK, headers: dict[str, str] | None = None) -> Response:
    """Return an answer with a value as its body."""
    return Response(msgspec.json.encode(value), status, headers, media_type="application/json")


async def only_known_parameters(request: Request) -> None:
    """Raise ``InputError`` for a query parameter that the route does not have, or that is given twice."""
    route = request.scope.get("route")
    dependant = getattr(route, "dependant", None)
    known = {parameter.alias for parameter in getattr(dependant, "query_params", ())}
    given = Counter(name for name, _ in request.query_params.multi_items())
    for name, times in given.items():
        if name not in known:
            there = f"there are: {', '.join(sorted(known))}" if known else "there is none"
            raise InputError(f"no query parameter {name!r:.80} here; {there}")
        if times > 1:
            raise InputError(f"the query parameter {name!r} is given {times} times")


def add_failures(app: FastAPI) -> None:
    """Answer errors with a JSON body that names them."""

    def failed(request: Request, error: Exception) -> Response:
        assert isinstance(error, RecurraError)
        headers = {"retry-after": "1"} if isinstance(error, BusyError) else {}
        if headers and request.method == "POST":
            # its body may not have been read
            headers |= _CLOSE
        return as_json(wire.Failure(type(error).__name__, str(error)), wire.status_of(error), headers)

    def too_large(_request: Request, error: Exception) -> Response:
        return as_json(wire.Failure("InputError", str(error)), HTTPStatus.REQUEST_ENTITY_TOO_LARGE, _CLOSE)

    def too_slow(_request: Request, error: Exception) -> Response:
        return as_json(wire.Failure("InputError", str(error)), HTTPStatus.REQUEST_TIMEOUT, _CLOSE)

    def invalid(_request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        problems = [f"{problem['loc'][-1]}: {problem['msg']}" for problem in error.errors()]
        return as_json(wire.Failure("InputError", "; ".join(problems)), HTTPStatus.UNPROCESSABLE_ENTITY)

    def missing(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        message = f"{request.method} {request.url.path}: {error.detail}; the API is described at /docs"
        headers = None if error.headers is None else dict(error.headers)
        return as_json(wire.Failure("ServiceError", message), error.status_code, headers)

    def broken(_request: Request, _error: Exception) -> Response:
        message = "the service failed on this request; its log says why"
        # made outside of the guard, which would add these
        return as_json(wire.Failure("ServiceError", message), HTTPStatus.INTERNAL_SERVER_ERROR, dict(PROTECTION))

    def gone(_request: Request, _error: Exception) -> Response:
        # nobody reads it
        return as_json(
            wire.Failure("InputError", "the request's body did not come whole"), HTTPStatus.BAD_REQUEST, _CLOSE
        )

    app.add_exception_handler(ClientDisconnect, gone)
    app.add_exception_handler(TooLargeError, too_large)
    app.add_exception_handler(SlowBodyError, too_slow)
    app.add_exception_handler(RecurraError, failed)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, missing)
    app.add_exception_handler(Exception, broken)
