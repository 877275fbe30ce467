"""Clocks: the engine never asks the operating system for the time of day itself."""

import time
from typing import Protocol

__all__ = ["Clock", "EventClock", "SystemClock"]


class Clock(Protocol):
    """Source of the current time, in integer milliseconds since the epoch."""

    def now_ms(self) -> int:
        """Return the current time; called from any thread, any number of times."""
        ...


class SystemClock:
    """The operating system's wall clock."""

    def now_ms(self) -> int:
        """Return the wall clock in milliseconds."""
        return time.time_ns() // 1_000_000


class EventClock:
    """The time of the newest event of a replayed stream; moved by the replay, never backwards."""

    def __init__(self, start_ms: int = 0) -> None:
        self._now_ms = start_ms

    def now_ms(self) -> int:
        """Return the newest event time seen, in milliseconds."""
        return self._now_ms

    def advance(self, time_ms: int) -> None:
        """Move the clock to ``time_ms`` unless it is there or later already."""
        self._now_ms = max(self._now_ms, time_ms)
