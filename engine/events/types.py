"""Types of input: events, catalogue items, forget requests, and the names of their fields."""

from typing import Annotated, Any, Literal

import msgspec

from ..errors import ConfigError
from ..section import Section

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


_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=512)]


class FieldNames(Section, frozen=True):
    """The names that the fields of an event have in the messages of a source, and the unit of its times.

    ``time_unit`` is ``s``, ``ms``, ``us`` or ``ns``; times as RFC 3339 text need none.
    """

    section = "events"

    user: _Name = "user"
    item: _Name = "item"
    time: _Name = "time"
    type: _Name = "type"
    weight: _Name = "weight"
    id: _Name = "id"
    forget: _Name = "forget"
    # of integer times: "s", "ms", "us" or "ns"
    time_unit: Literal["s", "ms", "us", "ns"] = "ms"

    def __post_init__(self) -> None:
        super().__post_init__()
        names = (self.user, self.item, self.time, self.type, self.weight, self.id, self.forget)
        if len(set(names)) < len(names):
            raise ConfigError(f"[events]: two fields of an event are mapped to one name: {', '.join(names)}")
