"""Decayed counts of items: popularity with a half-life, and what breaks the ties of every baseline."""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ...kernels.arrays import Float64s
from .arrays import grown

__all__ = ["TIE_HALF_LIFE", "TIE_WEIGHT", "DecayedCounts"]

# ties are broken by popularity decayed with this half-life, in events; it reproduces the published figures
TIE_HALF_LIFE = 1_000.0
# far below one count of the scores whose ties it breaks
TIE_WEIGHT = 1e-6
# the newest event weighs the most; past this the counts are divided by it
_LARGEST = 1e100


class DecayedCounts:
    """Counts per item in which an event loses half of its weight every ``half_life`` events (of any item)."""

    def __init__(self, half_life: float) -> None:
        self._growth = 2.0 ** (1.0 / half_life)
        self._step = 1.0
        self._counts: Float64s = np.zeros(1024)

    def add(self, item: int) -> None:
        """Count one event of ``item``."""
        self._counts = grown(self._counts, item)
        self._counts[item] += self._step
        # a newer event weighs more instead of every older one less
        self._step *= self._growth
        if self._step > _LARGEST:
            self._counts /= self._step
            self._step = 1.0

    def write(self, out: Float64s, weight: float) -> None:
        """Fill ``out`` with ``weight`` times the counts of items 0 .. len(out) - 1, the newest event counting one."""
        self._counts = grown(self._counts, len(out))
        _scale(self._counts, weight / self._step, out)


@njit(cache=True, nogil=True)
def _scale(counts: Float64s, weight: float, out: NDArray[np.float64]) -> None:
    for item in range(len(out)):
        out[item] = weight * counts[item]
