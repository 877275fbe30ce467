"""The source that reads a topic of events, and optionally one of catalogue records, into an engine.

What it promises: every message is applied or kept as a dead letter, exactly once as far as the store is concerned,
because the store keeps the next offset of each partition in the same atomic batch as what the messages changed. The
broker's group offsets are written for lag monitors; reading never starts at them.

A message belongs to the topic that the store knows, and not to one that was made under the same name since: a batch is
applied only after the broker has shown the topic's id to a question that was asked after the batch had come. An id is
never given twice, so that the topic was the same up to then.
"""

import logging
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from ...engine.config import Config
from ...engine.errors import BadEventError, BrokerError, InputError
from ...engine.events import Decoder, Event, Forget, Item, check_id
from ...engine.failpoints import failpoint
from ...engine.results import IngestReport, Record, SourceHealth
from ..apply import Applier, Backoff, Origin, SourceEngine, SourceStoppedError
from ..dead_letter import DeadLetters
from .contract import KafkaClient, KafkaConsumer, Looked, Place, Polled, Topic
from .options import KafkaAddress, kafka_client
from .start import check_topic, chosen_partitions, facts_of, resolve_starts, source_key

__all__ = ["KafkaSource"]

_LOG = logging.getLogger("recurra.kafka")
# signals are noticed between two polls
_POLL_S = 0.5
# how often the topics and the ends of their partitions are asked for, and offsets are reported
_LOOK_S = 1.0
# how much later, while messages come: each batch asks for the topics anyway
_BUSY_S = 4.0
# messages that are there and do not come for so long are a problem
_STUCK_S = 5.0
# the same problem is logged again after so long
_LOG_AGAIN_S = 60.0


class _Place(NamedTuple):
    """What is done with the messages of one partition."""

    key: str
    partition: int
    decode: Callable[[bytes | None, bytes | None], Event | Forget | Item]
    label: str


class _Held(NamedTuple):
    """A batch that waits for the answer to a question about its topics, asked after it had come."""

    batch: Polled
    looked: Callable[[], Looked]


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
    ) -> None:
        self._engine = engine
        self._address = address
        self._config = config
        self._dead_letters = dead_letters
        self._client = client or kafka_client(address.brokers, config.kafka)
        self._decoder = Decoder(config.events)
        self._on_report = on_report
        self._roles = {address.topic: "events"}
        if config.kafka.catalogue_topic is not None:
            self._roles[config.kafka.catalogue_topic] = "catalogue"
        self._topics: dict[str, Topic] = {}
        self._places: dict[Place, _Place] = {}
        self._next: dict[Place, int] = {}
        self._reported: dict[Place, int] = {}
        self._ends: dict[Place, int] = {}
        # per partition: the next offset, and since when it has stayed the same while nothing came
        self._still: dict[Place, tuple[int, float]] = {}
        self._grown = False
        self._state = "starting"
        self._problem: str | None = None
        self._group_problem: str | None = None
        self._logged: tuple[str, float] = ("", 0.0)
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
                    self._complain(f"Kafka at {self._address.brokers}: {error}")
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
        state, problem = self._state, self._problem
        if problem is None and state in ("starting", "connecting"):
            problem = f"{state}: connecting to Kafka at {self._address.brokers}"
        offsets, ends = dict(self._next), dict(self._ends)
        given_up = [span for facts in facts_of(self._engine.source_info()).values() for span in facts.lost]
        return SourceHealth(
            kind="kafka",
            topic=self._address.topic,
            connected=state == "running" and problem is None,
            state=state,
            problem=problem,
            messages=self._messages,
            refused=self._applier.dead if self._applier is not None else 0,
            lost=sum(end - start for _, start, end in given_up),
            offsets={f"{topic}/{part}": offset for (topic, part), offset in offsets.items()},
            lag={f"{at[0]}/{at[1]}": max(0, end - offsets.get(at, end)) for at, end in ends.items()},
            group_problem=self._group_problem,
        )

    def _read(self, applier: Applier, stopped: threading.Event, backoff: Backoff) -> None:
        """Read with one consumer until ``stopped`` is set or a topic has more partitions."""
        consumer = self._client.consumer()
        try:
            self._find(consumer)
            consumer.assign(self._next)
            ahead, held, most = dict(self._next), None, self._config.store.batch_events
            # one poll without an error comes before all is said to be well
            due_s = report_s = time.monotonic() + _POLL_S
            while not stopped.is_set() and not self._grown:
                batch = consumer.poll(most, 0.0 if held else _POLL_S)
                before, held = held, None
                if _moves(batch, ahead):
                    held = _Held(batch, consumer.look(list(self._roles)))
                if before is not None:
                    self._confirmed(applier, before)
                # behind a full batch there is more: the answer for it comes while the one before is applied
                if held is not None and len(batch.messages) < most:
                    self._confirmed(applier, held)
                    held = None
                now_s = time.monotonic()
                # while messages come, only the lag needs it
                if now_s >= due_s and (not batch.messages or now_s >= due_s + _BUSY_S or self._state != "running"):
                    self._look(consumer, idle=not batch.messages)
                    backoff.reset()
                    due_s = time.monotonic() + _LOOK_S
                elif now_s >= report_s:
                    self._report(consumer)
                    report_s = now_s + _LOOK_S
            self._report(consumer)
        finally:
            consumer.close()

    def _confirmed(self, applier: Applier, held: _Held) -> None:
        """Apply a batch once the answer says that its topics are still the same."""
        self._check(held.looked())
        self._apply(applier, held.batch)

    def _find(self, consumer: KafkaConsumer) -> None:
        """Find the topics and the offsets to start from."""
        places, starts = {}, {}
        looked = consumer.look(list(self._roles))()
        for name, role in self._roles.items():
            self._topics[name] = topic = check_topic(looked[name], name, self._engine, role)
            decode = self._event if role == "events" else self._item
            found = resolve_starts(consumer, topic, self._engine, self._config.kafka, role)
            for place in found:
                partition = place[1] if role == "events" else 0
                places[place] = _Place(source_key(topic, place[1]), partition, decode, f"kafka:{name}/{place[1]}")
            starts.update(found)
        self._places, self._next, self._grown = places, starts, False
        self._compare_group(consumer)

    def _compare_group(self, consumer: KafkaConsumer) -> None:
        """Log where the group's offsets differ from those that count."""
        try:
            committed = consumer.committed(self._next)
        except BrokerError as error:
            _LOG.info("the offsets of group %r cannot be compared: %s", self._config.kafka.group, error)
            return
        for (topic, partition), theirs in committed.items():
            ours = self._next[(topic, partition)]
            if theirs != ours:
                _LOG.log(
                    logging.WARNING if theirs > ours else logging.INFO,
                    "group %r is at offset %d of %s/%d, the store at %d: the store counts",
                    *(self._config.kafka.group, theirs, topic, partition, ours),
                )

    def _check(self, looked: Looked) -> None:
        """Check that the broker still has the topics that are read, and whether they have more partitions."""
        for name, role in self._roles.items():
            before, topic = self._topics[name], looked[name]
            if topic == before:
                continue
            topic = check_topic(topic, name, self._engine, role)
            if topic.id != before.id:
                raise BrokerError(f"topic {name!r} was made again before anything was stored about it")
            self._topics[name] = topic
            if role == "catalogue" or chosen_partitions(topic, self._config.kafka) != chosen_partitions(
                before, self._config.kafka
            ):
                self._grown = True

    def _apply(self, applier: Applier, batch: Polled) -> None:
        records: list[Record] = []
        origins: list[Origin] = []
        moved = self._next
        for topic, partition, offset, key, payload in batch.messages:
            place = self._places[(topic, partition)]
            origin = Origin(place.label, offset, payload)
            value: Event | Forget | Item | None = None
            try:
                value = place.decode(key, payload)
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

    def _event(self, _key: bytes | None, payload: bytes | None) -> Event | Forget:
        return self._decoder.event(payload)

    def _item(self, key: bytes | None, payload: bytes | None) -> Item:
        """Decode a catalogue record; a tombstone takes the item with the id in its key out of the catalogue."""
        if payload is not None:
            return self._decoder.item(payload)
        try:
            item = (key or b"").decode()
        except UnicodeDecodeError as error:
            raise BadEventError(f"the key of a tombstone is not valid UTF-8: {error}") from None
        try:
            check_id(item, "item")
        except InputError as error:
            raise BadEventError(f"a tombstone without an item id as its key: {error}") from None
        return Item(item, available=False)

    def _report(self, consumer: KafkaConsumer) -> None:
        synced = self._engine.synced_offsets()
        offsets = {at: synced[place.key] for at, place in self._places.items() if place.key in synced}
        changed = {at: offset for at, offset in offsets.items() if offset != self._reported.get(at)}
        if changed:
            consumer.report(changed)
            self._reported |= changed
            failpoint("connector.reported")

    def _look(self, consumer: KafkaConsumer, *, idle: bool) -> None:
        """Ask for the topics and the ends of the partitions; only an answer says that all is well."""
        self._check(consumer.look(list(self._roles))())
        self._ends = consumer.ends(self._next)
        self._report(consumer)
        self._state = "running"
        if (stuck := self._stuck(time.monotonic(), idle=idle)) is None:
            self._note(None)
        else:
            self._complain(stuck)
        if consumer.group_problem != self._group_problem:
            self._group_problem = consumer.group_problem
            if self._group_problem is not None:
                _LOG.warning("offsets cannot be reported to the group: %s", self._group_problem)

    def _stuck(self, now_s: float, *, idle: bool) -> str | None:
        """Return which partition has messages that do not come though nothing else does either."""
        for at, end in self._ends.items():
            offset, since_s = self._still.get(at, (-1, now_s))
            if not idle or end <= self._next[at] or self._next[at] != offset:
                self._still[at] = (self._next[at], now_s)
            elif now_s - since_s >= _STUCK_S:
                waiting = f"messages wait in {at[0]}/{at[1]} from offset {offset} on"
                return f"{waiting}, and none has come for {_STUCK_S:g} s or more"
        return None

    def _complain(self, problem: str) -> None:
        """Note a problem, and log it unless that was done lately."""
        self._note(problem)
        now_s = time.monotonic()
        if problem != self._logged[0] or now_s - self._logged[1] > _LOG_AGAIN_S:
            self._logged = (problem, now_s)
            _LOG.warning("%s; trying again", problem)

    def _note(self, problem: str | None) -> None:
        self._problem = problem


def _moves(batch: Polled, ahead: dict[Place, int]) -> bool:
    """Return whether a batch goes beyond what came ``ahead`` of it, which it is then part of."""
    moves = bool(batch.messages)
    for topic, partition, offset, _, _ in batch.messages:
        ahead[(topic, partition)] = offset + 1
    for at, position in batch.positions.items():
        if position > ahead.get(at, position):
            ahead[at] = position
            moves = True
    return moves
