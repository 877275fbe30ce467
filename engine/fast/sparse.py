"""Parts that know a few items only, as keys with values."""

import numpy as np

from ...kernels.arrays import Float32s, Int32s
from ...kernels.jit import jit

__all__ = ["spread"]


@jit
def spread(keys: Int32s, values: Float32s, rows: Int32s) -> Float32s:
    """Return the values of ``rows``, which ascend; several of one key add up, nan is none."""
    places = _places(rows)
    scores = np.full(rows.size, np.float32(np.nan))
    for k in range(keys.size):
        place = places[_find(places, rows, keys[k])]
        if place >= 0:
            scores[place] = values[k] if np.isnan(scores[place]) else scores[place] + values[k]
    return scores


@jit
def _places(rows: Int32s) -> Int32s:
    # a hash table of where each row is, -1 where it is empty: ten times as fast as searching for every key
    size = 4
    while size < 4 * rows.size:
        size *= 2
    places = np.full(size, -1, np.int32)
    for k in range(rows.size):
        places[_find(places, rows, rows[k])] = k
    return places


@jit
def _find(places: Int32s, rows: Int32s, key: int) -> int:
    # rows are dense, so that their last bits are a good hash; linear probing
    mask = np.uint32(places.size - 1)
    at = np.uint32(key) & mask
    while places[at] >= 0 and rows[places[at]] != key:
        at = (at + np.uint32(1)) & mask
    return int(at)
