"""The ``where`` expression: which items an answer may hold, by their attributes.

The syntax is a small part of Python's: names of attributes, literals, comparisons, ``in``, ``and``, ``or``, ``not``.
Examples: ``'Drama' in categories``, ``release_year >= 1990 and not 'Horror' in categories``.
"""

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any

from .errors import InputError

__all__ = ["compile_filter"]

_Test = Callable[[Mapping[str, Any]], Any]

_MAX_LENGTH = 1_000
_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda left, right: left in right,
    ast.NotIn: lambda left, right: left not in right,
}


def compile_filter(expression: str) -> Callable[[Mapping[str, Any]], bool]:
    """Turn an expression into a test of one item's attributes; raises ``InputError`` with the reason.

    An attribute that an item lacks is None; a comparison that its types do not allow is false.
    """
    if len(expression) > _MAX_LENGTH:
        raise InputError(f"the filter has {len(expression)} characters, more than {_MAX_LENGTH}")
    try:
        tree = ast.parse(expression, mode="eval").body
        test = _build(tree)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else str(error)
        raise InputError(f"cannot read the filter {expression!r}: {reason}") from None
    return lambda item: bool(test(item))


def _build(node: ast.expr) -> _Test:
    match node:
        case ast.BoolOp(op=ast.And(), values=values):
            tests = [_build(value) for value in values]
            return lambda item: all(test(item) for test in tests)
        case ast.BoolOp(values=values):
            tests = [_build(value) for value in values]
            return lambda item: any(test(item) for test in tests)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            inner = _build(operand)
            return lambda item: not inner(item)
        case ast.Compare(left=left, ops=ops, comparators=comparators):
            return _comparison(left, ops, comparators)
        case ast.Name(id=name):
            return lambda item: item.get(name)
        case ast.Constant(value=value) if isinstance(value, str | int | float | bool | None):
            return lambda _item: value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
            return lambda _item: -number
        case ast.List(elts=elements) | ast.Tuple(elts=elements):
            parts = [_build(element) for element in elements]
            return lambda item: [part(item) for part in parts]
    raise ValueError(f"{ast.unparse(node)!r} is not a name, a literal, a comparison, and, or, not")


def _comparison(left: ast.expr, ops: list[ast.cmpop], comparators: list[ast.expr]) -> _Test:
    operands = [_build(left), *(_build(comparator) for comparator in comparators)]
    unknown = [type(op).__name__ for op in ops if type(op) not in _COMPARISONS]
    if unknown:
        raise ValueError(f"comparison {unknown[0]} is not supported")
    checks = [_COMPARISONS[type(op)] for op in ops]

    def test(item: Mapping[str, Any]) -> bool:
        values = [operand(item) for operand in operands]
        try:
            return all(check(values[i], values[i + 1]) for i, check in enumerate(checks))
        except TypeError:
            # an attribute that is missing or of another type never matches
            return False

    return test
