"""Compilation on the first call, without the interpreter's lock, with the machine code kept on disk."""

import hashlib
import logging
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from numba import njit

__all__ = ["fast_jit", "inline_jit", "jit"]

_log = logging.getLogger("recurra")

P = ParamSpec("P")
R = TypeVar("R")


def jit(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a function; the code on disk is used while no source that may be compiled into it has changed.

    Those are the sources with compiled functions in the function's part of the package and in this one: numba itself
    looks at the function's own file only, yet what it calls in other files becomes part of it.
    """
    return _compile(function)


def fast_jit(function: Callable[P, R]) -> Callable[P, R]:
    """Do as ``jit``, with sums in any order and without checks of divisors, as loops of vector instructions need.

    For functions that Python calls. Called by another compiled function it would be there twice, by itself and as a
    copy in its caller, and sums in any order are rounded differently in the two; which of them runs depends on what the
    process compiled or loaded before. So what compiled functions call is ``jit`` or ``inline_jit``.
    """
    return _compile(function, fastmath=True, error_model="numpy")


def inline_jit(function: Callable[P, R]) -> Callable[P, R]:
    """Do as ``fast_jit``, for parts of loops: put into every function that calls them."""
    return _compile(function, fastmath=True, error_model="numpy", forceinline=True)


def _compile(function: Callable[P, R], **options: Any) -> Callable[P, R]:
    try:
        compiled: Callable[P, R] = njit(cache=True, nogil=True, **options)(function)
    except RuntimeError as error:
        # numba found no directory that it may write to
        _warn_once("no locator available" if "locator" in str(error) else str(error))
        return njit(nogil=True, **options)(function)  # type: ignore[no-any-return]
    stored = getattr(getattr(compiled, "_cache", None), "_cache_file", None)
    if stored is not None:
        root = Path(__file__).parents[1]
        part = Path(function.__code__.co_filename).relative_to(root).parts[0]
        stored._source_stamp = _digest(root / "kernels") + _digest(root / part)
    return compiled


@cache
def _warn_once(problem: str) -> None:
    _log.warning(
        "compiled functions cannot be kept on disk, so that every start takes minutes (%s): "
        "set NUMBA_CACHE_DIR to a directory that can be written to",
        problem,
    )


@cache
def _digest(folder: Path) -> str:
    found = (source.read_bytes() for source in sorted(folder.rglob("*.py")))
    return hashlib.blake2b(b"\0".join(text for text in found if b"jit" in text)).hexdigest()
