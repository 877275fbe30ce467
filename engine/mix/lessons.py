"""Lessons: which events the mixture learns from, decided from the stream alone."""

import struct
import zlib

from ..config import MixConfig
from ..events import Event

__all__ = ["Lessons"]

# the share is set again after so many events
BLOCK = 1_000
# the first events are all learnt from: without them the mixture would be a guess for long
_EARLY = 3 * BLOCK
# what one lesson is taken to cost, in seconds of a core; a constant, because what is learnt must not depend on the
# machine (`recurra bench memories` measures it)
LESSON_S = 1.6e-3
_HASHES = 1 << 32
_STATE = struct.Struct("<dqq")


class Lessons:
    """Chooses the events that the mixture learns from: all, as long as that costs at most ``budget`` of a core.

    The rate of the stream is that of the event times: it is taken over every 1,000 applied events, and sets the share
    of the next 1,000, ``budget / (rate * cost of a lesson)``, at least ``sample`` and at most 1. Within a share the
    hash of an event decides. So a topic that is read again, in whatever batches and at whatever speed, gives the same
    lessons. The first 3,000 events are all lessons unless ``budget`` is 0.
    """

    def __init__(self, config: MixConfig) -> None:
        self._least = min(1.0, max(0.0, config.sample))
        self._budget = max(0.0, config.budget)
        self._share = 1.0 if self._budget else self._least
        # the newest time at the end of a block, and the blocks since: a stream whose times stand still has no rate
        self._newest_ms = -1
        self._blocks = 0

    @property
    def share(self) -> float:
        """The share of the present events that are lessons."""
        return self._share

    def left(self, seq: int) -> int:
        """Return how many more events have the share of event number ``seq``."""
        return BLOCK - seq % BLOCK

    def chosen(self, event: Event) -> bool:
        """Whether an event is a lesson."""
        if self._share >= 1.0:
            return True
        key = f"{event.time_ms}\0{event.item}\0{event.user}"
        return zlib.crc32(key.encode()) < self._share * _HASHES

    def passed(self, next_seq: int, time_ms: int) -> bool:
        """Take in that the event before ``next_seq`` came, at ``time_ms``; return whether a block ended with it."""
        if next_seq % BLOCK:
            return False
        self._blocks += 1
        if self._newest_ms < 0:
            self._newest_ms, self._blocks = time_ms, 0
        elif time_ms > self._newest_ms:
            rate = 1000 * BLOCK * self._blocks / (time_ms - self._newest_ms)
            if self._budget:
                self._share = min(1.0, max(self._least, self._budget / (rate * LESSON_S)))
            self._newest_ms, self._blocks = time_ms, 0
        if self._budget and next_seq < _EARLY:
            self._share = 1.0
        return True

    def state(self) -> bytes:
        """Return what has to be kept, as bytes."""
        return _STATE.pack(self._share, self._newest_ms, self._blocks)

    def restore(self, blob: bytes) -> None:
        """Take over a state; what the configuration says now counts from the next block on."""
        if len(blob) == _STATE.size:
            share, self._newest_ms, self._blocks = _STATE.unpack(blob)
            self._share = share if self._budget else self._least
