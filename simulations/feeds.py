"""How the events of a replay reach the engine: handed over in process, or by way of a Kafka topic."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from ..engine.engine import Engine
from ..engine.clock import EventClock
from ..engine.errors import InputError
from .datasets import Stream

__all__ = ["Feed", "open_feed"]


class Feed(Protocol):
    """Brings the events of a stream into an engine."""

    def learn(self, start: int, end: int) -> None:
        """Return when the events at positions ``start`` .. ``end - 1`` are applied; called once per event, in order."""
        ...


@contextmanager
def open_feed(via: str, engine: Engine, stream: Stream, clock: EventClock) -> Iterator[Feed]:
    """Open the feed called ``memory`` or ``kafka://HOST:PORT/TOPIC``; raises ``InputError`` for another name."""
    if via == "memory":
        yield _MemoryFeed(engine, stream, clock)
        return
    raise InputError(f"expected events by way of memory or kafka://HOST:PORT/TOPIC, got {via!r}")


class _MemoryFeed:
    def __init__(self, engine: Engine, stream: Stream, clock: EventClock) -> None:
        self._engine = engine
        self._stream = stream
        self._clock = clock

    def learn(self, start: int, end: int) -> None:
        self._clock.advance(int(self._stream.time_ms[end - 1]))
        self._engine.ingest(self._stream.events(start, end))
