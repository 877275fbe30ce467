"""Where a stream changed, told from what the ranking of its events lost."""

import numpy as np
from numpy.typing import NDArray

from .prequential import gains

__all__ = ["DELTA", "falls"]

# ADWIN's confidence. Measured with counting baselines: no alarm in twelve runs over stationary streams of 100,000
# events, an abrupt change of what follows what found within 310 events (docs/protocols.md)
DELTA = 0.002


def falls(ranks: NDArray[np.int32], positions: NDArray[np.int64], delta: float = DELTA) -> list[int]:
    """Return the positions at which the NDCG@10 of the events so far was found to have fallen.

    ``ranks`` are those of events at ``positions`` of the stream, in order. ADWIN (Bifet and Gavalda 2007) compares the
    older and the newer part of a window that begins anew after every finding. A rise is no drift: it is what learning
    looks like.
    """
    # imported here: it takes a second, and a demonstration does without
    from river.drift import ADWIN

    detector = ADWIN(delta=delta)
    found = []
    for gain, position in zip(gains(ranks).tolist(), positions.tolist(), strict=True):
        before = detector.estimation
        detector.update(gain)
        if detector.drift_detected and detector.estimation < before:
            found.append(position)
    return found
