"""Shadow: the version before, scored beside the serving one by a sequential test, so that a bad switch is undone."""

import math

from ..config import GateConfig
from .version import ServedVersion

__all__ = ["Evidence", "Shadow"]

# a bet of at most half the capital cannot lose everything on values in [-1, 1]
_LARGEST_BET = 0.5
# the variance before anything was seen, as of this many values
_FIRST_VARIANCE, _FIRST_VALUES = 0.25, 1.0


class Evidence:
    """Evidence that the mean of values in [-1, 1] is above zero: the gain of a gambler who bets on it, starting from 1.

    Where no value's mean, given those before, is above zero, the gain ever reaches 1 / level with at most that
    probability, however often one looks (Ville's inequality): a test that may stop at any time. Each bet is about mean
    / (variance + mean^2) of the values before it (Waudby-Smith and Ramdas, arXiv 2010.09686, the bets called aGRAPA).
    """

    def __init__(self) -> None:
        self.log_gain = 0.0
        self._count = _FIRST_VALUES
        self._sum = 0.0
        self._squares = _FIRST_VALUES * _FIRST_VARIANCE

    def add(self, value: float) -> None:
        """Take one value."""
        mean = self._sum / self._count
        bet = min(_LARGEST_BET, max(0.0, mean * self._count / self._squares))
        self.log_gain += math.log1p(bet * value)
        self._count += 1
        self._sum += value
        self._squares += value * value


class Shadow:
    """The version before (``serving``, with room for a few users) and what it was worth beside the one that serves.

    Both rank the same events, each by its neural part alone. ``beaten`` once the evidence says that the NDCG of the
    version that serves is below (1 + margin) times that of the version before, at the level ``gate.rollback_level``.
    """

    def __init__(self, serving: ServedVersion, config: GateConfig) -> None:
        self.serving = serving
        self._config = config
        self._evidence = Evidence()
        self._events = 0
        self._now = self._before = 0.0

    @property
    def beaten(self) -> bool:
        """Whether the version that serves is worse, at the configured level."""
        return self._evidence.log_gain >= -math.log(self._config.rollback_level)

    @property
    def over(self) -> bool:
        """Whether enough events were judged."""
        return self.beaten or self._events >= self._config.shadow_events

    @property
    def reason(self) -> str:
        """What was seen, in words."""
        return (
            f"NDCG {self._now / max(1, self._events):.4f} on {self._events} events after the switch, "
            f"{self._before / max(1, self._events):.4f} by version {self.serving.number} on the same ones"
        )

    def record(self, now: float, before: float) -> None:
        """Record the NDCG of one event by the serving version and by this one."""
        if self.over:
            return
        self._events += 1
        self._now += now
        self._before += before
        self._evidence.add((1 + self._config.margin) * before - now)
