"""Types of input: events, catalogue items, forget requests."""

from typing import Any

import msgspec

from ..config.kinds import MAX_TIME_MS

__all__ = ["MAX_ID_BYTES", "MAX_MESSAGE_BYTES", "MAX_TIME_MS", "TIME_UNITS", "Event", "Forget", "Item"]

MAX_ID_BYTES = 512
MAX_MESSAGE_BYTES = 1 << 20
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
