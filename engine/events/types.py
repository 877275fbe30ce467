"""Types of input: events, catalogue items, forget requests, and the names of their fields."""

from typing import Any

import msgspec

__all__ = ["MAX_ID_BYTES", "MAX_MESSAGE_BYTES", "MAX_TIME_MS", "Event", "FieldNames", "Forget", "Item"]

MAX_ID_BYTES = 512
MAX_MESSAGE_BYTES = 1 << 20
# the year 5138: below 2**47, so that a time always fits the six bytes that the store gives it
MAX_TIME_MS = 100_000_000_000_000


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
    """The names that the fields of an event have in the messages of a source."""

    user: str = "user"
    item: str = "item"
    time: str = "time"
    type: str = "type"
    weight: str = "weight"
    id: str = "id"
    forget: str = "forget"
