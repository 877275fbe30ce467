"""What followed an item directly: exact counts, not decayed."""

import numpy as np
import numpy.typing as npt

from ...kernels.jit import jit
from . import popularity
from .neighbours import Neighbours
from .popularity import Popularity

__all__ = ["HALF_LIFE", "followers"]

Rows = npt.NDArray[np.int32]
Scores = npt.NDArray[np.float32]

# in events: so long that the slow weights of a table are counts
HALF_LIFE = 1e12
# ties are broken by less than one event
_TIE = 0.5


@jit
def followers(table: Neighbours, popular: Popularity, item: int, now: int) -> tuple[Rows, Scores]:
    """Return the items that came directly after an item, in no order, with their counts.

    Equal counts are told apart by the popularity at the shortest half-life, as the baseline `markov` does.
    """
    if item >= table.used.size:
        return np.empty(0, np.int32), np.empty(0, np.float32)
    start = table.starts[item]
    keys = table.keys[start : start + table.used[item]].copy()
    counts = np.empty(keys.size, np.float32)
    deflation = popularity.deflation(popular, 0, now)
    for k in range(keys.size):
        recent = popular.values[0, keys[k]] * deflation
        counts[k] = table.weights[start + k, 0] + _TIE * recent / (1.0 + recent)
    return keys, counts
