"""From a batch to the records of its commit: rows of ids, order and duplicates within users, keys and values."""

from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..errors import BadEventError
from ..events import Item
from .batch import FUTURE, LATE, Applied, Batch
from .histories import Histories, Touched
from .history_slab import Change
from .log import LogChunk, LogPlan, LogWriter, decode_chunk, encode_chunk, erase
from .records import (
    BASE,
    LOG,
    OFFSET,
    SEEN_ITEMS,
    SOURCE,
    TAIL,
    USER,
    Counters,
    StoredItem,
    encode_blob,
    encode_number,
    log_key,
    row_key,
    seq_of,
)
from .rocks import Rocks
from .tables import Tables

__all__ = ["Commit", "Planner"]

# event types have 16 bits in a history; some are left for what may come
_MAX_TYPES = 65_000

_Column = TypeVar("_Column", bound=np.generic)


@dataclass(slots=True)
class Commit:
    """A planned commit: nothing of it is visible before it was written and published."""

    applied: Applied
    counters: Counters
    log: LogPlan
    puts: list[tuple[bytes, bytes]]
    offset_puts: list[tuple[bytes, bytes]]
    deletes: list[bytes]
    new_users: dict[str, int]
    new_types: dict[str, int]
    changed_items: dict[int, StoredItem]
    forgotten: list[int]


class _Rows(NamedTuple):
    """The rows of a batch's ids; those in the dictionaries are given out by this commit."""

    users: NDArray[np.int32]
    items: NDArray[np.int32]
    types: NDArray[np.uint16]
    catalogue: list[int]
    new_users: dict[str, int]
    new_items: dict[str, int]
    new_types: dict[str, int]


class Planner:
    """Plans commits against the present tables and histories."""

    def __init__(self, db: Rocks, tables: Tables, histories: Histories, log: LogWriter) -> None:
        self._db = db
        self._tables = tables
        self._histories = histories
        self._log = log

    def plan(self, batch: Batch, latest_ms: int) -> Commit:
        """Plan the commit of a batch; events after ``latest_ms`` are refused.

        Changes the slots of the touched users and nothing else. If this raises, those users were dropped from the
        slab; if the commit cannot be written, the caller drops ``applied.touched``.
        """
        future = batch.times_ms > latest_ms
        kept = np.flatnonzero(~future) if future.any() else None
        part = batch if kept is None else _select(batch, kept)
        forgotten = sorted({row for row in map(self._tables.users.row, batch.forgets) if row is not None})
        rows = self._resolve(part, forgotten)
        distinct, inverse = np.unique(rows.users, return_inverse=True)
        touch = inverse.astype(np.int32)
        touched = self._histories.touch(distinct, len(self._tables.users))
        try:
            columns = (rows.items, part.times_ms, rows.types, part.weights, part.hashes)
            change = self._histories.slab.change(touched.slots, touch, *columns, part.partitions)
            applied = self._applied(touched, touch, rows, change, part, forgotten)
            commit = self._commit(part, rows, touched, change, applied)
            if kept is not None:
                commit.applied = _spread(applied, kept, batch)
        except BaseException:
            self._histories.drop(distinct.tolist())
            raise
        commit.puts += [(SOURCE + key.encode(), encode_blob(info)) for key, info in batch.source_info.items()]
        commit.offset_puts = [(OFFSET + key.encode(), encode_number(value)) for key, value in batch.offsets.items()]
        return commit

    def _resolve(self, batch: Batch, forgotten: list[int]) -> _Rows:
        tables = self._tables
        new_users: dict[str, int] = {}
        new_items: dict[str, int] = {}
        new_types: dict[str, int] = {}
        users = tables.users.resolve(batch.users, new_users)
        if forgotten:
            # the old rows are retired by this very commit
            first, gone = len(tables.users), set(forgotten)
            for position, row in enumerate(users):
                if row in gone:
                    users[position] = new_users.setdefault(batch.users[position], first + len(new_users))
        items = tables.items.resolve(batch.items, new_items)
        catalogue = tables.items.resolve([item.item for _, item in batch.catalogue], new_items)
        if batch.types.count(None) == len(batch.types):
            types = np.zeros(len(batch), np.uint16)
        else:
            named = tables.types.resolve([name for name in batch.types if name is not None], new_types)
            if len(tables.types) + len(new_types) > _MAX_TYPES:
                raise BadEventError(f"more than {_MAX_TYPES} different event types; is a free text sent as the type?")
            codes = iter(named)
            types = np.array([0 if name is None else next(codes) + 1 for name in batch.types], np.uint16)
        rows = (np.array(users, np.int32), np.array(items, np.int32), types, catalogue)
        return _Rows(*rows, new_users, new_items, new_types)

    def _applied(
        self,
        touched: Touched,
        touch: NDArray[np.int32],
        rows: _Rows,
        change: Change,
        batch: Batch,
        forgotten: list[int],
    ) -> Applied:
        tables = self._tables
        first_seq = tables.counters.next_seq
        done = change.status <= LATE
        seq = np.where(done, np.cumsum(done) + (first_seq - 1), -1)
        return Applied(
            status=change.status,
            user_rows=rows.users,
            item_rows=rows.items,
            times_ms=batch.times_ms,
            n=change.n,
            seq=seq,
            touch=touch,
            touched=touched.rows,
            n_before=change.n_before,
            n_after=self._histories.slab.n[touched.slots],
            late=change.late,
            new_users=range(len(tables.users), len(tables.users) + len(rows.new_users)),
            new_items=range(len(tables.items), len(tables.items) + len(rows.new_items)),
            catalogue=tuple(rows.catalogue),
            forgotten=tuple(forgotten),
            moved=int(change.moved),
            next_seq=first_seq + int(np.count_nonzero(done)),
            synced=False,
        )

    def _commit(self, batch: Batch, rows: _Rows, touched: Touched, change: Change, applied: Applied) -> Commit:
        tables = self._tables
        puts = self._histories.records(touched, change)
        done = np.flatnonzero(change.status <= LATE)
        deletes = self._forget(applied.forgotten, puts)
        log = self._log.plan(_chunk(batch, rows, applied.seq, done), applied.next_seq)
        if log.start is not None:
            puts.append((log_key(log.start), log.value))
        deletes += [log_key(start) for start in (*log.merged, *log.stale)]
        items = self._items(batch, rows, done, applied.next_seq)
        known = any(row < len(tables.items) for row in items)
        counters = msgspec.structs.replace(
            tables.counters,
            next_seq=applied.next_seq,
            users=applied.new_users.stop,
            items=applied.new_items.stop,
            types=len(tables.types) + len(rows.new_types),
            item_changes=tables.counters.item_changes + known,
            forgets=tables.counters.forgets + len(applied.forgotten),
        )
        forgotten = list(applied.forgotten)
        commit = Commit(applied, counters, log, puts, [], deletes, rows.new_users, rows.new_types, items, forgotten)
        puts += tables.records(counters, commit)
        return commit

    def _forget(self, rows: tuple[int, ...], puts: list[tuple[bytes, bytes]]) -> list[bytes]:
        """Add the log chunks without these users to ``puts``; return the keys to delete."""
        if not rows:
            return []
        self._log.leave_small()
        for key, value in self._db.scan(LOG):
            chunk = decode_chunk(seq_of(key), value)
            erased = erase(chunk, rows)
            if erased is not None:
                puts.append((key, encode_chunk(erased)))
        return [row_key(prefix, row) for row in rows for prefix in (BASE, TAIL, SEEN_ITEMS, USER)]

    def _items(self, batch: Batch, rows: _Rows, done: NDArray[np.intp], next_seq: int) -> dict[int, StoredItem]:
        """Return the item records that change: new items, first events, catalogue records."""
        table = self._tables.items
        done_rows = rows.items[done]
        fresh = np.flatnonzero(table.first_times(done_rows) < 0)
        # of several events of a new item the first in the batch counts
        first_event = {int(done_rows[at]): int(done[at]) for at in fresh[::-1].tolist()}
        records: dict[int, list[tuple[int, Item]]] = {}
        for row, entry in zip(rows.catalogue, batch.catalogue, strict=True):
            records.setdefault(row, []).append(entry)
        names = {row: name for name, row in rows.new_items.items()}
        changed: dict[int, StoredItem] = {}
        for row in sorted({*first_event, *records, *names}):
            old = table.stored(row) or StoredItem(names[row])
            new = _with_records(old, records.get(row, []), first_event.get(row), batch, next_seq)
            if new != old or row in names:
                changed[row] = new
        return changed


def _with_records(
    old: StoredItem, records: list[tuple[int, Item]], event: int | None, batch: Batch, next_seq: int
) -> StoredItem:
    record, first_ms, first_record, record_seq = old.record, old.first_ms, old.first_record, old.record_seq
    # stable: of records at one position the last one counts
    records = sorted(records, key=lambda entry: entry[0])
    for position, newer in records:
        if event is not None and position > event:
            break
        record = newer
    if event is not None:
        first_ms, first_record = int(batch.times_ms[event]), record
    if records:
        record = records[-1][1]
        record_seq = record_seq if record == old.record else next_seq
    return StoredItem(old.item, first_ms, record, first_record, record_seq)


def _chunk(batch: Batch, rows: _Rows, seq: NDArray[np.int64], done: NDArray[np.intp]) -> LogChunk | None:
    if len(done) == 0:
        return None
    columns = (seq, rows.users, rows.items, batch.times_ms, rows.types, batch.weights, batch.hashes)
    if len(done) == len(seq):
        return LogChunk(*columns)
    return LogChunk._make(column[done] for column in columns)


def _select(batch: Batch, kept: NDArray[np.intp]) -> Batch:
    """Return the batch with these events only; catalogue positions are moved along."""
    chosen: list[int] = kept.tolist()
    return replace(
        batch,
        users=[batch.users[i] for i in chosen],
        items=[batch.items[i] for i in chosen],
        types=[batch.types[i] for i in chosen],
        times_ms=batch.times_ms[kept],
        weights=batch.weights[kept],
        hashes=batch.hashes[kept],
        partitions=batch.partitions[kept],
        catalogue=[(int(np.searchsorted(kept, position)), item) for position, item in batch.catalogue],
    )


def _spread(applied: Applied, kept: NDArray[np.intp], batch: Batch) -> Applied:
    """Return the outcome with the events that were refused as future put back in their places."""
    total = len(batch)

    def spread(column: NDArray[_Column], fill: int) -> NDArray[_Column]:
        full = np.full(total, fill, column.dtype)
        full[kept] = column
        return full

    return applied._replace(
        status=spread(applied.status, FUTURE),
        user_rows=spread(applied.user_rows, -1),
        item_rows=spread(applied.item_rows, -1),
        times_ms=batch.times_ms,
        n=spread(applied.n, 0),
        seq=spread(applied.seq, -1),
        touch=spread(applied.touch, -1),
    )
