"""Decayed popularity: what is popular now."""

import numpy as np

from ...kernels.arrays import Float64s
from .recency import DecayedCounts

__all__ = ["HALF_LIFE", "DecayedPopularity"]

# in events of the whole stream; the best single value over the streams that we have
HALF_LIFE = 5_000.0


class DecayedPopularity:
    """Scores an item by its events, each of which loses half of its weight every ``half_life`` events."""

    name = "decayed-popularity"

    def __init__(self, half_life: float = HALF_LIFE) -> None:
        self._counts = DecayedCounts(half_life)
        self._items = 0

    def scores(self, user: int) -> Float64s:  # noqa: ARG002 - the same for all users
        """Return the scores of items 0, 1, ...; a new array."""
        scores = np.empty(self._items)
        self._counts.write(scores, 1.0)
        return scores

    def learn(self, user: int, item: int, weight: float = 1.0) -> None:  # noqa: ARG002
        """Count one event."""
        self._counts.add(item)
        self._items = max(self._items, item + 1)
