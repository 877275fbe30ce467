"""Feeds of a replay: events reach the engine in process, or by way of a Kafka topic.

A catalogue record reaches it in process either way, right before the first event of its item and in the same call: two
topics have no common order, so that a record on a topic of its own could come before its time or after it.
"""

import queue
import threading
import time
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Protocol

import msgspec
import numpy as np

from ..connectors.dead_letter import FileDeadLetters
from ..connectors.kafka import KafkaProducer, KafkaSource, kafka_client, parse_address
from ..engine.clock import EventClock
from ..engine.engine import Engine
from ..engine.errors import BrokerError, InputError, RecurraError
from ..engine.events import Event, Item
from ..engine.results import IngestReport, Record
from .datasets import Stream

__all__ = ["Feed", "FirstRecords", "open_feed"]

# events that are produced ahead of the one that is learnt next
_AHEAD = 2_000
# an event that was produced must have come back by then
_WAIT_S = 30.0


class Feed(Protocol):
    """Brings the events of a stream into an engine."""

    def learn(self, start: int, end: int) -> None:
        """Return when the events at positions ``start`` .. ``end - 1`` are applied; called once per event, in order."""
        ...


class FirstRecords:
    """The catalogue records of a stream's items, each at the position of the first event of its item."""

    def __init__(self, stream: Stream, records: Mapping[str, Item]) -> None:
        codes, positions = np.unique(stream.items, return_index=True)
        self.items = len(codes)
        first = {
            position: records.get(stream.item_ids[code])
            for code, position in zip(codes.tolist(), positions.tolist(), strict=True)
        }
        # the event says that the item could be had then, whatever a later record says
        self._first = {
            position: msgspec.structs.replace(record, available=True)
            for position, record in first.items()
            if record is not None
        }
        self._positions = sorted(self._first)

    def __len__(self) -> int:
        """Return how many items of the stream have a record."""
        return len(self._first)

    def at(self, position: int) -> list[Item]:
        """Return the record that comes right before the event at ``position``, if there is one."""
        record = self._first.get(position)
        return [] if record is None else [record]

    def next_after(self, position: int) -> int | None:
        """Return the next position beyond this one that has a record, None if there is none."""
        place = bisect_right(self._positions, position)
        return self._positions[place] if place < len(self._positions) else None


@contextmanager
def open_feed(via: str, engine: Engine, stream: Stream, clock: EventClock, records: FirstRecords) -> Iterator[Feed]:
    """Open the feed called ``memory`` or ``kafka://HOST:PORT/TOPIC``.

    ``records`` are applied with the events. The topic must be new or empty, with any number of partitions. Raises
    ``InputError`` for another name, and ``BrokerError`` if the broker cannot be reached.
    """
    if via == "memory":
        yield _MemoryFeed(engine, stream, clock, records)
        return
    if not via.startswith("kafka://"):
        raise InputError(f"expected events by way of memory or kafka://HOST:PORT/TOPIC, got {via!r}")
    address = parse_address(via)
    with ExitStack() as stack:
        client = kafka_client(address.brokers, engine.config.kafka)
        producer = client.producer()
        stack.callback(producer.close)
        gate = _Gate(engine)
        feed = _KafkaFeed(engine, stream, clock, records, producer, address.topic, gate)
        # the first messages make the topic where the broker lets them
        feed.produce(_AHEAD)
        letters = FileDeadLetters(engine.path / "dead-letters.jsonl")
        source = KafkaSource(gate, address, engine.config, letters, client=client)
        stopped = threading.Event()
        reader = threading.Thread(target=gate.guard, args=(source.run, stopped), name="recurra-replay-source")
        reader.start()
        stack.callback(reader.join)
        stack.callback(stopped.set)
        yield feed


class _MemoryFeed:
    def __init__(self, engine: Engine, stream: Stream, clock: EventClock, records: FirstRecords) -> None:
        self._engine = engine
        self._stream = stream
        self._clock = clock
        self._records = records

    def learn(self, start: int, end: int) -> None:
        self._clock.advance(int(self._stream.time_ms[end - 1]))
        values: list[Event | Item] = []
        for position, event in enumerate(self._stream.events(start, end), start):
            values += [*self._records.at(position), event]
        self._engine.ingest(values)


class _Gate:
    """What the Kafka source takes for the engine: it keeps the records until the replay has judged them."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.records: queue.SimpleQueue[Record | RecurraError] = queue.SimpleQueue()

    def guard(self, run: Callable[[threading.Event], None], stopped: threading.Event) -> None:
        """Run the source; hand on what stops it."""
        try:
            run(stopped)
        except RecurraError as error:
            self.records.put(error)

    def apply(
        self,
        records: Sequence[Record],
        *,
        refused: Callable[[int, str], None] | None = None,  # noqa: ARG002 - the replay's own call refuses nothing
    ) -> IngestReport:
        for record in records:
            self.records.put(record)
        return IngestReport()

    def offsets(self) -> dict[str, int]:
        return self._engine.offsets()

    def synced_offsets(self) -> dict[str, int]:
        return self._engine.synced_offsets()

    def source_info(self) -> dict[str, bytes]:
        return self._engine.source_info()

    def set_source_info(self, source: str, info: bytes, *, offset: int | None = None) -> None:
        self._engine.set_source_info(source, info, offset=offset)

    def reopen(self) -> None:
        self._engine.reopen()


class _KafkaFeed:
    """Produces a little ahead, and applies what comes back in the order of the stream, across partitions."""

    def __init__(
        self,
        engine: Engine,
        stream: Stream,
        clock: EventClock,
        records: FirstRecords,
        producer: KafkaProducer,
        topic: str,
        gate: _Gate,
    ) -> None:
        self._engine = engine
        self._stream = stream
        self._clock = clock
        self._records = records
        self._producer = producer
        self._topic = topic
        self._gate = gate
        self._produced = 0
        # per partition, in its order
        self._waiting: dict[str, deque[Record]] = {}

    def learn(self, start: int, end: int) -> None:
        if self._produced < min(end + 1, len(self._stream)):
            self.produce(end + _AHEAD)
        values: list[Record] = []
        for position, event in enumerate(self._stream.events(start, end), start):
            values += [Record(record, "", 0) for record in self._records.at(position)]
            values.append(self._take(event))
        self._clock.advance(int(self._stream.time_ms[end - 1]))
        self._engine.apply(values)

    def produce(self, end: int) -> None:
        """Write the events up to ``end`` to the topic, keyed by user."""
        end = min(end, len(self._stream))
        for event in self._stream.events(self._produced, end):
            self._producer.send(self._topic, event.user.encode(), _message(event))
        self._producer.flush(_WAIT_S)
        self._produced = end

    def _take(self, event: Event) -> Record:
        """Return the record of ``event``; it is the next one of its partition, which the broker has chosen."""
        deadline = time.monotonic() + _WAIT_S
        while True:
            for records in self._waiting.values():
                if records and records[0].value == event:
                    return records.popleft()
            try:
                came = self._gate.records.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise BrokerError(
                    f"an event that was sent to {self._topic!r} did not come back within {_WAIT_S:.0f} s; "
                    "is the topic new and not used elsewhere?"
                ) from None
            if isinstance(came, RecurraError):
                raise came
            if came.value is not None:
                self._waiting.setdefault(came.source, deque()).append(came)


def _message(event: Event) -> bytes:
    fields = {"user": event.user, "item": event.item, "time": event.time_ms}
    extra = {"type": event.type, "weight": event.weight, "id": event.id}
    return msgspec.json.encode(fields | {name: value for name, value in extra.items() if value is not None})
