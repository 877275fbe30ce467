"""Evaluation of a filter over all items at once: for distinct values first, for items by the numbers of theirs."""

import ast
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ...kernels.arrays import Bools, Int32s
from .columns import Breathe, Column, compare, pieces
from .expression import literal

__all__ = ["evaluate"]

_FALSE_TRUE = (False, True)
# pairs of values of two sides that are few enough to take all of them; of more, the items' own
_TABLE = 1 << 12


class _Side(NamedTuple):
    """Values that differ by item: distinct ones, and their number for every item [items]."""

    values: Sequence[Any]
    codes: Int32s
    # where they are those of an attribute
    column: Column | None = None


class _Literal(NamedTuple):
    value: Any


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
        if isinstance(side, _Literal):
            return np.full(self._count, bool(side.value))
        truths = [bool(value) for value in side.values] if side.column is None else side.column.truths
        return np.array(truths, np.bool_)[side.codes]

    def _side(self, node: ast.expr) -> _Side | _Literal:
        if literal(node):
            return _Literal(_value(node))
        match node:
            case ast.Name(id=name):
                column = self._columns(name)
                return _Literal(None) if column is None else _Side(column.values, column.codes(self._count), column)
            case ast.List(elts=elements) | ast.Tuple(elts=elements):
                return self._list([self._side(element) for element in elements])
        return _Side(_FALSE_TRUE, self.truth(node).astype(np.int32))

    def _list(self, sides: list[_Side | _Literal]) -> _Side | _Literal:
        joined: _Side | _Literal = _Literal([])
        for side in sides:
            joined = self._each_pair(lambda start, value: [*start, value], joined, side)
        return joined

    def _compare(self, op: type[ast.cmpop], left: _Side | _Literal, right: _Side | _Literal) -> Bools:
        breathe = self._breathe
        if isinstance(left, _Side) and isinstance(right, _Literal) and left.column is not None:
            return left.column.left_of(op, right.value, breathe)[left.codes]
        if isinstance(left, _Literal) and isinstance(right, _Side) and right.column is not None:
            if op in (ast.In, ast.NotIn):
                return right.column.right_of(op, left.value, breathe)[right.codes]
            return right.column.left_of(_MIRROR[op], left.value, breathe)[right.codes]
        found = self._each_pair(lambda one, other: compare(op, one, other), left, right)
        if isinstance(found, _Literal):
            return np.full(self._count, found.value)
        return np.array(found.values, np.bool_)[found.codes]

    def _each_pair(
        self, join: Callable[[Any, Any], Any], left: _Side | _Literal, right: _Side | _Literal
    ) -> _Side | _Literal:
        """Apply a function of two values to their pairs."""
        if isinstance(left, _Literal) and isinstance(right, _Literal):
            return _Literal(join(left.value, right.value))
        if isinstance(left, _Literal):
            assert isinstance(right, _Side)
            return _Side(self._map(lambda value: join(left.value, value), right.values), right.codes)
        if isinstance(right, _Literal):
            return _Side(self._map(lambda value: join(value, right.value), left.values), left.codes)
        width = len(right.values)
        if len(left.values) * width <= _TABLE:
            ones, others = np.divmod(np.arange(len(left.values) * width), width)
            codes = left.codes * np.int32(width) + right.codes
        else:
            ones, others, codes = left.codes, right.codes, np.arange(self._count, dtype=np.int32)
        lefts, rights = left.values, right.values
        pairs = list(zip(ones.tolist(), others.tolist(), strict=True))
        return _Side(self._map(lambda pair: join(lefts[pair[0]], rights[pair[1]]), pairs), codes)

    def _map(self, function: Callable[[Any], Any], values: Sequence[Any]) -> list[Any]:
        found: list[Any] = []
        for part in pieces(values, self._breathe):
            found += map(function, part)
        return found


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
