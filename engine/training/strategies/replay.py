"""Replay of old windows beside the recent ones, as it is and with the correction of UER (arXiv 2309.04081)."""

import numpy as np
from numpy.typing import NDArray

from ..windows import PackedWindows, Windows
from .base import FitContext, Strategy

__all__ = ["CorrectedReplay", "Replay"]


class Replay(Strategy):
    """Old windows are drawn evenly from the whole log, so that they have a fixed ``share`` of the events of a pass.

    The log is the reservoir: it holds the windows of the whole stream alike until its oldest events are removed.
    """

    name = "replay"

    def __init__(self, share: float = 0.5) -> None:
        self.share = share
        self._old = Windows(np.empty(0, np.int64), np.empty(0, np.int64))
        self._rng = np.random.default_rng(0)

    def begin(self, context: FitContext) -> None:
        """Take the old windows."""
        self._old, self._rng = context.old, context.rng

    def old_windows(self, events: float) -> Windows:
        """Draw with replacement."""
        count = round(events / max(1.0, float(self._old.lengths.mean())))
        return self._old.take(self._rng.integers(0, len(self._old.starts), count))


class CorrectedReplay(Replay):
    """Replay, where new events turn item vectors and only old ones change their lengths.

    A score is length times angle. Which items are popular lies in the lengths, and new events alone would lengthen
    whatever came lately: UER lets them learn by the angle and what is replayed by both. Here the scores stay inner
    products for all, and the gradient of new events loses its part along each item's vector.
    """

    name = "replay-corrected"

    def __init__(self, share: float = 0.5) -> None:
        super().__init__(share)
        self._new = np.empty(0, np.bool_)

    def begin(self, context: FitContext) -> None:
        """Mark the new events."""
        super().begin(context)
        self._new = context.log.seqs > context.since_seq

    def angular(self, batch: PackedWindows) -> NDArray[np.bool_]:
        """Pick the new events."""
        return self._new[batch.rows]
