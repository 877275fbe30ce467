"""The last items of every user, newest first."""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from .arrays import grown

__all__ = ["Contexts"]


class Contexts:
    """Keeps the last ``length`` items of every user; ``rows[user]`` lists them newest first, -1 for none."""

    def __init__(self, length: int) -> None:
        self.rows: NDArray[np.int32] = np.full((1024, length), -1, dtype=np.int32)

    def of(self, user: int) -> NDArray[np.int32]:
        """Return the items of ``user``, a view that the next ``add`` changes."""
        self.rows = grown(self.rows, user, -1)
        row: NDArray[np.int32] = self.rows[user]
        return row

    def add(self, user: int, item: int) -> None:
        """Put ``item`` in front."""
        _push(self.of(user), item)


@njit(cache=True, nogil=True)
def _push(row: NDArray[np.int32], item: int) -> None:
    for place in range(len(row) - 1, 0, -1):
        row[place] = row[place - 1]
    row[0] = item
