"""The anchor: the event from which the state of a user is folded.

A state is ``fold(version, start token, history[anchor(n) .. n])``. Serving, the gate and the windows of training all
call this one function, so the states that are trained, judged and served cover the same events.
"""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["anchor"]

Count = TypeVar("Count", int, NDArray[np.int64])


def anchor(n: Count, interval: int) -> Count:
    """Return the index of the event from which the state of a user with ``n`` events is folded.

    ``n`` is one count or an array of them, ``interval`` is A (``store.anchor``). The anchor is 0 up to 2A - 1 events,
    then the multiple of A that leaves between A and 2A - 1 events to be folded.
    """
    return interval * (n // interval - 1) * (n >= interval)
