"""How the kernels of the counting memories are compiled."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from numba import njit

__all__ = ["jit"]

P = ParamSpec("P")
R = TypeVar("R")


def jit(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a function on its first call, release the GIL in it and keep the machine code on disk."""
    compiled: Callable[P, R] = njit(cache=True, nogil=True)(function)
    return compiled
