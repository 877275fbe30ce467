"""Evaluation of a filter over all items at once: for distinct values first, for items by the numbers of theirs."""

import ast
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ...kernels.arrays import Bools, Int32s
from .columns import Breathe, Column, compare
from .expression import literal

__all__ = ["evaluate"]

_FALSE_TRUE = (False, True)
# pairs of values of two sides that are few enough to take all of them; of more, the items' own
_TABLE = 1 << 12
# items that are looked at one by one between two breaths
_PIECE = 512


class _Side(NamedTuple):
    """Values that differ by item: distinct ones, and their number for every item [items]."""

    values: Sequence[Any]
    codes: Int32s
    # where they are those of an attribute
    column: Column | None = None


class _Literal(NamedTuple):
    value: Any


class _List(NamedTuple):
    """A list of the values of sides, made for some items at a time: as many lists as items would burden the memory."""

    sides: "list[_Any]"


_Any = _Side | _Literal | _List


def evaluate(tree: ast.expr, columns: Callable[[str], Column | None], count: int, breathe: Breathe) -> Bools:
    """Return which of the first ``count`` items a filter matches: for every item what its test says.

    ``columns`` returns the column of an attribute, None for one that no item has. ``breathe`` is called every
    millisecond or so, and may raise.
    """
    return _Evaluation(columns, count, breathe).truth(tree)


class _Evaluation:
    def __init__(self, columns: Callable[[str], Column | None], count: int, breathe: Breathe) -> None:
        self._columns = columns
        self._count = count
        self._breathe = breathe

    def truth(self, node: ast.expr) -> Bools:
        """Return for which items the value of a node is true."""
        self._breathe()
        match node:
            case ast.BoolOp(op=op, values=values):
                join = np.logical_and if isinstance(op, ast.And) else np.logical_or
                return np.array(join.reduce([self.truth(value) for value in values]), np.bool_)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return ~self.truth(operand)
            case ast.Compare(left=left, ops=ops, comparators=comparators):
                sides = [self._side(side) for side in (left, *comparators)]
                checks = [self._compare(type(op), sides[i], sides[i + 1]) for i, op in enumerate(ops)]
                return np.array(np.logical_and.reduce(checks), np.bool_)
        side = self._side(node)
        if isinstance(side, _Side) and side.column is not None:
            return np.array(side.column.truths, np.bool_)[side.codes]
        return np.full(self._count, bool(side.sides if isinstance(side, _List) else self._some(side, 0, 1)[0]))

    def _side(self, node: ast.expr) -> _Any:
        if literal(node):
            return _Literal(_value(node))
        match node:
            case ast.Name(id=name):
                column = self._columns(name)
                return _Literal(None) if column is None else _Side(column.values, column.codes(self._count), column)
            case ast.List(elts=elements) | ast.Tuple(elts=elements):
                return _List([self._side(element) for element in elements])
        return _Side(_FALSE_TRUE, self.truth(node).astype(np.int32))

    def _compare(self, op: type[ast.cmpop], left: _Any, right: _Any) -> Bools:
        breathe = self._breathe
        if isinstance(left, _Literal) and isinstance(right, _Literal):
            return np.full(self._count, compare(op, left.value, right.value))
        if isinstance(left, _Side) and isinstance(right, _Literal) and left.column is not None:
            return left.column.left_of(op, right.value, breathe)[left.codes]
        if isinstance(left, _Literal) and isinstance(right, _Side) and right.column is not None:
            if op in (ast.In, ast.NotIn):
                return right.column.right_of(op, left.value, breathe)[right.codes]
            return right.column.left_of(_MIRROR[op], left.value, breathe)[right.codes]
        if isinstance(left, _Side) and isinstance(right, _Side) and len(left.values) * len(right.values) <= _TABLE:
            pairs = [[compare(op, one, other) for other in right.values] for one in left.values]
            return np.array(pairs, np.bool_)[left.codes, right.codes]
        found = np.zeros(self._count, np.bool_)
        for start in range(0, self._count, _PIECE):
            breathe()
            stop = min(start + _PIECE, self._count)
            both = zip(self._some(left, start, stop), self._some(right, start, stop), strict=True)
            found[start:stop] = [compare(op, one, other) for one, other in both]
        return found

    def _some(self, side: _Any, start: int, stop: int) -> Sequence[Any]:
        """Return the values of a side for items ``start`` to ``stop``."""
        if isinstance(side, _Literal):
            return [side.value] * (stop - start)
        if isinstance(side, _Side):
            return [side.values[code] for code in side.codes[start:stop].tolist()]
        columns = [self._some(part, start, stop) for part in side.sides]
        return [list(values) for values in zip(*columns, strict=True)]


_MIRROR: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.Eq,
    ast.NotEq: ast.NotEq,
    ast.Lt: ast.Gt,
    ast.LtE: ast.GtE,
    ast.Gt: ast.Lt,
    ast.GtE: ast.LtE,
}


def _value(node: ast.expr) -> Any:
    match node:
        case ast.Constant(value=value):
            return value
        case ast.UnaryOp(operand=ast.Constant(value=int() | float() as number)):
            return -number
        case ast.List(elts=elements) | ast.Tuple(elts=elements):
            return [_value(element) for element in elements]
    raise AssertionError("the filter was checked when it was read")
