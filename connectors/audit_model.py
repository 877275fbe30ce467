"""The auditor's model of the store: plain dicts and lists, the standard library, no engine code.

Nothing here may be shared with the engine. Where the two differ, one of them is wrong.
"""

import bisect
import datetime as dt
import hashlib
import json
import math
import re
import struct
from collections.abc import Iterable
from typing import NamedTuple

__all__ = ["Expected", "Fact", "Ledger", "decode", "id_hash", "single"]

_MAX_BYTES = 1 << 20
_MAX_DEPTH = 100
_MAX_ID_BYTES = 512
_MAX_TIME_MS = 10**14
_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(?:\.\d+)?(?:[Zz]|[+-]\d\d:\d\d)", re.ASCII)


_Entry = tuple[str, int, str | None, float | None, int]


class Fact(NamedTuple):
    """One acceptable message: an event, or the request to forget a user (``item`` None)."""

    user: str
    item: str | None = None
    time_ms: int = 0
    type: str | None = None
    weight: float | None = None
    id_hash: int = 0


class Expected(NamedTuple):
    """The record that a user must have: (item, time, type, weight, hash of the id) in order, and all items ever."""

    n: int
    history: list[_Entry]
    seen: set[str]


class Ledger:
    """Applies facts one at a time in the order of their arrival.

    ``anchor`` is A: a history keeps the last 2 A events by (time, arrival).
    """

    def __init__(self, anchor: int) -> None:
        self._most = 2 * anchor
        self.users: dict[str, Expected] = {}
        self.events = self.duplicates = self.too_late = 0

    def apply(self, fact: Fact) -> None:
        """Apply one fact."""
        if fact.item is None:
            self.users.pop(fact.user, None)
            return
        self.events += 1
        user = self.users.get(fact.user) or Expected(0, [], set())
        entry = (fact.item, fact.time_ms, fact.type, fact.weight, fact.id_hash)
        if any(_same(entry, kept) for kept in user.history):
            self.duplicates += 1
            return
        if len(user.history) == self._most and fact.time_ms < user.history[0][1]:
            self.too_late += 1
            return
        bisect.insort_right(user.history, entry, key=lambda kept: kept[1])
        del user.history[: -self._most]
        user.seen.add(fact.item)
        self.users[fact.user] = user._replace(n=user.n + 1)


def _same(one: _Entry, two: _Entry) -> bool:
    if one[4] and two[4]:
        return one[4] == two[4]
    return one[:3] == two[:3]


def decode(payload: bytes | None, names: dict[str, str]) -> Fact | None:
    """Return the fact in a message, or None for one that must not be applied.

    ``names`` maps user, item, time, type, weight, id and forget to the field names of the source, and ``time_unit`` to
    the unit of its times: s, ms, us or ns.
    """
    if not payload or len(payload) > _MAX_BYTES or _depth(payload) > _MAX_DEPTH:
        return None
    fields = {field: name for field, name in names.items() if field != "time_unit"}
    pairs: list[tuple[str, object]] = []

    def keep(found: list[tuple[str, object]]) -> dict[str, object]:
        pairs[:] = found
        return dict(found)

    try:
        record = json.loads(
            payload.decode(), object_pairs_hook=keep, parse_constant=_refuse, parse_int=_integer, parse_float=_number
        )
    except (ValueError, RecursionError):
        return None
    keys = [name for name, _ in pairs]
    if not isinstance(record, dict) or any(keys.count(name) > 1 for name in fields.values()):
        return None
    try:
        for text in _texts(pairs):
            text.encode()
        return _fact({field: record.get(name) for field, name in fields.items()}, names.get("time_unit", "ms"))
    except (ValueError, OverflowError):
        return None


def _fact(record: dict[str, object], unit: str) -> Fact | None:
    user = _identifier(record["user"])
    forget = record["forget"]
    if forget is True:
        return Fact(user)
    if forget is not None and forget is not False:
        return None
    kind = record["type"]
    if kind is not None and (not isinstance(kind, str) or len(kind.encode()) > _MAX_ID_BYTES):
        return None
    event_id = None if record["id"] is None else _identifier(record["id"])
    item, time_ms, weight = _identifier(record["item"]), _time_ms(record["time"], unit), _weight(record["weight"])
    return Fact(user, item, time_ms, kind, weight, 0 if event_id is None else id_hash(event_id))


def id_hash(event_id: str) -> int:
    """Return the 64-bit hash under which the store keeps an event id."""
    return int.from_bytes(hashlib.blake2b(event_id.encode(), digest_size=8).digest(), "little") or 1


def single(weight: float) -> float:
    """Round a weight to the single precision that the store keeps."""
    return float(struct.unpack("<f", struct.pack("<f", weight))[0])


def _identifier(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63:
        return str(value)
    if not isinstance(value, str) or not 0 < len(value.encode()) <= _MAX_ID_BYTES:
        raise ValueError("not an id")
    return value


def _time_ms(value: object, unit: str) -> int:
    if isinstance(value, str):
        if _RFC_3339.fullmatch(value) is None:
            raise ValueError("not a time")
        moment = dt.datetime.fromisoformat(value.upper())
        value = (moment - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(milliseconds=1)
    elif isinstance(value, float) and unit == "s":
        value = round(value * 1000)
    elif isinstance(value, int) and not isinstance(value, bool):
        value = value * 1000 if unit == "s" else value // {"ms": 1, "us": 1000, "ns": 1000000}[unit]
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MAX_TIME_MS:
        raise ValueError("not a time")
    return value


def _weight(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= 1e30:
        raise ValueError("not a weight")
    return single(value)


def _refuse(_: str) -> None:
    raise ValueError("not JSON")


def _integer(text: str) -> int | float:
    return int(text) if len(text) < 400 else math.inf


def _number(text: str) -> float:
    return float(text)


def _depth(payload: bytes) -> int:
    depth = deepest = 0
    quoted = escaped = False
    for byte in payload if payload.count(b"[") + payload.count(b"{") > _MAX_DEPTH else b"":
        if quoted:
            quoted, escaped = escaped or byte != 0x22, not escaped and byte == 0x5C
        elif byte == 0x22:
            quoted = True
        elif byte in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif byte in b"]}":
            depth -= 1
    return deepest


def _texts(value: object) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield name
            yield from _texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)
