"""Clients of a service: the verbs of `Recommender` over HTTP, blocking and asynchronous."""

from collections.abc import Iterable
from types import TracebackType
from typing import Any, Literal, Self, overload

import httpx
import msgspec

from ...engine.errors import ClosedError, ConfigError, ServiceError, shown
from ...engine.events import Event, Forget, Item
from ...engine.results import Health, HistoryEntry, IngestReport, Recommendation, Refusal, TrainReport, VersionInfo
from . import wire

__all__ = ["AsyncClient", "Client"]

# longer than any answer takes
_LONGEST_S = 1_000_000


class Client:
    """A recurra service, with the verbs of an embedded engine.

    Raises the same errors as the engine, and ``ServiceError`` if the service cannot be reached. Thread-safe.
    ``transport`` replaces the network, for tests.

    >>> with Client("http://127.0.0.1:8000") as client:
    ...     answer = client.recommend("ann", k=5)  # doctest: +SKIP
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        *,
        timeout_s: float = 30.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._url = _checked(url)
        self._http = httpx.Client(base_url=self._url, timeout=_seconds(timeout_s), transport=transport)

    def ingest(self, events: Iterable[Event | Forget | Item], *, durable: bool = False) -> IngestReport:
        """Hand over events, forget requests and catalogue records; returns once they survive a crash of the service.

        ``durable`` waits until they survive a power loss. Nothing of a call with a bad event is applied. Where
        catalogue records stand between events each run of one kind is a separate request: if the connection breaks
        between two, repeat the call.
        """
        report = IngestReport()
        for request in wire.ingest(events, durable=durable):
            report = _sum(report, self._send(request))
        return report

    def recommend(
        self, user: str, k: int = 10, *, at: int | None = None, where: str | None = None, explain: bool = False
    ) -> Recommendation:
        """Return the user's next items, best first; ``at`` is the time to answer for, in milliseconds."""
        answer: Recommendation = self._send(wire.recommend(user, k, at, where, explain))
        return answer

    def similar(self, item: str, k: int = 10, *, where: str | None = None) -> Recommendation:
        """Return the items most like ``item``."""
        answer: Recommendation = self._send(wire.similar(item, k, where))
        return answer

    def history(self, user: str) -> list[HistoryEntry]:
        """Return the kept events of a user, oldest first."""
        answer: wire.History = self._send(wire.history(user))
        return answer.events

    def forget(self, user: str) -> bool:
        """Erase everything that is kept of a user; False if there was nothing."""
        answer: wire.Forgotten = self._send(wire.forget(user))
        return answer.forgotten

    @overload
    def train(self, *, wait: Literal[True] = ...) -> TrainReport: ...

    @overload
    def train(self, *, wait: bool = ...) -> TrainReport | None: ...

    def train(self, *, wait: bool = True) -> TrainReport | None:
        """Train a version now; without ``wait`` None is returned as soon as training has started."""
        answer: TrainReport | wire.Started = self._send(wire.train(wait=wait), timeout_s=None if wait else ...)
        return answer if isinstance(answer, TrainReport) else None

    def versions(self) -> list[VersionInfo]:
        """Return the versions that were promoted, oldest first."""
        answer: list[VersionInfo] = self._send(wire.versions())
        return answer

    def refusals(self) -> list[Refusal]:
        """Return the reports of the last candidates that the gate refused, oldest first."""
        answer: list[Refusal] = self._send(wire.refusals())
        return answer

    def rollback(self, number: int) -> list[VersionInfo]:
        """Serve version ``number`` again; returns all versions."""
        answer: list[VersionInfo] = self._send(wire.rollback(number))
        return answer

    def digest(self) -> str:
        """Return the SHA-256 over the canonical records of all users; takes minutes for millions of them."""
        answer: wire.Digest = self._send(wire.digest(), timeout_s=None)
        return answer.digest

    def health(self) -> Health:
        """Return the state of the service, with that of its source."""
        answer: Health = self._send(wire.health())
        return answer

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _send(self, request: wire.Request, *, timeout_s: Any = ...) -> Any:
        if self._http.is_closed:
            raise ClosedError(f"the client of {self._url} is closed")
        try:
            response = self._http.request(**_arguments(request, timeout_s))
        except httpx.HTTPError as error:
            raise _unreachable(self._url, error) from None
        return _answer(request, response)


class AsyncClient:
    """``Client`` for code that runs in an event loop; every verb is a coroutine.

    >>> async def ask() -> list[str]:
    ...     async with AsyncClient("http://127.0.0.1:8000") as client:
    ...         return (await client.recommend("ann", k=5)).items
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        *,
        timeout_s: float = 30.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._url = _checked(url)
        self._http = httpx.AsyncClient(base_url=self._url, timeout=_seconds(timeout_s), transport=transport)

    async def ingest(self, events: Iterable[Event | Forget | Item], *, durable: bool = False) -> IngestReport:
        """As ``Client.ingest``."""
        report = IngestReport()
        for request in wire.ingest(events, durable=durable):
            report = _sum(report, await self._send(request))
        return report

    async def recommend(
        self, user: str, k: int = 10, *, at: int | None = None, where: str | None = None, explain: bool = False
    ) -> Recommendation:
        """As ``Client.recommend``."""
        answer: Recommendation = await self._send(wire.recommend(user, k, at, where, explain))
        return answer

    async def similar(self, item: str, k: int = 10, *, where: str | None = None) -> Recommendation:
        """As ``Client.similar``."""
        answer: Recommendation = await self._send(wire.similar(item, k, where))
        return answer

    async def history(self, user: str) -> list[HistoryEntry]:
        """As ``Client.history``."""
        answer: wire.History = await self._send(wire.history(user))
        return answer.events

    async def forget(self, user: str) -> bool:
        """As ``Client.forget``."""
        answer: wire.Forgotten = await self._send(wire.forget(user))
        return answer.forgotten

    @overload
    async def train(self, *, wait: Literal[True] = ...) -> TrainReport: ...

    @overload
    async def train(self, *, wait: bool = ...) -> TrainReport | None: ...

    async def train(self, *, wait: bool = True) -> TrainReport | None:
        """As ``Client.train``."""
        answer: TrainReport | wire.Started = await self._send(wire.train(wait=wait), timeout_s=None if wait else ...)
        return answer if isinstance(answer, TrainReport) else None

    async def versions(self) -> list[VersionInfo]:
        """As ``Client.versions``."""
        answer: list[VersionInfo] = await self._send(wire.versions())
        return answer

    async def refusals(self) -> list[Refusal]:
        """As ``Client.refusals``."""
        answer: list[Refusal] = await self._send(wire.refusals())
        return answer

    async def rollback(self, number: int) -> list[VersionInfo]:
        """As ``Client.rollback``."""
        answer: list[VersionInfo] = await self._send(wire.rollback(number))
        return answer

    async def digest(self) -> str:
        """As ``Client.digest``."""
        answer: wire.Digest = await self._send(wire.digest(), timeout_s=None)
        return answer.digest

    async def health(self) -> Health:
        """As ``Client.health``."""
        answer: Health = await self._send(wire.health())
        return answer

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _send(self, request: wire.Request, *, timeout_s: Any = ...) -> Any:
        if self._http.is_closed:
            raise ClosedError(f"the client of {self._url} is closed")
        try:
            response = await self._http.request(**_arguments(request, timeout_s))
        except httpx.HTTPError as error:
            raise _unreachable(self._url, error) from None
        return _answer(request, response)


def _checked(url: str) -> httpx.URL:
    try:
        parsed = httpx.URL(url if isinstance(url, str) else "")
        # what the system's look-up of names does with it
        parsed.host.encode("idna")
    except (httpx.InvalidURL, UnicodeError):
        parsed = httpx.URL("")
    if parsed.scheme not in {"http", "https"} or not parsed.host or not 0 <= (parsed.port or 0) < 1 << 16:
        raise ConfigError(f"expected a service address like http://127.0.0.1:8000, got {shown(url)}")
    return parsed


def _seconds(timeout_s: float) -> float:
    number = isinstance(timeout_s, int | float) and not isinstance(timeout_s, bool)
    if not number or not 0 < timeout_s <= _LONGEST_S:
        raise ConfigError(
            f"timeout_s must be a number of seconds, above 0 and at most {_LONGEST_S}, got {shown(timeout_s)}"
        )
    return timeout_s


def _arguments(request: wire.Request, timeout_s: Any) -> dict[str, Any]:
    arguments: dict[str, Any] = {"method": request.method, "url": request.path, "params": dict(request.params)}
    if request.body is not None:
        arguments |= {"content": request.body, "headers": {"content-type": "application/json"}}
    return arguments if timeout_s is ... else arguments | {"timeout": timeout_s}


def _unreachable(url: httpx.URL, error: httpx.HTTPError) -> ServiceError:
    if isinstance(error, httpx.TimeoutException):
        return ServiceError(f"the service at {url} did not answer in time")
    return ServiceError(
        f"cannot reach a recurra service at {url} ({error}); is `recurra run` or `recurra demo` running?"
    )


def _answer(request: wire.Request, response: httpx.Response) -> Any:
    if not response.is_success:
        raise wire.error_of(response.status_code, response.content)
    try:
        return msgspec.json.decode(response.content, type=request.answer)
    except msgspec.DecodeError as error:
        raise ServiceError(f"the service at {response.url} answered with something else: {error}") from None


def _sum(left: IngestReport, right: IngestReport) -> IngestReport:
    names = IngestReport.__struct_fields__
    sums = {name: getattr(left, name) + getattr(right, name) for name in names}
    sums["users"] = list(dict.fromkeys(sums["users"]))  # each user once, as in a report of one request
    return IngestReport(**sums)
