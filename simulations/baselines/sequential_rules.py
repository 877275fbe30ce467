"""Sequential rules: what follows an item within a few events."""

import numpy as np

from ...kernels.arrays import Float64s
from .contexts import Contexts
from .pairs import PairCounts
from .recency import TIE_HALF_LIFE, TIE_WEIGHT, DecayedCounts

__all__ = ["SequentialRules"]


class SequentialRules:
    """What followed an item, the nearer the more.

    An event of item i adds 1/d to the rule (j -> i) for the item j that was d events before it in the user's history,
    d = 1 .. ``length``; the score of i is the sum of the rules from the user's last ``length`` items, those of the
    d-th last weighted by ``decay`` ** (d - 1).
    """

    name = "sequential-rules"

    def __init__(self, length: int = 10, decay: float = 0.8) -> None:
        self._contexts = Contexts(length)
        self._rules = PairCounts()
        self._ties = DecayedCounts(TIE_HALF_LIFE)
        self._reading: Float64s = decay ** np.arange(length, dtype=np.float64)
        self._learning = 1.0 / np.arange(1, length + 1)
        self._items = 0

    def scores(self, user: int) -> Float64s:
        """Return the scores of items 0, 1, ...; a new array."""
        cells = np.zeros(self._items + 1)
        self._ties.write(cells[1:], TIE_WEIGHT)
        self._rules.accumulate(self._contexts.of(user), self._reading, cells)
        return cells[1:]

    def learn(self, user: int, item: int, weight: float = 1.0) -> None:  # noqa: ARG002 - counts only
        """Learn that ``item`` is the next one of ``user``."""
        context = self._contexts.of(user)
        self._rules.add(context, np.full(len(context), item, dtype=np.int32), self._learning)
        self._contexts.add(user, item)
        self._ties.add(item)
        self._items = max(self._items, item + 1)
