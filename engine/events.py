"""Input of an engine: events, items and forget requests, and their decoding from JSON with bounds."""

import datetime as dt
import json
import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, Protocol

import msgspec

from .errors import BadEventError, ConfigError

__all__ = [
    "MAX_ID_BYTES",
    "MAX_MESSAGE_BYTES",
    "MAX_TIME_MS",
    "Decoder",
    "Event",
    "FieldNames",
    "Forget",
    "Item",
    "event_problem",
    "rfc_3339_ms",
]

MAX_ID_BYTES = 512
MAX_MESSAGE_BYTES = 1 << 20
# the year 5138: below 2**47, so that a time always fits the six bytes that the store gives it
MAX_TIME_MS = 100_000_000_000_000
# integers in ids beyond this are refused rather than turned into text
_MAX_INTEGER_ID = 2**63 - 1
_MAX_WEIGHT = 1e30
# deeper messages are refused: where a parser gives up depends on its stack, but the same bytes must always fare alike
_MAX_DEPTH = 100

_RFC_3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})", re.ASCII
)
_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)

_Text = Annotated[str, msgspec.Meta(max_length=MAX_ID_BYTES // 4)]
_Id = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ID_BYTES // 4)]
_IntegerId = Annotated[int, msgspec.Meta(ge=-_MAX_INTEGER_ID, le=_MAX_INTEGER_ID)]
_TimeMs = Annotated[int, msgspec.Meta(ge=0, le=MAX_TIME_MS)]
_Weight = Annotated[float, msgspec.Meta(ge=-_MAX_WEIGHT, le=_MAX_WEIGHT)]


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


class _Wire(Protocol):
    """What the typed decoder makes of a plain event; built per field names, so only its shape is known here."""

    user: str | int
    item: str | int
    time_ms: int
    type: str | None
    weight: float | None
    id: str | None


class Decoder:
    """Decodes one JSON message at a time; never several joined, so that a message cannot smuggle in a second one.

    Plain events take one typed pass. All that this pass refuses, and what it does not know (a forget request, a time as
    text), is read field by field, which also finds the exact reason. Stateless after construction and safe to share
    between threads.
    """

    def __init__(self, fields: FieldNames | None = None) -> None:
        self._fields = names = fields or FieldNames()
        self._plain: msgspec.json.Decoder[Any] = msgspec.json.Decoder(_plain_event(names))
        self._raw = msgspec.json.Decoder(dict[str, msgspec.Raw])
        self._values = msgspec.json.Decoder(dict[str, Any])
        self._quoted = tuple(_quoted(name) for name in _mapped(names))
        self._forget = _quoted(names.forget)
        self._quoted_item = tuple(_quoted(name) for name in (names.item, "title", "categories", "available"))

    def event(self, payload: bytes | str | None) -> Event | Forget:
        """Decode an event or a forget request; raises ``BadEventError`` with the reason for everything else."""
        data = _checked(payload, self._quoted)
        if self._forget not in data:
            try:
                wire: _Wire = self._plain.decode(data)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                pass
            else:
                user, item = wire.user, wire.item
                return Event(
                    user if user.__class__ is str else str(user),
                    item if item.__class__ is str else str(item),
                    wire.time_ms,
                    wire.type,
                    wire.weight,
                    wire.id,
                )
        return self._careful(data)

    def item(self, payload: bytes | str | None) -> Item:
        """Decode a catalogue record; raises ``BadEventError`` with the reason for everything else."""
        data = _checked(payload, self._quoted_item)
        try:
            record = self._values.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise BadEventError(f"not a JSON object: {error}") from None
        item = _identifier(record, self._fields.item)
        title = record.get("title")
        if title is not None and not isinstance(title, str):
            raise BadEventError(f"field 'title' must be a string, got {type(title).__name__}")
        categories = [] if record.get("categories") is None else record["categories"]
        if not isinstance(categories, list) or not all(isinstance(name, str) for name in categories):
            raise BadEventError("field 'categories' must be a list of strings")
        available = record.get("available", True)
        if not isinstance(available, bool):
            raise BadEventError(f"field 'available' must be true or false, got {available!r:.80}")
        known = {self._fields.item, "title", "categories", "available"}
        rest = {name: value for name, value in record.items() if name not in known}
        return Item(item, title, tuple(categories), available, rest)

    def _careful(self, data: bytes) -> Event | Forget:
        names = self._fields
        try:
            raw = self._raw.decode(data)
            # only what is mapped is looked into: further fields may hold anything that is JSON
            record = {name: msgspec.json.decode(raw[name]) for name in _mapped(names) if name in raw}
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise BadEventError(f"not a JSON object: {error}") from None
        user = _identifier(record, names.user)
        forget = record.get(names.forget)
        if forget is True:
            return Forget(user)
        if forget is not None and forget is not False:
            raise BadEventError(f"field {names.forget!r} must be true or false, got {forget!r:.80}")
        kind = record.get(names.type)
        if kind is not None and not isinstance(kind, str):
            raise BadEventError(f"field {names.type!r} must be a string, got {type(kind).__name__}")
        if kind is not None:
            _check_text(kind, names.type)
        event_id = None if record.get(names.id) is None else _identifier(record, names.id)
        item = _identifier(record, names.item)
        return Event(user, item, _time_ms(record, names.time), kind, _weight(record, names.weight), event_id)


def _plain_event(names: FieldNames) -> type:
    if len(set(_mapped(names))) < len(_mapped(names)):
        raise ConfigError(f"two fields of an event are mapped to one name: {', '.join(_mapped(names))}")
    fields: list[tuple[str, Any] | tuple[str, Any, Any]] = [
        ("user", _Id | _IntegerId),
        ("item", _Id | _IntegerId),
        ("time_ms", _TimeMs),
        ("type", _Text | None, None),
        ("weight", _Weight | None, None),
        ("id", _Id | None, None),
    ]
    rename = {"user": names.user, "item": names.item, "time_ms": names.time}
    rename |= {"type": names.type, "weight": names.weight, "id": names.id}
    return msgspec.defstruct("PlainEvent", fields, rename=rename, gc=False)


def _mapped(names: FieldNames) -> tuple[str, ...]:
    return names.user, names.item, names.time, names.type, names.weight, names.id, names.forget


def _quoted(name: str) -> bytes:
    return json.dumps(name, ensure_ascii=False).encode()


def _checked(payload: bytes | str | None, quoted: tuple[bytes, ...]) -> bytes:
    """Return the payload as bytes if its size, text, depth and keys are acceptable, whatever its fields hold."""
    if payload is None:
        raise BadEventError("the message is a tombstone (no value)")
    try:
        data = payload.encode() if isinstance(payload, str) else payload
        if not data.isascii():
            data.decode()
    except UnicodeError as error:
        raise BadEventError(f"not valid UTF-8: {error}") from None
    if not data:
        raise BadEventError("the message is empty")
    if len(data) > MAX_MESSAGE_BYTES:
        raise BadEventError(f"the message has {len(data)} bytes, more than {MAX_MESSAGE_BYTES}")
    if len(data) > 2 * _MAX_DEPTH and data.count(b"[") + data.count(b"{") > _MAX_DEPTH:
        _check_depth(data)
    # a key may be written with escapes, so a backslash calls for the exact check too
    if b"\\" in data:
        _check_keys(data, quoted)
    else:
        for name in quoted:
            if data.count(name) > 1:
                _check_keys(data, quoted)
                break
    return data


def _check_depth(data: bytes) -> None:
    depth = 0
    for byte in _STRINGS.sub(b"", data):
        if byte in b"[{":
            depth += 1
            if depth > _MAX_DEPTH:
                raise BadEventError(f"the message is nested deeper than {_MAX_DEPTH} levels")
        elif byte in b"]}":
            depth -= 1


def _check_keys(data: bytes, quoted: tuple[bytes, ...]) -> None:
    # the outermost object is built last, so its keys are those that remain
    keys: list[str] = []

    def remember(pairs: list[tuple[str, Any]]) -> None:
        keys[:] = [name for name, _ in pairs]

    try:
        json.loads(data, object_pairs_hook=remember, parse_int=len, parse_float=len)
    except (ValueError, RecursionError) as error:
        raise BadEventError(f"not a JSON object: {error}") from None
    for name in map(json.loads, quoted):
        if keys.count(name) > 1:
            raise BadEventError(f"field {name!r} appears {keys.count(name)} times")


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


def rfc_3339_ms(text: str, name: str = "time") -> int:
    """Turn an RFC 3339 time into milliseconds since the epoch; finer digits are cut off. Raises ``BadEventError``."""
    if _RFC_3339.fullmatch(text) is None:
        raise BadEventError(f"field {name!r} is not an RFC 3339 time with a time zone: {text[:40]!r}")
    try:
        moment = dt.datetime.fromisoformat(text.upper())
    except ValueError:
        raise BadEventError(f"field {name!r} is not a date and time that exists: {text[:40]!r}") from None
    return (moment - dt.datetime.fromtimestamp(0, dt.UTC)) // dt.timedelta(milliseconds=1)


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
        value = rfc_3339_ms(value, name)
    if isinstance(value, bool) or not isinstance(value, int):
        raise BadEventError(f"field {name!r} must be integer milliseconds or an RFC 3339 string, got {value!r:.40}")
    if not 0 <= value <= MAX_TIME_MS:
        raise BadEventError(f"field {name!r} must be between 0 and {MAX_TIME_MS} ms, got {value}")
    return value


def _weight(record: Mapping[str, Any], name: str) -> float | None:
    value = record.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadEventError(f"field {name!r} must be a finite number, got {value!r:.40}")
    if not math.isfinite(value) or abs(value) > _MAX_WEIGHT:
        raise BadEventError(f"field {name!r} must be a finite number, got {value!r:.40}")
    return float(value)
