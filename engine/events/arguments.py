"""Checks of the arguments of queries: the same in an engine and in a client, before it sends anything."""

from ..errors import InputError, shown
from .checks import MAX_INTEGER, check_id
from .types import MAX_TIME_MS

__all__ = ["MAX_K", "check_filter", "check_query", "check_version"]

MAX_K = 10_000
# letters of a filter that are read at all
_MAX_FILTER = 10_000


def check_query(name: object, what: str, k: object, *, at: object = None, where: object = None) -> None:
    """Raise ``InputError`` for an argument of a query that is not acceptable; ``name`` is the id of a ``what``."""
    check_id(name, what)
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= MAX_K:
        raise InputError(f"k must be an integer from 1 to {MAX_K}, got {shown(k)}")
    if at is not None and (isinstance(at, bool) or not isinstance(at, int) or not 0 <= at <= MAX_TIME_MS):
        raise InputError(f"at must be an integer from 0 to {MAX_TIME_MS} (milliseconds), got {shown(at)}")
    if where is not None:
        check_filter(where)


def check_filter(where: object) -> None:
    """Raise ``InputError`` for a filter that is no text, or too long to be read."""
    if not isinstance(where, str):
        raise InputError(f"the filter must be a string, got {type(where).__name__}")
    if len(where) > _MAX_FILTER:
        raise InputError(f"the filter has {len(where)} characters, more than {_MAX_FILTER}")
    try:
        where.encode()
    except UnicodeEncodeError:
        raise InputError("the filter is not valid Unicode (a lone surrogate)") from None


def check_version(number: object) -> None:
    """Raise ``InputError`` for what cannot be the number of a version."""
    if isinstance(number, bool) or not isinstance(number, int) or abs(number) > MAX_INTEGER:
        raise InputError(f"the number of a version must be an integer of at most 64 bits, got {shown(number)}")
