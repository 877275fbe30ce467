"""Masks over items, one for each filter in use, kept up to date as items change."""

import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np

from ...kernels.arrays import Bools
from ..errors import BusyError
from ..events import Item
from ..store import ItemTable
from .columns import Breathe, Column, attributes_of, value_of
from .evaluate import evaluate
from .expression import Filter, parse_filter
from .texts import prepare

__all__ = ["Masks", "Selection"]

# filters whose masks are kept, and attributes whose columns are
_MASKS = 64
_COLUMNS = 64
# more changed items than this share, or number, are cheaper by columns than one by one
_SHARE, _ONE_BY_ONE = 32, 4_096
_PIECE = 1_024
# the first filters have so many times as long, to read the catalogue
_PREPARE = 10
# attributes that every item has
_ALWAYS = ("available", "categories", "item", "title")
_SHOWN = 20
_LOOK_S = 0.02
# between two pieces of work the interpreter is left to other threads for as long as a piece took, and so long at least
_REST_S = 0.0001


class Selection(NamedTuple):
    """What a filter selects: a mask over the first items, and what a person should know of it."""

    mask: Bools
    notes: list[str]


class _Kept(NamedTuple):
    mask: Bools
    # the last change of an item that the mask has
    change: int
    filter: Filter


class Masks:
    """Masks of filters over the items that ``table`` returns; every method may be called from any thread.

    One filter is evaluated at a time. A mask that is kept costs nothing but the test of the items that changed since.
    ``limit_s`` bounds the wait for a turn, and the evaluation.
    """

    def __init__(self, table: Callable[[], ItemTable], limit_s: float) -> None:
        self._table = table
        self._limit_s = limit_s
        self._turn = threading.Lock()
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._index: _Index | None = None

    def select(self, expression: str, gone: Callable[[], bool] | None = None) -> Selection:
        """Return the items that a filter matches; those that come in meanwhile are not in the mask.

        ``gone`` returns whether the answer is still wanted. Raises ``InputError`` for a bad filter, ``BusyError`` where
        the turn or the evaluation took too long, or nobody waits any more.
        """
        table, kept = self._table(), self._kept.get(expression)
        index = self._index
        if kept is not None and index is not None and index.table is table and kept.change == table.changes:
            return Selection(kept.mask, index.notes(kept.filter))
        read = parse_filter(expression) if kept is None else kept.filter
        with self._taken(gone):
            if self._index is None or self._index.table is not table:
                self._index = _Index(table)
                self._kept.clear()
            # once for all filters: what is done of it stays if it takes even longer
            patient = _breath(_PREPARE * self._limit_s, gone)
            self._index.catch_up(patient)
            for name in read.names:
                self._index.column(name, patient)
            mask = self._renewed(self._index, read, _breath(self._limit_s, gone))
            return Selection(mask, self._index.notes(read))

    def _renewed(self, index: "_Index", read: Filter, breathe: Breathe) -> Bools:
        kept = self._kept.get(read.text)
        rows = index.table.changed_since(kept.change)[0] if kept is not None else np.arange(index.count)
        if kept is None or rows.size > min(index.count // _SHARE, _ONE_BY_ONE):
            mask = evaluate(read.tree, lambda name: index.column(name, breathe), index.count, breathe)
        else:
            mask = np.zeros(index.count, np.bool_)
            mask[: kept.mask.size] = kept.mask
            for place, row in enumerate(rows[rows < index.count].tolist()):
                if place % _PIECE == 0:
                    breathe()
                mask[row] = read.test(attributes_of(index.table.id(row), index.records[row]))
        self._kept[read.text] = _Kept(mask, index.change, read)
        self._kept.move_to_end(read.text)
        if len(self._kept) > _MASKS:
            self._kept.popitem(last=False)
        return mask

    @contextmanager
    def _taken(self, gone: Callable[[], bool] | None) -> Iterator[None]:
        check = _breath(self._limit_s, gone, rest_s=0)
        while not self._turn.acquire(timeout=_LOOK_S):
            check()
        try:
            yield
        finally:
            self._turn.release()


class _Index:
    """What filters need to know of the items of one table: their records, names of attributes, columns in use."""

    def __init__(self, table: ItemTable) -> None:
        prepare()
        self.table = table
        self.change = 0
        self.records: list[Item | None] = []
        self._names: Counter[str] = Counter()
        self._columns: OrderedDict[str, Column] = OrderedDict()

    @property
    def count(self) -> int:
        return len(self.records)

    def catch_up(self, breathe: Breathe) -> None:
        """Take in the items that changed; what was taken in stays if ``breathe`` raises."""
        if self.change == self.table.changes:
            return
        rows, changes = self.table.changed_since(self.change)
        for place, (row, change) in enumerate(zip(rows.tolist(), changes.tolist(), strict=True)):
            if place % _PIECE == 0:
                breathe()
            self._take(row)
            self.change = change

    def column(self, name: str, breathe: Breathe) -> Column | None:
        """Return the column of an attribute, None if no item has it; what was made of it stays."""
        if name not in _ALWAYS and not self._names[name]:
            return None
        column = self._columns.get(name)
        if column is None or len(column.values) > 2 * self.count + 1024:
            column = self._columns[name] = Column()
            if len(self._columns) > _COLUMNS:
                self._columns.popitem(last=False)
        self._columns.move_to_end(name)
        for row in range(column.rows, self.count):
            if row % _PIECE == 0:
                breathe()
            column.set(row, value_of(self.table.id(row), self.records[row], name))
        return column

    def notes(self, read: Filter) -> list[str]:
        """Return what is odd about a filter: attributes that no item has."""
        unknown = sorted(name for name in read.names if name not in _ALWAYS and not self._names.get(name))
        if not unknown:
            return []
        known = sorted({*_ALWAYS, *(name for name, count in list(self._names.items()) if count)})
        more = f" and {len(known) - _SHOWN} more" if len(known) > _SHOWN else ""
        return [f"no item has an attribute {name!r}; there are: {', '.join(known[:_SHOWN])}{more}" for name in unknown]

    def _take(self, row: int) -> None:
        item, record = self.table.id(row), self.table.record(row)
        while row >= len(self.records):
            self.records.append(None)
        before = self.records[row]
        for name in () if before is None else before.attributes:
            self._names[name] -= 1
            if not self._names[name]:
                del self._names[name]
        for name in () if record is None else record.attributes:
            self._names[name] += 1
        self.records[row] = record
        for name, column in self._columns.items():
            # the others are not made yet up to here
            if row < column.rows:
                column.set(row, value_of(item, record, name))


def _breath(limit_s: float, gone: Callable[[], bool] | None, rest_s: float = _REST_S) -> Breathe:
    """Return what stops work that takes longer than ``limit_s``, or that nobody waits for, and lets others run."""
    woke = time.monotonic()
    deadline = woke + limit_s

    def breathe() -> None:
        nonlocal woke
        if gone is not None and gone():
            raise BusyError("the filter was given up: its client has gone")
        now = time.monotonic()
        if now > deadline:
            raise BusyError(f"the filter took more than {limit_s:g} s; ask again later, or for less")
        if rest_s:
            time.sleep(max(rest_s, min(now - woke, limit_s / 10)))
            woke = time.monotonic()

    return breathe
