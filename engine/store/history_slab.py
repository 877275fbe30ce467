"""Histories of the hot users in memory, changed in place: the one module of the store that does so.

A slot mirrors what the disk holds of its user: base events, then tail events, in (time, arrival) order. The history is
the last ``keep`` of them. Events before those have left the history but are still in the base block; they move to the
user's seen record when the base is next rewritten.
"""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ...kernels.jit import jit
from .batch import APPLIED, DUPLICATE, LATE, TOO_LATE
from .codec import INNER, decode, encode

__all__ = ["Change", "HistorySlab"]


class Change(NamedTuple):
    """What one batch of events did to the slots it touched; ``touch`` numbers the touched users from 0."""

    # per event
    status: NDArray[np.uint8]
    n: NDArray[np.int64]
    # per touched user
    n_before: NDArray[np.int64]
    rewrite: NDArray[np.bool_]
    late: NDArray[np.bool_]
    # items that left the mirrored events, as (touched user, item row), oldest first per user
    gone_users: NDArray[np.int32]
    gone_items: NDArray[np.int32]
    moved: int


class HistorySlab:
    """A fixed number of slots; not thread-safe. Slots never used cost no memory (their pages are not touched)."""

    def __init__(self, slots: int, keep: int, tail_events: int) -> None:
        self.keep = keep
        # a tail block that grew beyond this is merged into the base block
        self.tail_events = tail_events
        self.width = keep + tail_events + 1
        self.items = np.zeros((slots, self.width), np.int32)
        self.times = np.zeros((slots, self.width), np.int64)
        self.types = np.zeros((slots, self.width), np.uint16)
        self.weights = np.zeros((slots, self.width), np.float32)
        self.hashes = np.zeros((slots, self.width), np.uint64)
        self.lengths = np.zeros(slots, np.int32)
        self.tails = np.zeros(slots, np.int32)
        self.n = np.zeros(slots, np.int64)
        self.partitions = np.zeros(slots, np.int32)
        self.flags = np.zeros(slots, np.uint8)
        self._slot_of: dict[int, int] = {}
        self._row_of = np.full(slots, -1, np.int64)
        self._used = np.zeros(slots, np.int64)
        self._tick = 0
        self._free = list(range(slots - 1, -1, -1))

    def __len__(self) -> int:
        return len(self._slot_of)

    @property
    def slots(self) -> int:
        """How many users fit."""
        return len(self.lengths)

    @property
    def bytes_per_slot(self) -> int:
        """Memory of one used slot."""
        return self.width * 26 + 8 * 4 + 5

    def find(self, row: int) -> int:
        """Return the slot of a user, -1 if it is not here."""
        slot = self._slot_of.get(row, -1)
        if slot >= 0:
            self._used[slot] = self._tick
        return slot

    def place(self, rows: list[int]) -> tuple[NDArray[np.int32], list[int]]:
        """Give each of the distinct users a slot, evicting the least recently used others.

        Returns the slots and the positions in ``rows`` whose slots are new and hold garbage: `clear` or `load` them.
        """
        self._tick += 1
        find = self._slot_of.get
        slots = [find(row, -1) for row in rows]
        missing = [position for position, slot in enumerate(slots) if slot < 0]
        if missing:
            hits = [slot for slot in slots if slot >= 0]
            self._used[hits] = self._tick
            self._make_room(len(missing))
            for position in missing:
                slot = self._free.pop()
                slots[position] = slot
                self._slot_of[rows[position]] = slot
                self._row_of[slot] = rows[position]
        placed = np.array(slots, np.int32)
        self._used[placed] = self._tick
        return placed, missing

    def drop(self, rows: list[int]) -> None:
        """Let go of users; unknown ones are ignored."""
        for row in rows:
            slot = self._slot_of.pop(row, -1)
            if slot >= 0:
                self._row_of[slot] = -1
                self._used[slot] = 0
                self._free.append(slot)

    def drop_all(self) -> None:
        """Let go of every user."""
        self.drop(list(self._slot_of))

    def clear(self, slots: NDArray[np.int32]) -> None:
        """Make the slots those of users without events."""
        self.lengths[slots] = 0
        self.tails[slots] = 0
        self.n[slots] = 0
        self.partitions[slots] = -1
        self.flags[slots] = 0

    def load(self, slots: NDArray[np.int32], values: list[bytes]) -> int:
        """Fill slots from disk values (tail, base, tail, base, ...); returns -1 or the index of a malformed one."""
        ends = np.cumsum(np.fromiter(map(len, values), np.int64, len(values)))
        buffer = np.frombuffer(b"".join(values), np.uint8)
        columns = (self.items, self.times, self.types, self.weights, self.hashes)
        state = (self.lengths, self.tails, self.n, self.partitions, self.flags)
        return int(decode(buffer, ends, slots, *columns, *state))

    def change(
        self,
        slots: NDArray[np.int32],
        touch: NDArray[np.int32],
        items: NDArray[np.int32],
        times: NDArray[np.int64],
        types: NDArray[np.uint16],
        weights: NDArray[np.float32],
        hashes: NDArray[np.uint64],
        partitions: NDArray[np.int32],
    ) -> Change:
        """Apply events in order to the touched users' ``slots``; event e belongs to ``slots[touch[e]]``."""
        columns = (self.items, self.times, self.types, self.weights, self.hashes)
        state = (self.lengths, self.tails, self.n, self.partitions)
        events = (touch, items, times, types, weights, hashes, partitions)
        return Change(*_change(slots, *events, *columns, *state, self.keep, self.tail_events))

    def encoded(self, slots: NDArray[np.int32], rewrite: NDArray[np.bool_]) -> tuple[bytes, list[int]]:
        """Return the disk values of slots as one string and its ends, tail and base in turn (`codec.encode`)."""
        columns = (self.items, self.times, self.types, self.weights, self.hashes)
        state = (self.lengths, self.tails, self.n, self.partitions, self.flags)
        buffer, ends = encode(slots, rewrite, *columns, *state)
        return buffer.tobytes(), ends.tolist()

    def _make_room(self, wanted: int) -> None:
        short = wanted - len(self._free)
        if short <= 0:
            return
        # more than needed at once, so that the search for old slots is paid rarely
        number = min(self.slots - 1, max(wanted, self.slots // 64 + len(self._free)))
        oldest = np.argpartition(self._used, number)[: number + 1]
        oldest = oldest[(self._used[oldest] < self._tick) & (self._row_of[oldest] >= 0)]
        self.drop(self._row_of[oldest].tolist())


@njit(**INNER)
def _evict_old_events(  # type: ignore[no-untyped-def]
    slot, keep, user, items, times, types, weights, hashes, lengths, tails, gone_users, gone_items, gone
):
    """Drop the mirrored events that are no longer in the history, noting their items; the rest becomes the base."""
    extra = max(0, lengths[slot] - keep)
    for i in range(extra):
        gone_users[gone] = user
        gone_items[gone] = items[slot, i]
        gone += 1
    if extra:
        for i in range(keep):
            items[slot, i] = items[slot, i + extra]
            times[slot, i] = times[slot, i + extra]
            types[slot, i] = types[slot, i + extra]
            weights[slot, i] = weights[slot, i + extra]
            hashes[slot, i] = hashes[slot, i + extra]
        lengths[slot] = keep
    tails[slot] = 0
    return gone


@njit(**INNER)
def _place_of(start, end, item, time, kind, event_hash, items, times, types, hashes):  # type: ignore[no-untyped-def]
    """Return where the event belongs in ``[start, end]`` of one user's columns, or -1 if it is there already."""
    if event_hash != 0:
        for i in range(start, end):
            if hashes[i] == event_hash:
                return -1
    at = end
    while at > start and times[at - 1] > time:
        at -= 1
    same = at - 1
    while same >= start and times[same] == time:
        # two events with ids are compared by their ids alone
        if (event_hash == 0 or hashes[same] == 0) and items[same] == item and types[same] == kind:
            return -1
        same -= 1
    return at


@jit
def _change(  # type: ignore[no-untyped-def]
    slots,
    touch,
    event_items,
    event_times,
    event_types,
    event_weights,
    event_hashes,
    event_partitions,
    items,
    times,
    types,
    weights,
    hashes,
    lengths,
    tails,
    n,
    partitions,
    keep,
    tail_events,
):
    events, users, width = len(touch), len(slots), items.shape[1]
    status = np.empty(events, np.uint8)
    counters = np.empty(events, np.int64)
    rewrite = np.zeros(users, np.bool_)
    late = np.zeros(users, np.bool_)
    n_before = np.empty(users, np.int64)
    gone_users = np.empty(events + users * (width - keep), np.int32)
    gone_items = np.empty_like(gone_users)
    gone, moved = 0, 0
    for user in range(users):
        n_before[user] = n[slots[user]]
    for e in range(events):
        user = touch[e]
        slot = slots[user]
        if lengths[slot] == 0:
            partitions[slot] = event_partitions[e]
        elif partitions[slot] != event_partitions[e]:
            moved += 1
        if lengths[slot] == width:
            gone = _evict_old_events(
                slot, keep, user, items, times, types, weights, hashes, lengths, tails, gone_users, gone_items, gone
            )
            rewrite[user] = True
        length = lengths[slot]
        start = max(0, length - keep)
        time = event_times[e]
        at = _place_of(
            start, length, event_items[e], time, event_types[e], event_hashes[e],
            items[slot], times[slot], types[slot], hashes[slot],
        )  # fmt: skip
        if at < 0:
            status[e] = DUPLICATE
        elif length - start == keep and time < times[slot, start]:
            status[e] = TOO_LATE
        else:
            status[e] = APPLIED if at == length else LATE
            late[user] |= at < length
            for i in range(length, at, -1):
                items[slot, i] = items[slot, i - 1]
                times[slot, i] = times[slot, i - 1]
                types[slot, i] = types[slot, i - 1]
                weights[slot, i] = weights[slot, i - 1]
                hashes[slot, i] = hashes[slot, i - 1]
            items[slot, at] = event_items[e]
            times[slot, at] = time
            types[slot, at] = event_types[e]
            weights[slot, at] = event_weights[e]
            hashes[slot, at] = event_hashes[e]
            if at >= length - tails[slot]:
                tails[slot] += 1
            else:
                rewrite[user] = True
            lengths[slot] = length + 1
            n[slot] += 1
        counters[e] = n[slot]
    for user in range(users):
        slot = slots[user]
        if rewrite[user] or tails[slot] > tail_events:
            rewrite[user] = True
            gone = _evict_old_events(
                slot, keep, user, items, times, types, weights, hashes, lengths, tails, gone_users, gone_items, gone
            )
    return status, counters, n_before, rewrite, late, gone_users[:gone], gone_items[:gone], moved
