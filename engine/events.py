"""What comes in: events, items and forget requests, and their decoding from JSON with bounds."""

import datetime as dt
import math
from collections.abc import Mapping
from typing import Any

import msgspec

from .errors import BadEventError

__all__ = ["MAX_ID_BYTES", "MAX_MESSAGE_BYTES", "MAX_TIME_MS", "Decoder", "Event", "FieldNames", "Forget", "Item"]

MAX_ID_BYTES = 512
MAX_MESSAGE_BYTES = 1 << 20
# the year 5138: below 2**47, so that a time always fits the six bytes that the store gives it
MAX_TIME_MS = 100_000_000_000_000
# integers in ids beyond this are refused rather than turned into text
_MAX_INTEGER_ID = 2**63 - 1


class Event(msgspec.Struct, frozen=True):
    """One interaction of a user with an item.

    ``time_ms`` is the event time in milliseconds since the epoch; ``type`` and ``weight`` are kept in the history;
    ``id`` names the event, so that a repeat of it is applied once.
    """

    user: str
    item: str
    time_ms: int
    type: str | None = None
    weight: float | None = None
    id: str | None = None


class Forget(msgspec.Struct, frozen=True):
    """A request to erase everything that is kept of a user."""

    user: str


class Item(msgspec.Struct, frozen=True):
    """A catalogue record; ``attributes`` holds every further field as it came."""

    item: str
    title: str | None = None
    categories: tuple[str, ...] = ()
    available: bool = True
    attributes: dict[str, Any] = {}


class FieldNames(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The names that the fields of an event have in the messages of a source."""

    user: str = "user"
    item: str = "item"
    time: str = "time"
    type: str = "type"
    weight: str = "weight"
    id: str = "id"
    forget: str = "forget"


class Decoder:
    """Decodes one JSON message at a time; never several joined, so that a message can not smuggle in a second one.

    Stateless after construction and safe to share between threads.
    """

    def __init__(self, fields: FieldNames | None = None) -> None:
        self._fields = fields or FieldNames()
        self._decoder = msgspec.json.Decoder(dict[str, Any])

    def event(self, payload: bytes | str | None) -> Event | Forget:
        """Decode an event or a forget request; raises ``BadEventError`` with the reason for everything else."""
        record = self._record(payload)
        names = self._fields
        user = _identifier(record, names.user)
        if record.get(names.forget) is True:
            return Forget(user)
        kind = record.get(names.type)
        if kind is not None and not isinstance(kind, str):
            raise BadEventError(f"field {names.type!r} must be a string, got {type(kind).__name__}")
        if kind is not None:
            _check_text(kind, names.type)
        event_id = None if record.get(names.id) is None else _identifier(record, names.id)
        return Event(
            user=user,
            item=_identifier(record, names.item),
            time_ms=_time_ms(record, names.time),
            type=kind,
            weight=_weight(record, names.weight),
            id=event_id,
        )

    def item(self, payload: bytes | str | None) -> Item:
        """Decode a catalogue record; raises ``BadEventError`` with the reason for everything else."""
        record = self._record(payload)
        item = _identifier(record, self._fields.item)
        title = record.get("title")
        if title is not None and not isinstance(title, str):
            raise BadEventError(f"field 'title' must be a string, got {type(title).__name__}")
        categories = record.get("categories") or []
        if not isinstance(categories, list) or not all(isinstance(name, str) for name in categories):
            raise BadEventError("field 'categories' must be a list of strings")
        available = record.get("available", True)
        if not isinstance(available, bool):
            raise BadEventError(f"field 'available' must be true or false, got {available!r:.80}")
        known = {self._fields.item, "title", "categories", "available"}
        rest = {name: value for name, value in record.items() if name not in known}
        return Item(item, title, tuple(categories), available, rest)

    def _record(self, payload: bytes | str | None) -> dict[str, Any]:
        if payload is None:
            raise BadEventError("the message is a tombstone (no value)")
        if len(payload) == 0:
            raise BadEventError("the message is empty")
        if len(payload) > MAX_MESSAGE_BYTES:
            raise BadEventError(f"the message has {len(payload)} bytes, more than {MAX_MESSAGE_BYTES}")
        try:
            return self._decoder.decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise BadEventError(f"not a JSON object: {error}") from None


def event_problem(event: Event) -> str | None:
    """Return why an event built in Python is not acceptable, or None; the same bounds as for decoded messages."""
    fields: Mapping[str, Any] = msgspec.structs.asdict(event)
    try:
        for name in ("user", "item") + (("id",) if event.id is not None else ()):
            if not isinstance(fields[name], str):
                return f"field {name!r} must be a string, got {type(fields[name]).__name__}"
            _identifier(fields, name)
        if event.type is not None:
            _check_text(event.type, "type")
        if isinstance(event.time_ms, bool) or not isinstance(event.time_ms, int):
            return f"field 'time_ms' must be an integer, got {type(event.time_ms).__name__}"
        _time_ms(fields, "time_ms")
        _weight(fields, "weight")
    except BadEventError as error:
        return str(error)
    return None


def _identifier(record: Mapping[str, Any], name: str) -> str:
    value = record.get(name)
    if value is None:
        raise BadEventError(f"field {name!r} is missing")
    if isinstance(value, int) and not isinstance(value, bool):
        if abs(value) > _MAX_INTEGER_ID:
            raise BadEventError(f"field {name!r} is an integer beyond 64 bits; send it as a string")
        return str(value)
    if not isinstance(value, str):
        raise BadEventError(f"field {name!r} must be a string or an integer, got {type(value).__name__}")
    if not value:
        raise BadEventError(f"field {name!r} is empty")
    _check_text(value, name)
    return value


def _check_text(value: str, name: str) -> None:
    try:
        size = len(value) if value.isascii() else len(value.encode())
    except UnicodeEncodeError:
        raise BadEventError(f"field {name!r} is not valid Unicode (a lone surrogate)") from None
    if size > MAX_ID_BYTES:
        raise BadEventError(f"field {name!r} has {size} bytes, more than {MAX_ID_BYTES}")


def _time_ms(record: Mapping[str, Any], name: str) -> int:
    value = record.get(name)
    if value is None:
        raise BadEventError(f"field {name!r} is missing")
    if isinstance(value, str):
        try:
            moment = dt.datetime.fromisoformat(value)
        except ValueError:
            raise BadEventError(f"field {name!r} is not an RFC 3339 time: {value[:40]!r}") from None
        if moment.tzinfo is None:
            raise BadEventError(f"field {name!r} has no time zone: {value[:40]!r}")
        value = (moment - dt.datetime.fromtimestamp(0, dt.UTC)) // dt.timedelta(milliseconds=1)
    if isinstance(value, bool) or not isinstance(value, int):
        raise BadEventError(f"field {name!r} must be integer milliseconds or an RFC 3339 string, got {value!r:.40}")
    if not 0 <= value <= MAX_TIME_MS:
        raise BadEventError(f"field {name!r} must be between 0 and {MAX_TIME_MS} ms, got {value}")
    return value


def _weight(record: Mapping[str, Any], name: str) -> float | None:
    value = record.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or abs(value) > 1e30:
        raise BadEventError(f"field {name!r} must be a finite number, got {value!r:.40}")
    return float(value)
