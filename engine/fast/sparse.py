"""Parts that know a few items only, as keys with values."""

import numpy as np
import numpy.typing as npt

from ...kernels.jit import jit

__all__ = ["spread"]

Rows = npt.NDArray[np.int32]
Scores = npt.NDArray[np.float32]


@jit
def spread(keys: Rows, values: Scores, rows: Rows) -> Scores:
    """Return the values of ``rows``, which ascend; several of one key add up, nan is none."""
    scores = np.full(rows.size, np.float32(np.nan))
    for k in range(keys.size):
        low, high = 0, rows.size
        while low < high:
            middle = (low + high) >> 1
            if rows[middle] < keys[k]:
                low = middle + 1
            else:
                high = middle
        if low < rows.size and rows[low] == keys[k]:
            scores[low] = values[k] if np.isnan(scores[low]) else scores[low] + values[k]
    return scores
