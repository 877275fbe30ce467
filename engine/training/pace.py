"""The bound on how much of the machine the training program takes."""

import time
from collections.abc import Callable

__all__ = ["Pace"]

Seconds = Callable[[], float]


class Pace:
    """Keeps a program to a number of ``processors`` (0.5: half of one): it sleeps off what it computed too fast.

    ``computed_s`` is the processor time that was used so far, ``passed_s`` a clock, ``rest`` sleeps.
    """

    def __init__(
        self,
        processors: float,
        *,
        computed_s: Seconds = time.process_time,
        passed_s: Seconds = time.perf_counter,
        rest: Callable[[float], None] = time.sleep,
    ) -> None:
        self._processors = processors
        self._computed_s, self._passed_s, self._rest = computed_s, passed_s, rest
        self._note()

    def keep(self) -> None:
        """Rest until what was computed since the last call is within the bound."""
        computed_s, passed_s = self._computed_s() - self._computed_before_s, self._passed_s() - self._passed_before_s
        self._rest(max(0.0, computed_s / self._processors - passed_s))
        self._note()

    def _note(self) -> None:
        self._computed_before_s, self._passed_before_s = self._computed_s(), self._passed_s()
