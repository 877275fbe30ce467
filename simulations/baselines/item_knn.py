"""Item-kNN, recent: items that were had shortly before or after those the user has just had."""

import numpy as np

from ...kernels.arrays import Float64s
from .arrays import grown
from .contexts import Contexts
from .pairs import PairCounts
from .recency import TIE_HALF_LIFE, TIE_WEIGHT, DecayedCounts

__all__ = ["ItemKnn"]


class ItemKnn:
    """Counts how often two items lie within ``window`` events of one user.

    The score of an item is the sum of its counts with the user's last ``context`` items, those of the d-th last
    weighted by ``decay`` ** (d - 1), divided by sqrt(events of the item + ``damping``).
    """

    name = "item-knn"

    def __init__(self, window: int = 20, context: int = 10, decay: float = 0.8, damping: float = 20.0) -> None:
        self._contexts = Contexts(window)
        self._pairs = PairCounts()
        self._ties = DecayedCounts(TIE_HALF_LIFE)
        self._reading: Float64s = decay ** np.arange(context, dtype=np.float64)
        self._ones = np.ones(2 * window)
        self._damping = damping
        self._counts: Float64s = np.zeros(1024)
        self._scales: Float64s = np.full(1024, damping**-0.5)
        self._items = 0

    def scores(self, user: int) -> Float64s:
        """Return the scores of items 0, 1, ...; a new array."""
        cells = np.zeros(self._items + 1)
        self._pairs.accumulate(self._contexts.of(user)[: len(self._reading)], self._reading, cells)
        scores = cells[1:]
        scores *= self._scales[: self._items]
        ties = np.empty(self._items)
        self._ties.write(ties, TIE_WEIGHT)
        scores += ties
        return scores

    def learn(self, user: int, item: int, weight: float = 1.0) -> None:  # noqa: ARG002 - counts only
        """Count ``item`` with the last items of ``user``."""
        context = self._contexts.of(user)
        others = np.where(context == item, -1, context)
        here = np.full(len(others), item, dtype=np.int32)
        self._pairs.add(np.concatenate((others, here)), np.concatenate((here, others)), self._ones)
        self._contexts.add(user, item)
        self._counts = grown(self._counts, item)
        self._scales = grown(self._scales, item, self._damping**-0.5)
        self._counts[item] += 1
        self._scales[item] = (self._counts[item] + self._damping) ** -0.5
        self._ties.add(item)
        self._items = max(self._items, item + 1)
