"""Direct transitions between items: exact counts that never decay, and weights that fade with the item's own events."""

import numpy as np

from ...kernels.arrays import Float32s, Int32s
from ...kernels.jit import jit
from . import neighbours, popularity
from .neighbours import Neighbours
from .popularity import Popularity
from .sparse import spread

__all__ = ["HALF_LIFE", "Followers", "add", "followers", "scores"]


# item rows in no order, and [2, followers] counts and fading weights
Followers = tuple[Int32s, Float32s]

# in events: so long that the slow weights of a table are counts
HALF_LIFE = 1e12
# the fast weights of a row lose half in so many events of the item, however rare the item is
_KEPT = np.float32(0.5 ** (1.0 / 10.0))
_LEAST = np.float32(1e-6)
# ties are broken by less than one event
_TIE = 0.5


@jit
def add(table: Neighbours, item: int, follower: int) -> None:
    """Count that one item came directly after another."""
    start = table.starts[item]
    for k in range(start, start + table.used[item]):
        faded = table.weights[k, 1] * _KEPT
        # on to zero at once: numbers near the smallest float are slow to work with
        table.weights[k, 1] = faded if faded > _LEAST else np.float32(0.0)
    neighbours.add(table, item, follower, 1.0, 1.0)


@jit
def followers(table: Neighbours, popular: Popularity, item: int, now: int) -> Followers:
    """Return the items that came directly after an item, with their counts and fading weights; none for item -1.

    Ties are broken by the popularity at the shortest half-life, as the baseline `markov` does.
    """
    if not 0 <= item < table.used.size:
        return np.empty(0, np.int32), np.empty((2, 0), np.float32)
    start = table.starts[item]
    keys = table.keys[start : start + table.used[item]].copy()
    weights = np.empty((2, keys.size), np.float32)
    deflation = popularity.deflation(popular, 0, now)
    for k in range(keys.size):
        recent = popular.values[0, keys[k]] * deflation
        weights[0, k] = table.weights[start + k, 0] + _TIE * recent / (1.0 + recent)
        weights[1, k] = table.weights[start + k, 1]
    return keys, weights


@jit
def scores(found: Followers, rows: Int32s) -> Float32s:
    """Return the scores of ``rows``, which ascend, by both weights, [2, rows]; nan is none."""
    keys, weights = found
    result = np.empty((2, rows.size), np.float32)
    result[0] = spread(keys, weights[0], rows)
    result[1] = spread(keys, weights[1], rows)
    return result
