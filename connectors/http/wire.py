"""Wire form of the engine's verbs over HTTP: one request per verb, errors by the name of their class."""

import itertools
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import quote

import msgspec

from ...engine import errors
from ...engine.errors import (
    BadEventError,
    BusyError,
    ClosedError,
    InputError,
    RecurraError,
    ServiceError,
    StoreError,
    StoreFullError,
    TrainingBusyError,
    TrainingError,
    UnknownItemError,
    UnknownUserError,
    VersionError,
)
from ...engine.events import (
    MAX_TIME_MS,
    Event,
    Forget,
    Item,
    check_id,
    check_inputs,
    check_query,
    check_version,
    rfc_3339_ms,
)
from ...engine.results import Health, HistoryEntry, IngestReport, Recommendation, Refusal, TrainReport, VersionInfo

__all__ = [
    "DemoFigures",
    "Digest",
    "Failure",
    "Forgotten",
    "History",
    "Liveness",
    "PageFigures",
    "Readiness",
    "Request",
    "Started",
    "digest",
    "error_of",
    "forget",
    "health",
    "history",
    "ingest",
    "recommend",
    "refusals",
    "rollback",
    "similar",
    "status_of",
    "time_ms",
    "train",
    "versions",
]

# the first that an error is an instance of decides
_STATUS: tuple[tuple[type[RecurraError], int], ...] = (
    (UnknownUserError, 404),
    (UnknownItemError, 404),
    (VersionError, 409),
    (BadEventError, 422),
    (InputError, 422),
    (StoreFullError, 507),
    (StoreError, 503),
    (BusyError, 503),
    (ClosedError, 503),
    (TrainingBusyError, 409),
    (TrainingError, 500),
)


# a service reads 64 KiB of address and headers
_MAX_WHERE_BYTES = 60_000


class Failure(msgspec.Struct, frozen=True):
    """The body of every answer that is not a success."""

    error: str
    message: str


class History(msgspec.Struct, frozen=True):
    """The kept events of a user, oldest first."""

    user: str
    events: list[HistoryEntry]


class Forgotten(msgspec.Struct, frozen=True):
    """Whether there was anything to erase of a user."""

    user: str
    forgotten: bool


class Started(msgspec.Struct, frozen=True):
    """Answer to a request to train that does not wait."""

    started: bool = True


class Digest(msgspec.Struct, frozen=True):
    """SHA-256 over the canonical records of all users."""

    digest: str


class Liveness(msgspec.Struct, frozen=True):
    """Answer of a process that answers."""

    status: str = "ok"


class Readiness(msgspec.Struct, frozen=True):
    """Whether the service takes in events and answers queries, and why not."""

    status: str
    reasons: list[str]


class DemoFigures(msgspec.Struct, frozen=True):
    """Figures of the demonstration: events played, events judged before they were learnt, metrics over the last."""

    demo: bool
    played: int
    seconds: float
    recent_users: list[str]
    judged: int
    recurra: dict[str, float]
    popularity: dict[str, float]


class PageFigures(Health, frozen=True, kw_only=True):
    """Figures of the live page: the health of the service and, in the demonstration, those of `DemoFigures`."""

    demo: bool | msgspec.UnsetType = msgspec.UNSET
    played: int | msgspec.UnsetType = msgspec.UNSET
    seconds: float | msgspec.UnsetType = msgspec.UNSET
    recent_users: list[str] | msgspec.UnsetType = msgspec.UNSET
    judged: int | msgspec.UnsetType = msgspec.UNSET
    recurra: dict[str, float] | msgspec.UnsetType = msgspec.UNSET
    popularity: dict[str, float] | msgspec.UnsetType = msgspec.UNSET

    @classmethod
    def of(cls, health: Health, figures: DemoFigures | None) -> "PageFigures":
        """Join the health of a service and the figures of a demonstration."""
        return cls(**msgspec.structs.asdict(health), **({} if figures is None else msgspec.structs.asdict(figures)))


class Request(NamedTuple):
    """One HTTP request and the type of its answer."""

    method: str
    path: str
    answer: Any
    params: Mapping[str, str] = MappingProxyType({})
    body: bytes | None = None


def ingest(events: Iterable[Event | Forget | Item], *, durable: bool) -> list[Request]:
    """Return the requests that hand over events and forget requests, and catalogue records, in runs of one kind.

    Raises ``InputError`` if one is not acceptable, before anything is sent; as an engine does.
    """
    runs = itertools.groupby(check_inputs(events), lambda value: "items" if isinstance(value, Item) else "events")
    return [_post(kind, run, durable) for kind, run in runs]


def recommend(user: str, k: int, at: int | None, where: str | None, explain: bool) -> Request:
    """Ask for the next items of a user; ``at`` is in milliseconds."""
    check_query(user, "user", k, at=at, where=where)
    params = {"k": str(k)} | _filter(where)
    if at is not None:
        params["at"] = str(at)
    if explain:
        params["explain"] = "true"
    return Request("GET", f"/v1/users/{_segment(user, 'user')}/recommendations", Recommendation, params)


def similar(item: str, k: int, where: str | None) -> Request:
    """Ask for the items most like one."""
    check_query(item, "item", k, where=where)
    params = {"k": str(k)} | _filter(where)
    return Request("GET", f"/v1/items/{_segment(item, 'item')}/similar", Recommendation, params)


def history(user: str) -> Request:
    """Ask for the kept events of a user."""
    return Request("GET", f"/v1/users/{_segment(user, 'user')}/history", History)


def forget(user: str) -> Request:
    """Erase a user."""
    return Request("DELETE", f"/v1/users/{_segment(user, 'user')}", Forgotten)


def versions() -> Request:
    """Ask for all versions."""
    return Request("GET", "/v1/versions", list[VersionInfo])


def refusals() -> Request:
    """Ask for the last candidates that the gate refused."""
    return Request("GET", "/v1/refusals", list[Refusal])


def rollback(number: int) -> Request:
    """Serve another version."""
    check_version(number)
    return Request("POST", f"/v1/versions/{number}/rollback", list[VersionInfo])


def train(*, wait: bool) -> Request:
    """Train a version now."""
    return Request("POST", "/v1/train", TrainReport if wait else Started, {"wait": "true" if wait else "false"})


def digest() -> Request:
    """Ask for the digest of all users' records."""
    return Request("GET", "/v1/digest", Digest)


def health() -> Request:
    """Ask for the state of the service."""
    return Request("GET", "/health", Health)


def time_ms(text: str) -> int:
    """Read a time given as text: integer milliseconds since the epoch, or RFC 3339 with a time zone."""
    try:
        moment_ms = int(text) if text.lstrip("-").isdecimal() else rfc_3339_ms(text)
    except ValueError:
        raise InputError(
            f"expected a time in milliseconds or like 2026-01-31T12:00:00Z (with a time zone), got {text!r:.60}"
        ) from None
    if not 0 <= moment_ms <= MAX_TIME_MS:
        raise InputError(f"expected a time between 0 and {MAX_TIME_MS} ms, got {moment_ms}")
    return moment_ms


def status_of(error: RecurraError) -> int:
    """Return the HTTP status that stands for an error."""
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def error_of(status: int, body: bytes) -> RecurraError:
    """Return the error that an answer stands for: of the class that the service raised, with its message."""
    try:
        failure = msgspec.json.decode(body, type=Failure)
    except msgspec.DecodeError:
        return ServiceError(f"the service answered with status {status} and no reason that recurra knows")
    kind = getattr(errors, failure.error, None)
    if isinstance(kind, type) and issubclass(kind, RecurraError):
        return kind(failure.message)
    return ServiceError(failure.message)


def _record(value: Event | Forget | Item) -> dict[str, Any]:
    if isinstance(value, Forget):
        return {"user": value.user, "forget": True}
    if isinstance(value, Item):
        record = {**value.attributes, "item": value.item, "categories": value.categories, "available": value.available}
        further: dict[str, Any] = {"title": value.title}
    else:
        record = {"user": value.user, "item": value.item, "time": value.time_ms}
        further = {"type": value.type, "weight": value.weight, "id": value.id}
    return record | {name: field for name, field in further.items() if field is not None}


def _post(kind: str, values: Iterable[Event | Forget | Item], durable: bool) -> Request:
    # the service may have other names for the fields
    params = {"names": "standard"} | ({"durable": "true"} if durable else {})
    try:
        body = msgspec.json.encode([_record(value) for value in values])
    except (TypeError, UnicodeEncodeError) as error:
        raise BadEventError(f"cannot be written as JSON: {error}") from None
    return Request("POST", f"/v1/{kind}", IngestReport, params, body)


def _filter(where: str | None) -> dict[str, str]:
    if where is None:
        return {}
    size = len(quote(where))
    if size > _MAX_WHERE_BYTES:
        raise InputError(
            f"the filter takes {size} bytes in the address of a request, more than {_MAX_WHERE_BYTES}: a letter beyond "
            "ASCII takes six or more"
        )
    return {"where": where}


def _segment(text: str, name: str) -> str:
    check_id(text, name)
    # a dot segment would be resolved away before the request is sent
    return quote(text, safe="") if text.strip(".") else text.replace(".", "%2E")
