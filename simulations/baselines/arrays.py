"""Arrays that grow with the ids of a stream."""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["grown"]


_T = TypeVar("_T", bound=np.generic)


def grown(array: NDArray[_T], rows: int, fill: int | float = 0) -> NDArray[_T]:
    """Return ``array`` when it has more than ``rows`` rows, else a copy at least twice as long filled with ``fill``."""
    if rows < len(array):
        return array
    longer = np.full((max(2 * len(array), rows + 1), *array.shape[1:]), fill, dtype=array.dtype)
    longer[: len(array)] = array
    return longer
