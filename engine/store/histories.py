"""Histories and seen sets of all users: the hot ones in memory, all of them on disk."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .codec import RECORD_VERSION, SEEN, base_count, varints, zigzags
from .history_slab import Change, HistorySlab
from .records import BASE, SEEN_ITEMS, TAIL, row_key
from .rocks import Rocks

__all__ = ["Histories", "History", "Touched"]

_SCRATCH_SLOTS = 256
_NOTHING = np.empty(0, np.int32)


class History(NamedTuple):
    """The last events of one user in (time, arrival) order; copies, free to keep."""

    # int32 [events]
    items: NDArray[np.int32]
    # int64 [events]
    times_ms: NDArray[np.int64]
    # uint16 [events]: 0 is no type, else 1 + the row in the store's types
    types: NDArray[np.uint16]
    # float32 [events]: nan is no weight
    weights: NDArray[np.float32]
    # uint64 [events]: 0 is no event id
    hashes: NDArray[np.uint64]
    # all events ever applied
    n: int
    partition: int


class Touched(NamedTuple):
    """The distinct users of a batch, in their slots."""

    rows: NDArray[np.int32]
    slots: NDArray[np.int32]


class Histories:
    """Reads histories through the slab; not thread-safe."""

    def __init__(self, db: Rocks, slots: int, keep: int, tail_events: int, horizon: int) -> None:
        self.db = db
        self.slab = HistorySlab(slots, keep, tail_events)
        self._scratch = HistorySlab(min(slots, _SCRATCH_SLOTS), keep, tail_events)
        self._keep = keep
        self._horizon = horizon

    def touch(self, rows: NDArray[np.int32], known: int) -> Touched:
        """Bring the distinct users into the slab; rows from ``known`` on are new. On an error `drop` them all."""
        if len(rows) > self.slab.slots:
            raise InputError(
                f"a batch of {len(rows)} users does not fit into store.hot_histories = {self.slab.slots}; split it"
            )
        listed: list[int] = rows.tolist()
        slots, missing = self.slab.place(listed)
        if missing:
            new = [position for position in missing if listed[position] >= known]
            old = [position for position in missing if listed[position] < known]
            self.slab.clear(slots[new])
            if old:
                self._load(self.slab, slots[old], [listed[position] for position in old])
        return Touched(rows, slots)

    def records(self, touched: Touched, change: Change) -> list[tuple[bytes, bytes]]:
        """Return the changed records of the users that a batch touched."""
        puts = self._seen_records(touched, change)
        changed = np.flatnonzero(self.slab.n[touched.slots] != change.n_before)
        rewrite = change.rewrite[changed]
        data, ends = self.slab.encoded(touched.slots[changed], rewrite)
        keys = touched.rows[changed].astype(">u4").tobytes()
        start = 0
        for i, rewritten in enumerate(rewrite.tolist()):
            key = keys[4 * i : 4 * i + 4]
            puts.append((TAIL + key, data[start : ends[2 * i]]))
            if rewritten:
                puts.append((BASE + key, data[ends[2 * i] : ends[2 * i + 1]]))
            start = ends[2 * i + 1]
        return puts

    def read(self, rows: list[int], *, warm: bool = False) -> list[History]:
        """Return histories of users that have one; ``warm`` puts a single cold user into the slab."""
        result: list[History] = []
        step = self._scratch.slots
        for first in range(0, len(rows), step):
            part = rows[first : first + step]
            slots = [self.slab.find(row) for row in part]
            cold = [row for row, slot in zip(part, slots, strict=True) if slot < 0]
            if cold and warm and len(rows) == 1:
                touched = self.touch(np.array(cold, np.int32), cold[0] + 1)
                slots, cold = touched.slots.tolist(), []
            places = iter(range(len(cold)))
            if cold:
                self._load(self._scratch, np.arange(len(cold), dtype=np.int32), cold)
            for slot in slots:
                result.append(self._copy(self.slab, slot) if slot >= 0 else self._copy(self._scratch, next(places)))
        return result

    def seen(self, row: int) -> NDArray[np.int32]:
        """Return the distinct item rows of a user that has a history, ascending."""
        slab, slot = self.slab, self.slab.find(row)
        if slot < 0:
            slab, slot = self._scratch, 0
            self._load(slab, np.zeros(1, np.int32), [row])
        length = int(slab.lengths[slot])
        split = max(0, length - self._keep)
        gone = slab.items[slot, :split]
        if slab.flags[slot] & SEEN or len(gone):
            gone = self._with_gone(self._seen_record(row) if slab.flags[slot] & SEEN else _NOTHING, gone)
        kept = _distinct(slab.items[slot, split:length])
        return np.union1d(gone, kept) if len(gone) else kept

    def drop(self, rows: list[int]) -> None:
        """Let go of hot users whose slots no longer equal the disk."""
        self.slab.drop(rows)

    def _copy(self, slab: HistorySlab, slot: int) -> History:
        end = int(slab.lengths[slot])
        start = max(0, end - self._keep)
        return History(
            slab.items[slot, start:end].copy(),
            slab.times[slot, start:end].copy(),
            slab.types[slot, start:end].copy(),
            slab.weights[slot, start:end].copy(),
            slab.hashes[slot, start:end].copy(),
            int(slab.n[slot]),
            int(slab.partitions[slot]),
        )

    def _load(self, slab: HistorySlab, slots: NDArray[np.int32], rows: list[int]) -> None:
        """Fill slots from the disk; on an error the users must leave the slab."""
        try:
            tails = self.db.get_many([row_key(TAIL, row) for row in rows])
            based = [i for i, tail in enumerate(tails) if tail is not None and base_count(tail)]
            bases = self.db.get_many([row_key(BASE, rows[i]) for i in based])
            values = [b""] * (2 * len(rows))
            values[::2] = [tail or b"" for tail in tails]
            for i, base in zip(based, bases, strict=True):
                values[2 * i + 1] = base or b""
            bad = slab.load(slots, values)
            if bad >= 0:
                raise self.db.damaged(f"the history of user row {rows[bad]} is missing or malformed")
        except BaseException:
            if slab is self.slab:
                slab.drop(rows)
            raise

    def _seen_record(self, row: int) -> NDArray[np.int32]:
        value = self.db.get(row_key(SEEN_ITEMS, row))
        if value is None or value[0] != RECORD_VERSION:
            raise self.db.damaged(f"the seen record of user row {row} is missing or malformed")
        items: NDArray[np.int32] = varints(np.frombuffer(value, np.uint8, offset=1))
        return items

    def _seen_records(self, touched: Touched, change: Change) -> list[tuple[bytes, bytes]]:
        puts = []
        for user in np.unique(change.gone_users).tolist():
            row, slot = int(touched.rows[user]), touched.slots[user]
            old = self._seen_record(row) if self.slab.flags[slot] & SEEN else _NOTHING
            items = self._with_gone(old, change.gone_items[change.gone_users == user])
            self.slab.flags[slot] |= SEEN
            puts.append((row_key(SEEN_ITEMS, row), bytes((RECORD_VERSION,)) + zigzags(items).tobytes()))
        return puts

    def _with_gone(self, old: NDArray[np.int32], gone: NDArray[np.int32]) -> NDArray[np.int32]:
        """Join item rows that left the history: ascending, or with a horizon the newest ones in order of leaving."""
        if self._horizon == 0:
            return np.union1d(old, gone)
        newest_first = np.concatenate([old, gone])[::-1]
        _, places = np.unique(newest_first, return_index=True)
        return newest_first[np.sort(places)[: self._horizon]][::-1]


def _distinct(rows: NDArray[np.int32]) -> NDArray[np.int32]:
    # np.unique costs twice as much for some tens of rows
    ordered = np.sort(rows)
    first = np.ones(ordered.size, np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=first[1:])
    return ordered[first]
