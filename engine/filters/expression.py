"""The ``where`` expression: which items an answer may hold, by their attributes.

The syntax is a small part of Python's: names of attributes, literals, comparisons, ``in``, ``and``, ``or``, ``not``.
Examples: ``'Drama' in categories``, ``release_year >= 1990 and not 'Horror' in categories``. A list may be written as
``['a', 'b']`` or as ``('a', 'b')``; both equal an attribute that holds these values in this order.
"""

import ast
import itertools
import operator
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ..errors import InputError
from ..events import check_filter

__all__ = ["COMPARISONS", "MAX_PARTS", "Filter", "compile_filter", "literal", "parse_filter"]

_Test = Callable[[Mapping[str, Any]], Any]

# names, literals, comparisons, and, or, not; a list of literals is one
MAX_PARTS = 64
MAX_LITERALS = 1_000
# an attribute against another one, or inside a text, costs many times as much as against a literal
MAX_PAIRS = 2
COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda left, right: left in right,
    ast.NotIn: lambda left, right: left not in right,
}


class Filter(NamedTuple):
    """A filter that was read: its text, its syntax tree, the attributes it names, and the test of one item."""

    text: str
    tree: ast.expr
    names: frozenset[str]
    test: Callable[[Mapping[str, Any]], bool]


def compile_filter(expression: str) -> Callable[[Mapping[str, Any]], bool]:
    """Turn an expression into a test of one item's attributes; raises ``InputError`` with the reason.

    An attribute that an item lacks is None; a comparison that its types do not allow is false.
    """
    return parse_filter(expression).test


def parse_filter(expression: str) -> Filter:
    """Read an expression; raises ``InputError`` with the reason, also for one with more parts than are allowed."""
    check_filter(expression)
    try:
        tree = ast.parse(expression, mode="eval").body
        _check_size(tree)
        test = _build(tree)
    except InputError:
        raise
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else str(error)
        raise InputError(f"cannot read the filter {expression!r:.1000}: {reason:.1000}") from None
    names = frozenset(node.id for node in ast.walk(tree) if isinstance(node, ast.Name))
    return Filter(expression, tree, names, lambda item: bool(test(item)))


def literal(node: ast.expr) -> bool:
    """Whether a node is a text, a number, true, false, None, or a list of such."""
    match node:
        case ast.Constant() | ast.UnaryOp(op=ast.USub(), operand=ast.Constant()):
            return True
        case ast.List(elts=elements) | ast.Tuple(elts=elements):
            return all(map(literal, elements))
    return False


def _check_size(tree: ast.expr) -> None:
    parts = pairs = 0
    pending = [tree]
    while pending:
        node = pending.pop()
        parts += 1
        if literal(node):
            kinds = [type(part) for part in ast.walk(node)]
            inner = kinds.count(ast.List) + kinds.count(ast.Tuple) - 1
            if max(kinds.count(ast.Constant), inner) > MAX_LITERALS:
                raise InputError(f"a list of the filter has more than {MAX_LITERALS} values")
            continue
        pending += [part for part in ast.iter_child_nodes(node) if isinstance(part, ast.expr)]
        if isinstance(node, ast.Compare):
            sides = itertools.pairwise((node.left, *node.comparators))
            pairs += sum(_dear(op, *both) for op, both in zip(node.ops, sides, strict=True))
        elif isinstance(node, ast.List | ast.Tuple):
            pairs += sum(not literal(element) for element in node.elts)
    if parts > MAX_PARTS:
        raise InputError(f"the filter has {parts} parts (names, values, comparisons), more than {MAX_PARTS}")
    if pairs > MAX_PAIRS:
        raise InputError(
            f"the filter compares attributes with each other, or looks for them in a text, {pairs} times, "
            f"more than {MAX_PAIRS}"
        )


def _dear(op: ast.cmpop, left: ast.expr, right: ast.expr) -> bool:
    if literal(left):
        return False
    return not literal(right) or (isinstance(op, ast.In | ast.NotIn) and isinstance(right, ast.Constant))


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
    unknown = [type(op).__name__ for op in ops if type(op) not in COMPARISONS]
    if unknown:
        raise ValueError(f"comparison {unknown[0]} is not supported")
    checks = [COMPARISONS[type(op)] for op in ops]

    def test(item: Mapping[str, Any]) -> bool:
        values = [operand(item) for operand in operands]
        try:
            return all(check(values[i], values[i + 1]) for i, check in enumerate(checks))
        except TypeError:
            # an attribute that is missing or of another type never matches
            return False

    return test
