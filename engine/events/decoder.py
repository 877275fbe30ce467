"""Decoding of JSON messages into events, items and forget requests, with bounds."""

import json
import re
from typing import Annotated, Any, Protocol

import msgspec

from ..config import FieldNames
from ..errors import BadEventError
from .checks import (
    MAX_DEPTH,
    MAX_INTEGER,
    MAX_WEIGHT,
    check_attribute,
    check_text,
    identifier,
    read_time_ms,
    read_weight,
)
from .types import MAX_ID_BYTES, MAX_MESSAGE_BYTES, MAX_TIME_MS, TIME_UNITS, Event, Forget, Item

__all__ = ["Decoder"]

_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)

_Text = Annotated[str, msgspec.Meta(max_length=MAX_ID_BYTES // 4)]
_Id = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ID_BYTES // 4)]
_IntegerId = Annotated[int, msgspec.Meta(ge=-MAX_INTEGER, le=MAX_INTEGER)]
_WireWeight = Annotated[float, msgspec.Meta(ge=-MAX_WEIGHT, le=MAX_WEIGHT)]


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
        self._times, self._parts = TIME_UNITS[names.time_unit]
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
                    wire.time_ms * self._times // self._parts,
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
        item = identifier(record, self._fields.item)
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
        check_attribute(rest, "attributes")
        return Item(item, title, tuple(categories), available, rest)

    def _careful(self, data: bytes) -> Event | Forget:
        names = self._fields
        try:
            raw = self._raw.decode(data)
            # only what is mapped is looked into: further fields may hold anything that is JSON
            record = {name: msgspec.json.decode(raw[name]) for name in _mapped(names) if name in raw}
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise BadEventError(f"not a JSON object: {error}") from None
        user = identifier(record, names.user)
        forget = record.get(names.forget)
        if forget is True:
            return Forget(user)
        if forget is not None and forget is not False:
            raise BadEventError(f"field {names.forget!r} must be true or false, got {forget!r:.80}")
        kind = record.get(names.type)
        if kind is not None and not isinstance(kind, str):
            raise BadEventError(f"field {names.type!r} must be a string, got {type(kind).__name__}")
        if kind is not None:
            check_text(kind, names.type)
        event_id = None if record.get(names.id) is None else identifier(record, names.id)
        item = identifier(record, names.item)
        time_ms = read_time_ms(record, names.time, names.time_unit)
        return Event(user, item, time_ms, kind, read_weight(record, names.weight), event_id)


def _plain_event(names: FieldNames) -> type:
    times, parts = TIME_UNITS[names.time_unit]
    latest = min(MAX_TIME_MS * parts // times, MAX_INTEGER)
    fields: list[tuple[str, Any] | tuple[str, Any, Any]] = [
        ("user", _Id | _IntegerId),
        ("item", _Id | _IntegerId),
        ("time_ms", Annotated[int, msgspec.Meta(ge=0, le=latest)]),
        ("type", _Text | None, None),
        ("weight", _WireWeight | None, None),
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
    if data[:1] == b"\0":
        raise BadEventError(
            "the message begins with a zero byte, which looks like the wire format of a schema registry "
            "(Avro, Protobuf or JSON with a schema id in front); recurra reads plain JSON"
        )
    if len(data) > MAX_MESSAGE_BYTES:
        raise BadEventError(f"the message has {len(data)} bytes, more than {MAX_MESSAGE_BYTES}")
    if len(data) > 2 * MAX_DEPTH and data.count(b"[") + data.count(b"{") > MAX_DEPTH:
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
            if depth > MAX_DEPTH:
                raise BadEventError(f"the message is nested deeper than {MAX_DEPTH} levels")
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
