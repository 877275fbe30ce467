"""Checks of values: the same bounds for messages and for objects built in Python."""

import datetime as dt
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from ..errors import BadEventError, InputError, shown
from .types import MAX_ID_BYTES, MAX_TIME_MS, TIME_UNITS, Event, Forget, Item

__all__ = [
    "FIRST_LIKELY_S",
    "LAST_LIKELY_S",
    "MAX_DEPTH",
    "MAX_INTEGER",
    "MAX_WEIGHT",
    "check_attribute",
    "check_id",
    "check_inputs",
    "check_text",
    "identifier",
    "input_problem",
    "read_time_ms",
    "read_weight",
    "rfc_3339_ms",
]

# integers in ids beyond this are refused rather than turned into text
MAX_INTEGER = 2**63 - 1
MAX_WEIGHT = 1e30
# a time that is between these as seconds is a date from 1990 to 2099; as milliseconds it would be one of early 1970
FIRST_LIKELY_S, LAST_LIKELY_S = 631_152_000, 4_102_444_800
_WORDS = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
# deeper messages are refused: where a parser gives up depends on its stack, but the same bytes must always fare alike
MAX_DEPTH = 100

_RFC_3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})", re.ASCII
)


def _event_problem(event: Event) -> str | None:
    fields: Mapping[str, Any] = msgspec.structs.asdict(event)
    try:
        for name in ("user", "item") + (("id",) if event.id is not None else ()):
            if (problem := _id_problem(fields[name], name)) is not None:
                return problem
        if event.type is not None:
            if not isinstance(event.type, str):
                return f"field 'type' must be a string, got {type(event.type).__name__}"
            check_text(event.type, "type")
        if isinstance(event.time_ms, bool) or not isinstance(event.time_ms, int):
            return f"field 'time_ms' must be an integer, got {type(event.time_ms).__name__}"
        read_time_ms(fields, "time_ms")
        read_weight(fields, "weight")
    except BadEventError as error:
        return str(error)
    return None


def check_inputs(values: Iterable[Event | Forget | Item]) -> list[Event | Forget | Item]:
    """Return the values as a list; raises ``InputError`` with the position of the first that is not acceptable."""
    if not isinstance(values, Iterable):
        raise InputError(f"expected a list of Event, Forget or Item, got {type(values).__name__}")
    checked = list(values)
    for position, value in enumerate(checked):
        if (problem := input_problem(value)) is not None:
            raise InputError(f"event {position}: {problem}")
    return checked


def check_id(value: object, name: str) -> None:
    """Raise ``InputError`` if a value is no id; ``name`` is the argument that it was given for."""
    if (problem := _id_problem(value, name)) is not None:
        raise InputError(problem)


def input_problem(value: object) -> str | None:
    """Return why a value is no event, item or forget request that is acceptable, or None."""
    match value:
        case Event():
            return _event_problem(value)
        case Item():
            return _item_problem(value)
        case Forget():
            return _id_problem(value.user, "user")
    return f"expected Event, Forget or Item, got {type(value).__name__}"


def _item_problem(item: Item) -> str | None:
    if (problem := _id_problem(item.item, "item")) is not None:
        return problem
    if item.title is not None and not isinstance(item.title, str):
        return f"field 'title' must be a string or None, got {type(item.title).__name__}"
    # a string would pass for the sequence of its letters
    if not isinstance(item.categories, tuple | list) or not all(isinstance(name, str) for name in item.categories):
        return f"field 'categories' must be a tuple of strings, got {shown(item.categories)}"
    if not isinstance(item.available, bool):
        return f"field 'available' must be True or False, got {shown(item.available)}"
    if not isinstance(item.attributes, dict):
        return f"field 'attributes' must be a dict, got {type(item.attributes).__name__}"
    try:
        check_attribute([item.title, list(item.categories), item.attributes], "attributes")
    except BadEventError as error:
        return str(error)
    return None


def _id_problem(value: object, name: str) -> str | None:
    if not isinstance(value, str):
        return f"field {name!r} must be a string, got {type(value).__name__}"
    try:
        identifier({name: value}, name)
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


def identifier(record: Mapping[str, Any], name: str) -> str:
    """Return the id in field ``name`` of a record; integers become their decimal text. Raises ``BadEventError``."""
    value = record.get(name)
    if value is None:
        raise BadEventError(f"field {name!r} is missing")
    if isinstance(value, int) and not isinstance(value, bool):
        if abs(value) > MAX_INTEGER:
            raise BadEventError(f"field {name!r} is an integer beyond 64 bits; send it as a string")
        return str(value)
    if not isinstance(value, str):
        raise BadEventError(f"field {name!r} must be a string or an integer, got {type(value).__name__}")
    if not value:
        raise BadEventError(f"field {name!r} is empty")
    check_text(value, name)
    return value


def check_text(value: str, name: str) -> None:
    """Raise ``BadEventError`` for text that is too long or no valid Unicode."""
    try:
        size = len(value) if value.isascii() else len(value.encode())
    except UnicodeEncodeError:
        raise BadEventError(f"field {name!r} is not valid Unicode (a lone surrogate)") from None
    if size > MAX_ID_BYTES:
        raise BadEventError(f"field {name!r} has {size} bytes, more than {MAX_ID_BYTES}")


def check_attribute(value: object, name: str, depth: int = 0) -> None:
    """Raise ``BadEventError`` for what the store could not write and read back: anything that is not JSON."""
    if depth > MAX_DEPTH:
        raise BadEventError(f"field {name!r} is nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise BadEventError(f"field {name!r} is not valid Unicode (a lone surrogate)") from None
    elif isinstance(value, dict):
        for key, inside in value.items():
            if not isinstance(key, str):
                raise BadEventError(f"field {name!r} has a name that is no string: {shown(key)}")
            check_attribute(key, name)
            check_attribute(inside, key, depth + 1)
    elif isinstance(value, list | tuple):
        for inside in value:
            check_attribute(inside, name, depth + 1)
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise BadEventError(f"field {name!r} must be finite, got {value!r}")
    elif isinstance(value, int):
        if abs(value) > MAX_INTEGER:
            raise BadEventError(f"field {name!r} is an integer beyond 64 bits; send it as a string")
    elif value is not None:
        raise BadEventError(f"field {name!r} must be text, a number, true, false, a list or a dict, got {shown(value)}")


def read_time_ms(record: Mapping[str, Any], name: str, unit: str = "ms") -> int:
    """Return the time in field ``name`` of a record, in ms; numbers are in ``unit``. Raises ``BadEventError``."""
    value = record.get(name)
    if value is None:
        raise BadEventError(f"field {name!r} is missing")
    if isinstance(value, str):
        time_ms = rfc_3339_ms(value, name)
    elif isinstance(value, bool) or not isinstance(value, int | float) or (isinstance(value, float) and unit != "s"):
        raise BadEventError(f"field {name!r} must be integer {_WORDS[unit]} or an RFC 3339 string, got {shown(value)}")
    elif isinstance(value, float):
        # finer than a millisecond is more than a float of today's seconds holds
        time_ms = round(value * 1_000) if abs(value) <= MAX_TIME_MS else MAX_TIME_MS + 1
    else:
        times, parts = TIME_UNITS[unit]
        time_ms = value * times // parts
    if not 0 <= time_ms <= MAX_TIME_MS:
        raise BadEventError(
            f"field {name!r} must be between 0 and {MAX_TIME_MS} ms, got {shown(value)}{_other_unit(value)}"
        )
    return time_ms


def _other_unit(value: object) -> str:
    """Return the unit in which a number would be a date of our time, in words; empty for none."""
    for unit in ("us", "ns"):
        seconds = value // TIME_UNITS[unit][1] // 1_000 if isinstance(value, int) else 0
        if FIRST_LIKELY_S <= seconds < LAST_LIKELY_S:
            return f', which looks like {_WORDS[unit]} (events.time_unit = "{unit}" says so)'
    return ""


def read_weight(record: Mapping[str, Any], name: str) -> float | None:
    """Return the weight in field ``name`` of a record, None if it has none. Raises ``BadEventError``."""
    value = record.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadEventError(f"field {name!r} must be a finite number, got {shown(value)}")
    if not abs(value) <= MAX_WEIGHT:
        raise BadEventError(f"field {name!r} must be a finite number, got {shown(value)}")
    return float(value)
