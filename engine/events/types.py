"""Types of input: events, catalogue items, forget requests, and the names of their fields."""

from typing import Any

import msgspec

from ..errors import ConfigError

__all__ = ["MAX_ID_BYTES", "MAX_MESSAGE_BYTES", "MAX_TIME_MS", "TIME_UNITS", "Event", "FieldNames", "Forget", "Item"]

MAX_ID_BYTES = 512
MAX_MESSAGE_BYTES = 1 << 20
# the year 5138: below 2**47, so that a time always fits the six bytes that the store gives it
MAX_TIME_MS = 100_000_000_000_000
# a time in the unit, times the first, divided by the second, is in milliseconds
TIME_UNITS = {"s": (1_000, 1), "ms": (1, 1), "us": (1, 1_000), "ns": (1, 1_000_000)}


class Event(msgspec.Struct, frozen=True):
    """One interaction of a user with an item.

    ``time_ms`` is the event time in milliseconds since the epoch; ``type`` and ``weight`` are kept in the history;
    ``id`` names the event, so that a repeat of it is applied once.

    >>> Event("ann", "m1", 1_700_000_000_000, type="play").item
    'm1'
    """

    user: str
    item: str
    time_ms: int
    type: str | None = None
    weight: float | None = None
    id: str | None = None


class Forget(msgspec.Struct, frozen=True):
    """A request to erase everything that is kept of a user.

    >>> Forget("ann")
    Forget(user='ann')
    """

    user: str


class Item(msgspec.Struct, frozen=True):
    """A catalogue record; ``attributes`` holds every further field as it came.

    >>> Item("m1", title="The Quiet Harbour", categories=("Drama",), attributes={"year": 1999}).attributes["year"]
    1999
    """

    item: str
    title: str | None = None
    categories: tuple[str, ...] = ()
    available: bool = True
    attributes: dict[str, Any] = {}


class FieldNames(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The names that the fields of an event have in the messages of a source, and the unit of its times.

    ``time_unit`` is ``s``, ``ms``, ``us`` or ``ns``; times as RFC 3339 text need none.
    """

    user: str = "user"
    item: str = "item"
    time: str = "time"
    type: str = "type"
    weight: str = "weight"
    id: str = "id"
    forget: str = "forget"
    # of integer times: "s", "ms", "us" or "ns"
    time_unit: str = "ms"

    def __post_init__(self) -> None:
        if self.time_unit not in TIME_UNITS:
            raise ConfigError(f"events.time_unit must be one of {', '.join(TIME_UNITS)}, got {self.time_unit!r}")
