"""External ids and dense rows: users, items with their catalogue records, event types. Loaded into memory at open."""

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from ..events import Item
from .records import StoredItem

__all__ = ["IdMap", "ItemTable"]


class IdMap:
    """Ids and their rows, in order of arrival. A retired row keeps its place and is never given out again."""

    def __init__(self) -> None:
        self._rows: dict[str, int] = {}
        self._ids: list[str | None] = []

    def __len__(self) -> int:
        """Return how many rows were ever given out."""
        return len(self._ids)

    def __contains__(self, name: str) -> bool:
        return name in self._rows

    @property
    def active(self) -> int:
        """How many ids there are now, retired ones not counted."""
        return len(self._rows)

    def row(self, name: str) -> int | None:
        """Return the row of an id, None if it has none."""
        return self._rows.get(name)

    def id(self, row: int) -> str | None:
        """Return the id of a row, None if the row was retired or never given out."""
        return self._ids[row] if 0 <= row < len(self._ids) else None

    def ids(self, rows: Iterable[int]) -> list[str | None]:
        """Return the ids of rows that were given out."""
        return [self._ids[row] for row in rows]

    def items(self) -> Iterator[tuple[str, int]]:
        """Iterate over a copy of all (id, row) in order of their rows."""
        return iter([(name, row) for row, name in enumerate(self._ids) if name is not None])

    def resolve(self, names: list[str], new: dict[str, int]) -> list[int]:
        """Return the rows of ``names``; unknown ones get the next rows, collected in ``new`` and not yet known."""
        find = self._rows.get
        rows = [find(name, -1) for name in names]
        if -1 in rows:
            first = len(self._ids)
            for position, row in enumerate(rows):
                if row < 0:
                    rows[position] = new.setdefault(names[position], first + len(new))
        return rows

    def add(self, new: dict[str, int]) -> None:
        """Make ids from `resolve` known, after their commit."""
        for name, row in new.items():
            self.put(row, name)

    def put(self, row: int, name: str | None) -> None:
        """Set one row, growing over retired ones; used when loading."""
        self.grow(row + 1)
        self._ids[row] = name
        if name is not None:
            self._rows[name] = row

    def grow(self, rows: int) -> None:
        """Give out rows up to ``rows`` without ids: those that were retired."""
        self._ids.extend([None] * (rows - len(self._ids)))

    def retire(self, row: int) -> None:
        """Forget the id of a row."""
        name = self._ids[row]
        self._ids[row] = None
        if name is not None:
            del self._rows[name]


class ItemTable(IdMap):
    """Item ids and rows, with catalogue records, availability and the time of the first event."""

    def __init__(self) -> None:
        super().__init__()
        self._records: dict[int, tuple[Item | None, Item | None]] = {}
        self._first_ms = np.full(1024, -1, np.int64)
        self._available = np.ones(1024, np.bool_)
        self._record_seqs = np.zeros(1024, np.int64)
        # when a row came in or got another record, in changes
        self._changed = np.zeros(1024, np.int64)
        self.changes = 0

    def changed_since(self, change: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the rows that came in or got another record after change number ``change``, and their numbers.

        In order of the numbers; a row that changed several times is there once, with the last one.
        """
        changed = self._changed[: len(self)]
        rows = np.flatnonzero(changed > change)
        numbers = changed[rows]
        order = np.argsort(numbers, kind="stable")
        return rows[order], numbers[order]

    @property
    def first_ms(self) -> NDArray[np.int64]:
        """int64 [rows]: time of the first applied event, -1 without events. A view: copy it before keeping it."""
        return self._first_ms[: len(self)]

    @property
    def available(self) -> NDArray[np.bool_]:
        """bool [rows]: may be recommended, as the catalogue says. A view: copy it before keeping it."""
        return self._available[: len(self)]

    def record(self, row: int) -> Item | None:
        """Return the newest catalogue record of an item, None if there is none."""
        return self._records.get(row, (None, None))[0]

    def first_record(self, row: int) -> Item | None:
        """Return the catalogue record that the item had at its first event; None without record or event then."""
        return self._records.get(row, (None, None))[1]

    def stored(self, row: int) -> StoredItem | None:
        """Return everything that is kept of a row."""
        name = self.id(row)
        if name is None:
            return None
        records = self._records.get(row, (None, None))
        return StoredItem(name, int(self._first_ms[row]), *records, int(self._record_seqs[row]))

    def described_since(self, seq: int) -> list[tuple[int, int]]:
        """Return the rows whose newest catalogue record came after event ``seq`` - 1, in that order.

        Each is (number of the first event after the record, row).
        """
        rows = np.flatnonzero(self._record_seqs[: len(self)] >= seq)
        order = np.lexsort((rows, self._record_seqs[rows]))
        found = [(int(self._record_seqs[row]), int(row)) for row in rows[order]]
        return [(at, row) for at, row in found if self.record(row) is not None]

    def first_times(self, rows: NDArray[np.int32]) -> NDArray[np.int64]:
        """Return the first event times of rows, -1 also for rows not yet known."""
        known = rows < len(self)
        return np.where(known, self._first_ms[np.where(known, rows, 0)], -1)

    def store(self, row: int, item: StoredItem) -> None:
        """Set one row after its commit, or when loading."""
        if row >= len(self._first_ms):
            more = max(len(self._first_ms), row + 1 - len(self._first_ms))
            self._first_ms = np.concatenate([self._first_ms, np.full(more, -1, np.int64)])
            self._available = np.concatenate([self._available, np.ones(more, np.bool_)])
            self._changed = np.concatenate([self._changed, np.zeros(more, np.int64)])
            self._record_seqs = np.concatenate([self._record_seqs, np.zeros(more, np.int64)])
        came_in = row >= len(self)
        renewed = item.record is not None and item.record is not self.record(row)
        self.put(row, item.item)
        self._first_ms[row] = item.first_ms
        self._record_seqs[row] = item.record_seq
        if item.record is not None:
            self._available[row] = item.record.available
            self._records[row] = (item.record, item.first_record)
        if came_in or renewed:
            # after the record, so that a query which sees the change sees the record too
            self._changed[row] = self.changes + 1
            self.changes += 1
