"""Columns of item attributes: every distinct value once, and for every item the number of its value."""

import ast
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ...kernels.arrays import Bools, Float64s, Int32s
from ..events import Item
from .expression import COMPARISONS
from .texts import Texts

__all__ = ["Breathe", "Column", "attributes_of", "compare", "value_of"]

# called between pieces of work; raises to give it up
Breathe = Callable[[], None]

# values that are looked at one by one between two breaths
_PIECE = 512
# further values than a table has are looked at one by one up to this share of it, and this number
_TAIL_SHARE, _TAIL = 16, 256
# kinds of values: a number that no float64 equals is a big one
_NONE, _NUMBER, _BIG, _TEXT, _LIST, _DICT = range(6)
_KINDS = {type(None): _NONE, bool: _NUMBER, float: _NUMBER, str: _TEXT, list: _LIST, dict: _DICT}
_NO_KEY = object()


def attributes_of(item: str | None, record: Item | None) -> Mapping[str, Any]:
    """Return what a filter sees of an item: tuples are lists, as what is written in a filter."""
    if record is None:
        return {"item": item, "categories": [], "available": True}
    return {
        **{name: _listed(value) for name, value in record.attributes.items()},
        "item": record.item,
        "title": record.title,
        "categories": list(record.categories),
        "available": record.available,
    }


def value_of(item: str | None, record: Item | None, name: str) -> Any:
    """Return one attribute as `attributes_of` has it, None where it has none."""
    if name == "item":
        return item
    if record is None:
        return attributes_of(item, None).get(name)
    if name in ("title", "categories", "available"):
        return _listed(getattr(record, name))
    return _listed(record.attributes.get(name))


def _listed(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_listed(part) for part in value]
    if isinstance(value, dict):
        return {name: _listed(part) for name, part in value.items()}
    return value


def compare(op: type[ast.cmpop], left: Any, right: Any) -> bool:
    """Return the outcome of a comparison; false if the types do not allow it."""
    try:
        return bool(COMPARISONS[op](left, right))
    except TypeError:
        return False


def _each(test: Callable[[Any], bool], values: Sequence[Any], breathe: Breathe) -> Bools:
    """Return the outcome of a test of every value."""
    found = np.zeros(len(values), np.bool_)
    for start in range(0, len(values), _PIECE):
        breathe()
        found[start : start + _PIECE] = [test(value) for value in values[start : start + _PIECE]]
    return found


class _Group:
    """Values of one kind and their numbers; a table of the first of them answers for all at once."""

    def __init__(self, table: Callable[[list[Any]], Any] | None = None) -> None:
        self._make = table
        self._table: Any = None
        self._values: list[Any] = []
        self._codes: list[int] = []
        self._tabled: Int32s = np.empty(0, np.int32)

    def add(self, code: int, value: Any) -> None:
        self._codes.append(code)
        self._values.append(value)

    def mark(
        self, found: Bools, test: Callable[[Any], bool], breathe: Breathe, whole: Callable[[Any], Bools] | None = None
    ) -> None:
        """Set in ``found`` [values of the column] the outcome of ``test``, of ``whole`` for those in the table."""
        count = 0
        if whole is not None and self._make is not None and self._codes:
            self._renew()
            count = self._tabled.size
            breathe()
            found[self._tabled] = whole(self._table)
        found[self._codes[count:]] = _each(test, self._values[count:], breathe)

    def _renew(self) -> None:
        made = self._tabled.size
        if self._make is not None and (self._table is None or len(self._codes) - made > made // _TAIL_SHARE + _TAIL):
            self._table = self._make(self._values)
            self._tabled = np.array(self._codes, np.int32)


def _floats(values: list[Any]) -> Float64s:
    return np.array(values, np.float64)


class Column:
    """The values of one attribute, for items in order of their rows; made for a reader and writer in turns.

    Equal numbers and texts are one value whatever their types, as they are in every comparison. A value that no item
    has any more stays in the column.
    """

    def __init__(self) -> None:
        self._codes: Int32s = np.zeros(1024, np.int32)
        # how many rows have their values
        self.rows = 0
        self.values: list[Any] = []
        self.truths: list[bool] = []
        self._lookup: dict[Any, int] = {}
        self._groups = [_Group({_NUMBER: _floats, _TEXT: Texts}.get(kind)) for kind in range(_DICT + 1)]
        # lists by what they hold, and those that hold something that is not hashable
        self._holders: dict[Any, list[int]] = {}
        self._nested: list[int] = []

    def codes(self, count: int) -> Int32s:
        """Return the numbers of the values of the first ``count`` items: a view."""
        return self._codes[:count]

    def set(self, row: int, value: Any) -> None:
        """Set the value of a row: the next one, or one that has a value."""
        if row >= self._codes.size:
            grown = np.zeros(max(row + 1, 2 * self._codes.size), np.int32)
            grown[: self._codes.size] = self._codes
            self._codes = grown
        self._codes[row] = self._code(value)
        self.rows = max(self.rows, row + 1)

    def left_of(self, op: type[ast.cmpop], other: Any, breathe: Breathe) -> Bools:
        """Return for which values ``value op other`` holds; ``other`` is a literal."""
        if op in (ast.Eq, ast.NotEq):
            return self._equal([other], op is ast.NotEq, breathe)
        kind = _kind_of(other)
        if op not in (ast.In, ast.NotIn):
            return self._ordered(op, other, kind, breathe)
        if kind == _LIST:
            return self._equal(other, op is ast.NotIn, breathe)
        found = np.zeros(len(self.values), np.bool_)
        if kind == _TEXT:
            self._groups[_TEXT].mark(found, lambda value: (value in other) == (op is ast.In), breathe)
        return found

    def right_of(self, op: type[ast.cmpop], other: Any, breathe: Breathe) -> Bools:
        """Return for which values ``other op value`` holds, ``op`` being ``in`` or ``not in``."""
        found = np.zeros(len(self.values), np.bool_)

        def test(value: Any) -> bool:
            return compare(op, other, value)

        self._groups[_DICT].mark(found, test, breathe)
        if isinstance(other, str):
            wanted = op is ast.In
            self._groups[_TEXT].mark(found, test, breathe, lambda texts: texts.containing(other) == wanted)
        if not _hashable(other):
            self._groups[_LIST].mark(found, test, breathe)
            return found
        holding = np.zeros(len(self.values), np.bool_)
        holding[self._holders.get(other, [])] = True
        lists = np.zeros(len(self.values), np.bool_)
        self._groups[_LIST].mark(lists, lambda _: True, breathe)
        holding[self._nested] = _each(lambda code: other in self.values[code], self._nested, breathe)
        return np.where(lists, holding == (op is ast.In), found)

    def _equal(self, others: Sequence[Any], negated: bool, breathe: Breathe) -> Bools:
        """Return which values equal one of ``others``, or none of them."""
        found = np.zeros(len(self.values), np.bool_)
        keys = [_key(other) for other in others]
        found[[self._lookup[key] for key in keys if key is not _NO_KEY and key in self._lookup]] = True
        nested = [other for other, key in zip(others, keys, strict=True) if key is _NO_KEY]
        if nested:
            found[self._nested] |= _each(lambda code: self.values[code] in nested, self._nested, breathe)
        return ~found if negated else found

    def _ordered(self, op: type[ast.cmpop], other: Any, kind: int, breathe: Breathe) -> Bools:
        found = np.zeros(len(self.values), np.bool_)
        check = COMPARISONS[op]

        def test(value: Any) -> bool:
            return compare(op, value, other)

        if kind in (_NUMBER, _BIG):
            whole = (lambda numbers: check(numbers, float(other))) if kind == _NUMBER else None
            self._groups[_NUMBER].mark(found, test, breathe, whole)
            self._groups[_BIG].mark(found, test, breathe)
        elif kind == _TEXT:
            self._groups[_TEXT].mark(found, test, breathe, lambda texts: check(texts.order(other), 0))
        elif kind == _LIST:
            self._groups[_LIST].mark(found, test, breathe)
        return found

    def _code(self, value: Any) -> int:
        key = _key(value)
        code = -1 if key is _NO_KEY else self._lookup.get(key, -1)
        if code < 0:
            code = len(self.values)
            self.values.append(value)
            self.truths.append(bool(value))
            if key is not _NO_KEY:
                self._lookup[key] = code
            kind = _kind_of(value)
            self._groups[kind].add(code, value)
            if kind == _LIST:
                self._note_contents(code, value)
        return code

    def _note_contents(self, code: int, value: Sequence[Any]) -> None:
        if not all(map(_hashable, value)):
            self._nested.append(code)
            return
        for part in dict.fromkeys(value):
            self._holders.setdefault(part, []).append(code)


def _kind_of(value: Any) -> int:
    if type(value) is int:
        # beyond 2**53 only some integers are floats
        return _NUMBER if abs(value) <= 1 << 53 else _BIG
    return _KINDS[type(value)]


def _hashable(value: Any) -> bool:
    return not isinstance(value, list | dict)


def _key(value: Any) -> Any:
    """Return what equal values share; `_NO_KEY` for what has no such thing."""
    if isinstance(value, list):
        return tuple(value) if all(map(_hashable, value)) else _NO_KEY
    return _NO_KEY if isinstance(value, dict) else value
