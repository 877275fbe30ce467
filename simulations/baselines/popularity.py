"""Popularity: how often an item occurred, from the beginning."""

import numpy as np

from ...kernels.arrays import Float64s
from .arrays import grown
from .recency import TIE_HALF_LIFE, TIE_WEIGHT, DecayedCounts

__all__ = ["Popularity"]


class Popularity:
    """Scores an item by the number of its events; the same list for all users."""

    name = "popularity"

    def __init__(self) -> None:
        self._counts: Float64s = np.zeros(1024)
        self._ties = DecayedCounts(TIE_HALF_LIFE)
        self._items = 0

    def scores(self, user: int) -> Float64s:  # noqa: ARG002 - the same for all users
        """Return the scores of items 0, 1, ...; a new array."""
        scores = np.empty(self._items)
        self._ties.write(scores, TIE_WEIGHT)
        scores += self._counts[: self._items]
        return scores

    def learn(self, user: int, item: int, weight: float = 1.0) -> None:  # noqa: ARG002
        """Count one event."""
        self._counts = grown(self._counts, item)
        self._counts[item] += 1
        self._ties.add(item)
        self._items = max(self._items, item + 1)
