"""Input and outcome of one commit, by columns."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..events import Event, Item

__all__ = ["APPLIED", "DUPLICATE", "FUTURE", "LATE", "TOO_LATE", "Applied", "Batch", "event_hash"]

# status of an event after apply; the first two changed the history
APPLIED = 0
LATE = 1
DUPLICATE = 2
TOO_LATE = 3
FUTURE = 4

# what one event adds to a write batch: its share of the user's tail block, of the log chunk, and the keys
_EVENT_BYTES = 560


def event_hash(event_id: str) -> int:
    """Return the 64-bit hash that stands for an event id in histories; never 0, which means "no id"."""
    return int.from_bytes(hashlib.blake2b(event_id.encode(), digest_size=8).digest(), "little") or 1


@dataclass(slots=True)
class Batch:
    """One commit: events in order of arrival with everything that must become durable together with them.

    Within the batch, ``forgets`` happen before everything else, and the catalogue record ``(position, item)`` before
    the event at that position. A stream in which a forget follows events of the same user is split before the forget.
    """

    users: list[str]
    items: list[str]
    # int64 [events]
    times_ms: NDArray[np.int64]
    types: list[str | None]
    # float32 [events], nan where the event has none
    weights: NDArray[np.float32]
    # uint64 [events], `event_hash` of the event id, 0 where the event has none
    hashes: NDArray[np.uint64]
    # int32 [events], the source partition of each event
    partitions: NDArray[np.int32]
    # next offset per source key
    offsets: dict[str, int] = field(default_factory=dict)
    catalogue: list[tuple[int, Item]] = field(default_factory=list)
    forgets: list[str] = field(default_factory=list)
    # small facts about sources (topic name and id, file identity), by source key
    source_info: dict[str, bytes] = field(default_factory=dict)

    @classmethod
    def of(cls, events: Sequence[Event], partition: int = 0, offsets: dict[str, int] | None = None) -> "Batch":
        """Build a batch from events of one partition."""
        return cls(
            users=[event.user for event in events],
            items=[event.item for event in events],
            times_ms=np.array([event.time_ms for event in events], np.int64),
            types=[event.type for event in events],
            weights=np.array([np.nan if event.weight is None else event.weight for event in events], np.float32),
            hashes=np.array([0 if event.id is None else event_hash(event.id) for event in events], np.uint64),
            partitions=np.full(len(events), partition, np.int32),
            offsets=dict(offsets or {}),
        )

    def __len__(self) -> int:
        return len(self.users)

    def estimated_bytes(self) -> int:
        """Return about how many bytes the commit writes; callers split batches beyond ``config.store.batch_bytes``."""
        return len(self.users) * _EVENT_BYTES + 1_000 * len(self.catalogue)

    def check(self) -> None:
        """Raise ``InputError`` unless all columns have one length."""
        columns = (self.items, self.times_ms, self.types, self.weights, self.hashes, self.partitions)
        if any(len(column) != len(self.users) for column in columns):
            lengths = [len(self.users), *(len(column) for column in columns)]
            raise InputError(f"the columns of a batch must have one length, got {lengths}")


class Applied(NamedTuple):
    """The outcome of one commit. Rows are -1 for events that were refused as ``FUTURE``.

    ``touched`` users are the distinct users of the events that were not refused as future, in row order;
    ``touch`` gives each event's index among them (-1 for future events).
    """

    # uint8 [events]: APPLIED, LATE, DUPLICATE, TOO_LATE, FUTURE
    status: NDArray[np.uint8]
    # int32 [events]
    user_rows: NDArray[np.int32]
    item_rows: NDArray[np.int32]
    # int64 [events], as given
    times_ms: NDArray[np.int64]
    # int64 [events]: the user's counter right after the event
    n: NDArray[np.int64]
    # int64 [events]: sequence number in the log, -1 if the event changed nothing
    seq: NDArray[np.int64]
    # int32 [events]
    touch: NDArray[np.int32]
    # int32 [touched]
    touched: NDArray[np.int32]
    # int64 [touched]
    n_before: NDArray[np.int64]
    n_after: NDArray[np.int64]
    # bool [touched]: a late event changed the order of the user's history
    late: NDArray[np.bool_]
    # rows that this commit gave out, and users that it erased
    new_users: range
    new_items: range
    # rows of items of which this commit holds a catalogue record
    catalogue: tuple[int, ...]
    forgotten: tuple[int, ...]
    # events of users that belong to another partition, applied nonetheless
    moved: int
    # sequence number that the next event will get
    next_seq: int
    # the commit was written through to the device
    synced: bool

    def count(self, status: int) -> int:
        """Return how many events have this status."""
        return int(np.count_nonzero(self.status == status))
