"""Listener that runs the service's application in its own thread."""

import asyncio
import errno
import socket
import threading
import time

import uvicorn
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ...engine.errors import ConfigError, ServiceError
from .guard import PROTECTION
from .limits import Limits, protocol

__all__ = ["Listener"]

_START_S = 10.0
# open connections get this long to finish when the service stops
_STOP_S = 3
# a long filter, written in a URL
_HEADER_BYTES = 64 << 10
_HEADERS = dict(PROTECTION)
_LATER = {"retry-after": "1", "connection": "close"}


class _Front:
    """ASGI application that passes requests on to another one, and says so while that starts and when it stops."""

    def __init__(self) -> None:
        self.app: ASGIApp | None = None
        self.starting = "engine: recovering, the service is starting"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.app is not None:
            await _until_stopped(self.app, scope, receive, send)
        elif scope["type"] == "http":
            await _starting(scope["path"], self.starting)(scope, receive, send)


async def _until_stopped(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Serve one request; one that is cut off because the service stops gets a reason instead of an answer."""
    began = False

    async def sending(message: Message) -> None:
        nonlocal began
        began = True
        await send(message)

    try:
        await app(scope, receive, sending)
    except asyncio.CancelledError:
        if began or scope["type"] != "http":
            raise
        await _unavailable("engine: the service stops")(scope, receive, send)


def _unavailable(reason: str) -> JSONResponse:
    return JSONResponse({"error": "BusyError", "message": reason}, 503, _HEADERS | _LATER)


def _starting(path: str, reason: str) -> JSONResponse:
    if path == "/livez":
        return JSONResponse({"status": "ok"}, headers=_HEADERS)
    if path == "/readyz":
        return JSONResponse({"status": "not ready", "reasons": [reason]}, 503, _HEADERS | _LATER)
    return _unavailable(reason)


class Listener:
    """Takes the address at construction, serves from ``start`` to ``close``.

    Raises ``ConfigError`` if the address is not free, before anything else is set up. ``port`` 0 takes a free one.
    """

    def __init__(self, host: str, port: int, limits: Limits = Limits()) -> None:  # noqa: B008  # a constant
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        # with the protocol named, the event loop turns Nagle's algorithm off: it would hold answers back for 40 ms
        self._socket = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind((host, port))
            self._socket.listen(512)
        except OSError as error:
            self._socket.close()
            reason = "it is in use" if error.errno == errno.EADDRINUSE else error.strerror
            raise ConfigError(f"cannot serve HTTP at {host}:{port}: {reason}; choose another address") from None
        self.host, self.port = host, self._socket.getsockname()[1]
        self._limits = limits
        self._front = _Front()
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    def say_starting(self, reason: str) -> None:
        """Give ``reason`` for not being ready until the application is there."""
        self._front.starting = reason

    @property
    def url(self) -> str:
        """The address to open, as a browser on this machine would."""
        name = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(
            self.host, f"[{self.host}]" if ":" in self.host else self.host
        )
        return f"http://{name}:{self.port}"

    def start(self, app: ASGIApp | None = None) -> None:
        """Serve ``app``; returns when requests are answered.

        None answers that the process lives and is not ready yet; a second call brings the application.
        """
        self._front.app = app
        if self._server is not None:
            return
        config = uvicorn.Config(
            self._front,
            http=protocol(self._limits),
            ws="none",
            h11_max_incomplete_event_size=_HEADER_BYTES,
            log_level="error",
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=_STOP_S,
        )
        self._server = server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=server.run, kwargs={"sockets": [self._socket]}, name="recurra-http", daemon=True
        )
        self._thread.start()
        deadline = time.monotonic() + _START_S
        while not server.started and self._thread.is_alive() and time.monotonic() < deadline:
            time.sleep(0.01)
        if not server.started:
            raise ServiceError(f"the HTTP service at {self.url} did not start")

    def close(self) -> None:
        """Finish open requests and stop."""
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join(_STOP_S + 2)
        self._socket.close()
