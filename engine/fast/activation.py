"""Base-level activation of what a user had: how likely it is needed again (Anderson and Schooler 1991; ACT-R)."""

import numpy as np
import numpy.typing as npt

from ...kernels.jit import jit

__all__ = ["activation"]

# gaps shorter than this are as good as this one
_LEAST_S = 1.0


@jit
def activation(times_ms: npt.NDArray[np.int64], now_ms: int) -> npt.NDArray[np.float32]:
    """Return what each event of a user adds to its item's exp(activation): (now - t) ** -.5, in seconds.

    Base-level activation with decay d = .5 is the logarithm of the sum over the item's events, which the mixture takes.
    """
    values = np.empty(times_ms.size, np.float32)
    for k in range(times_ms.size):
        values[k] = 1.0 / np.sqrt(max((now_ms - times_ms[k]) / 1000.0, _LEAST_S))
    return values
