"""The source that reads a topic of events, and optionally one of catalogue records, into an engine.

What it promises: every message is applied or kept as a dead letter, exactly once as far as the store is concerned,
because the store keeps the next offset of each partition in the same atomic batch as what the messages changed. The
broker's group offsets are written for lag monitors and never read.
"""

import logging
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from ...engine.config import Config
from ...engine.errors import BadEventError, BrokerError
from ...engine.events import Decoder, Event, Forget, Item
from ...engine.failpoints import failpoint
from ...engine.results import IngestReport, Record, SourceHealth
from ..apply import Applier, Backoff, Origin, SourceEngine, SourceStoppedError
from ..dead_letter import DeadLetters
from .contract import KafkaClient, KafkaConsumer, Place, Polled
from .options import KafkaAddress, kafka_client
from .start import chosen_partitions, facts_of, find_topic, resolve_starts, source_key

__all__ = ["KafkaSource"]

_LOG = logging.getLogger("recurra.kafka")
# signals are noticed between two polls
_POLL_S = 0.5
_REPORT_S = 1.0
# how often the ends of the partitions are asked for, and how long the answer may take
_LOOK_S = 5.0
_ANSWER_S = 1.0


class _Place(NamedTuple):
    """What is done with the messages of one partition."""

    key: str
    partition: int
    decode: Callable[[bytes | None], Event | Forget | Item]
    label: str


class KafkaSource:
    """Reads ``kafka://HOST:PORT/TOPIC``; a broker that is away is waited for, at the start and later.

    ``on_report`` is called with the report of every batch. ``run`` raises ``SourceBehindError`` if the broker deleted
    what comes next, ``SourceMismatchError`` if the topic is not the one that the store has read, ``StoreFencedError``
    if another process took the store over, and ``ConfigError`` for settings that the topic or the client does not have.
    """

    def __init__(
        self,
        engine: SourceEngine,
        address: KafkaAddress,
        config: Config,
        dead_letters: DeadLetters,
        *,
        client: KafkaClient | None = None,
        on_report: Callable[[IngestReport], None] | None = None,
        refresh_s: float = 30.0,
    ) -> None:
        self._engine = engine
        self._address = address
        self._config = config
        self._dead_letters = dead_letters
        self._client = client or kafka_client(address.brokers, config.kafka)
        self._decoder = Decoder(config.events)
        self._on_report = on_report
        self._refresh_s = refresh_s
        self._roles = {address.topic: "events"}
        if config.kafka.catalogue_topic is not None:
            self._roles[config.kafka.catalogue_topic] = "catalogue"
        self._places: dict[Place, _Place] = {}
        self._next: dict[Place, int] = {}
        self._reported: dict[Place, int] = {}
        self._ends: dict[Place, int] = {}
        self._state = "starting"
        self._problem: str | None = None
        self._messages = 0
        self._applier: Applier | None = None

    def run(self, stopped: threading.Event) -> None:
        """Read until ``stopped`` is set; a batch under way is then applied whole."""
        self._applier = applier = Applier(
            self._engine, self._dead_letters, stopped, self._note, self._config.store, on_report=self._on_report
        )
        backoff = Backoff(stopped)
        try:
            while not stopped.is_set():
                try:
                    self._read(applier, stopped, backoff)
                except BrokerError as error:
                    self._state = "connecting"
                    self._note(f"Kafka at {self._address.brokers}: {error}")
                    _LOG.warning("%s; trying again", self._problem)
                    backoff.wait()
        except SourceStoppedError:
            pass
        except Exception as error:
            self._note(str(error))
            raise
        finally:
            self._state = "stopped"
            self._dead_letters.close()

    def health(self) -> SourceHealth:
        """Return ``connected``, ``problem`` and, per partition, the next offset and how many messages wait."""
        lag = {f"{topic}/{part}": max(0, end - self._next[(topic, part)]) for (topic, part), end in self._ends.items()}
        given_up = [span for facts in facts_of(self._engine.source_info()).values() for span in facts.lost]
        return SourceHealth(
            kind="kafka",
            topic=self._address.topic,
            connected=self._state == "running" and self._problem is None,
            state=self._state,
            problem=self._problem,
            messages=self._messages,
            refused=self._applier.dead if self._applier is not None else 0,
            lost=sum(end - start for _, start, end in given_up),
            offsets={f"{topic}/{part}": offset for (topic, part), offset in dict(self._next).items()},
            lag=lag,
        )

    def _read(self, applier: Applier, stopped: threading.Event, backoff: Backoff) -> None:
        consumer = self._client.consumer()
        try:
            self._find(consumer)
            consumer.assign(self._next)
            self._state = "running"
            self._note(None)
            backoff.reset()
            refresh = report = time.monotonic()
            look = 0.0
            while not stopped.is_set():
                batch = consumer.poll(self._config.store.batch_events, _POLL_S)
                self._note(consumer.problem)
                self._apply(applier, batch)
                now = time.monotonic()
                if now - report >= _REPORT_S:
                    report = now
                    self._report(consumer)
                if now - look >= _LOOK_S:
                    look = now
                    self._look(consumer, idle=not batch.messages)
                if now - refresh >= self._refresh_s and consumer.problem is None:
                    refresh = now
                    self._refresh(consumer)
            self._report(consumer)
        finally:
            consumer.close()

    def _find(self, consumer: KafkaConsumer) -> None:
        """Find the topics and the offsets to start from."""
        places, starts = {}, {}
        for name, role in self._roles.items():
            topic = find_topic(consumer, name, self._engine, role)
            decode = self._decoder.event if role == "events" else self._decoder.item
            found = resolve_starts(consumer, topic, self._engine, self._config.kafka, role)
            for place in found:
                partition = place[1] if role == "events" else 0
                places[place] = _Place(source_key(topic, place[1]), partition, decode, f"kafka:{name}/{place[1]}")
            starts.update(found)
        self._places, self._next = places, starts

    def _apply(self, applier: Applier, batch: Polled) -> None:
        records: list[Record] = []
        origins: list[Origin] = []
        moved = self._next
        for topic, partition, offset, _, payload in batch.messages:
            place = self._places[(topic, partition)]
            origin = Origin(place.label, offset, payload)
            value: Event | Forget | Item | None = None
            try:
                value = place.decode(payload)
            except BadEventError as error:
                applier.refuse(origin, str(error))
            moved[(topic, partition)] = offset + 1
            records.append(Record(value, place.key, offset + 1, place.partition))
            origins.append(origin)
        for at, position in batch.positions.items():
            # behind aborted transactions and control records, which are no messages
            if position > moved.get(at, position):
                moved[at] = position
                place = self._places[at]
                records.append(Record(None, place.key, position, place.partition))
                origins.append(Origin(place.label, position, None))
        if records:
            applier.apply(records, origins)
            self._messages += len(batch.messages)

    def _report(self, consumer: KafkaConsumer) -> None:
        synced = self._engine.synced_offsets()
        offsets = {at: synced[place.key] for at, place in self._places.items() if place.key in synced}
        changed = {at: offset for at, offset in offsets.items() if offset != self._reported.get(at)}
        if changed:
            consumer.report(changed)
            self._reported |= changed
            failpoint("connector.reported")

    def _look(self, consumer: KafkaConsumer, *, idle: bool) -> None:
        """Learn the ends of the partitions, for the lag.

        Messages that come show it. Where none do the broker is asked, which also shows whether it is back; its
        answer waits behind the fetch that is under way, so it is not asked while there is work.
        """
        if not idle:
            self._ends |= {at: end for at in self._next if (end := consumer.last_end(at)) is not None}
            return
        try:
            self._ends = {at: consumer.watermarks(at, _ANSWER_S)[1] for at in self._next}
        except BrokerError as error:
            self._note(str(error))

    def _refresh(self, consumer: KafkaConsumer) -> None:
        """Look for new partitions and for topics that were made again."""
        try:
            for name, role in self._roles.items():
                topic = find_topic(consumer, name, self._engine, role)
                known = {partition for at, partition in self._places if at == name}
                if set(chosen_partitions(topic, self._config.kafka)) - known:
                    self._find(consumer)
                    consumer.assign(self._next)
                    return
        except BrokerError as error:
            self._note(str(error))

    def _note(self, problem: str | None) -> None:
        self._problem = problem
