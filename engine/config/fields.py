"""Section about messages: the names of their fields."""

from typing import Annotated, Literal

import msgspec

from ..errors import ConfigError
from .section import Section

__all__ = ["FieldNames"]

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
