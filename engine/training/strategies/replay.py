"""Replay of old windows beside the recent ones."""

import numpy as np

from ..windows import Windows
from .base import Setting, Strategy

__all__ = ["Replay"]


class Replay(Strategy):
    """Old windows are drawn evenly from the whole log, so that they have a fixed ``share`` of the events of a pass.

    The log is the reservoir: it holds the windows of the whole stream alike until its oldest events are removed.
    """

    name = "replay"

    def __init__(self, share: float = 0.5) -> None:
        self.share = share
        self._old = Windows(np.empty(0, np.int64), np.empty(0, np.int64))
        self._rng = np.random.default_rng(0)

    def begin(self, setting: Setting) -> None:
        """Take the old windows."""
        self._old, self._rng = setting.old, setting.rng

    def old_windows(self, events: float) -> Windows:
        """Draw with replacement."""
        count = round(events / max(1.0, float(self._old.lengths.mean())))
        return self._old.take(self._rng.integers(0, len(self._old.starts), count))
