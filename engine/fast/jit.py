"""How the kernels of the memories and of the mixture are compiled."""

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import ParamSpec, TypeVar

from numba import njit

__all__ = ["jit"]

P = ParamSpec("P")
R = TypeVar("R")


def jit(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a function on its first call, release the GIL in it and keep the machine code on disk.

    The code on disk is used while no source file in the function's folder has changed.
    """
    compiled: Callable[P, R] = njit(cache=True, nogil=True)(function)
    # numba compares the function's own file only, yet what it calls in other files is compiled into it
    stored = getattr(getattr(compiled, "_cache", None), "_cache_file", None)
    if stored is not None:
        stored._source_stamp = _digest(Path(function.__code__.co_filename).parent)
    return compiled


@cache
def _digest(folder: Path) -> str:
    sources = sorted(folder.glob("*.py"))
    return hashlib.blake2b(b"\0".join(source.read_bytes() for source in sources)).hexdigest()
