"""Guard in front of the service: refuses requests that a browser was tricked into, and paths that are no text.

A page of another site can make a browser send requests to a service on the same machine. The guard refuses writes
whose ``Origin`` or ``Sec-Fetch-Site`` says so, bodies of the types that forms send, and hosts that are not the
service's (DNS rebinding). It adds the headers that keep a browser from guessing types and from framing the page.
"""

import asyncio
import re
from collections.abc import Collection
from http import HTTPStatus
from urllib.parse import unquote_to_bytes, urlsplit

import msgspec
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from . import wire
from .limits import SCARCE, Limits

__all__ = ["LOOPBACK", "PROTECTION", "Guard", "allowed_hosts"]

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})

# what keeps a browser from guessing types, from telling others, and from framing an answer
PROTECTION = (
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("content-security-policy", "frame-ancestors 'none'"),
)

_HEALTH = ("/livez", "/readyz", "/health")
_READS = ("GET", "HEAD", "OPTIONS")
# a form can send these without asking first; the third one, urlencoded, is also what curl -d says
_FORM_TYPES = ("text/plain", "multipart/form-data")
_PORT = re.compile(r":[0-9]*$")


def allowed_hosts(bound: str, configured: Collection[str]) -> frozenset[str] | None:
    """Return the names that a request may give as its host, None for any.

    ``bound`` is the address that is listened on. On loopback its names are allowed, and those ``configured``. On any
    other address the configured ones and loopback's are, and without configured ones any.
    """
    if bound in LOOPBACK or configured:
        return LOOPBACK | frozenset(name.lower() for name in configured)
    return None


class Guard:
    """ASGI middleware; ``hosts`` are the names that requests may give, None for any."""

    def __init__(self, app: ASGIApp, hosts: frozenset[str] | None, limits: Limits) -> None:
        self._app = app
        self._hosts = hosts
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a request, or pass it on and add the headers to its answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in PROTECTION:
                    headers.setdefault(name, value)
            # a client that does not read would hold its connection, and the answer, for ever
            async with asyncio.timeout(self._limits.answer_s):
                await send(message)

        refused = self._refusal(scope)
        if refused is None:
            await self._app(scope, receive, send_with_headers)
            return
        status, reason = refused
        body = msgspec.json.encode(wire.Failure("ServiceError", reason))
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        # the body of the request, if it has one, is not read
        headers.append((b"connection", b"close"))
        await send_with_headers({"type": "http.response.start", "status": int(status), "headers": headers})
        await send_with_headers({"type": "http.response.body", "body": body})

    def _refusal(self, scope: Scope) -> tuple[HTTPStatus, str] | None:
        headers = Headers(scope=scope)
        if SCARCE in scope.get("state", {}) and scope["path"] not in _HEALTH:
            return HTTPStatus.SERVICE_UNAVAILABLE, "the service has too many connections; ask again later"
        if "content-length" in headers and "transfer-encoding" in headers:
            # proxies disagree on which of the two counts
            return HTTPStatus.BAD_REQUEST, "a request may not have both Content-Length and Transfer-Encoding"
        host = _name(headers.get("host", ""))
        if self._hosts is not None and host not in self._hosts:
            return HTTPStatus.MISDIRECTED_REQUEST, f"the host {host!r} is not served here; see [api] hosts"
        try:
            unquote_to_bytes(scope.get("raw_path", b"")).decode()
        except UnicodeDecodeError:
            return HTTPStatus.BAD_REQUEST, "the path is not valid UTF-8"
        if scope["method"] in _READS:
            return None
        origin, site = headers.get("origin"), headers.get("sec-fetch-site", "same-origin")
        foreign = origin is not None and _netloc(origin) != headers.get("host", "").lower()
        if foreign or site not in ("same-origin", "none"):
            return HTTPStatus.FORBIDDEN, "pages of other sites may not write here"
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind in _FORM_TYPES:
            return HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"expected content-type application/json, got {kind}"
        return None


def _netloc(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        # brackets without an address, say: no page of ours
        return None


def _name(host: str) -> str:
    return _PORT.sub("", host).strip("[]").lower()
