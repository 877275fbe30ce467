"""Start of reading a topic: at the store's offsets, checked against what the broker still has."""

import logging
from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

import msgspec

from ...engine.config import KafkaConfig
from ...engine.errors import BrokerError, ConfigError, SourceBehindError, SourceMismatchError
from ..apply import SourceEngine
from .contract import KafkaConsumer, Place, Topic

__all__ = ["SourceFacts", "check_topic", "chosen_partitions", "facts_of", "resolve_starts", "source_key"]

_LOG = logging.getLogger("recurra.kafka")


class SourceFacts(msgspec.Struct, frozen=True):
    """What the store keeps about a topic, under ``kafka:TOPIC_ID``.

    ``role`` is "events" or "catalogue", ``starts`` the first offset ever asked for per partition, ``lost`` the ranges
    (partition, from, to) that the broker had deleted before they were read and that were given up on purpose.
    """

    topic: str
    topic_id: str
    role: str
    starts: dict[int, int]
    lost: tuple[tuple[int, int, int], ...] = ()

    def first(self, partition: int, stored: int | None) -> int:
        """Return what to read next in a partition, given the stored offset if there is one."""
        offset = self.starts[partition] if stored is None else stored
        for at, start, end in self.lost:
            if at == partition and start == offset:
                offset = end
        return offset


class _Span(NamedTuple):
    low: int
    high: int


def source_key(topic: Topic, partition: int) -> str:
    """Return the key under which the store keeps the offset of a partition."""
    return f"kafka:{topic.id}/{partition}"


def facts_of(source_info: Mapping[str, bytes]) -> dict[str, SourceFacts]:
    """Return what is stored about Kafka topics, by topic id."""
    found = (info for key, info in source_info.items() if key.startswith("kafka:"))
    return {facts.topic_id: facts for facts in (msgspec.json.decode(info, type=SourceFacts) for info in found)}


def check_topic(topic: Topic | None, name: str, engine: SourceEngine, role: str) -> Topic:
    """Return the topic that the broker has under a name if it is the one that the store has read from.

    Raises ``BrokerError`` while there is none, ``SourceMismatchError`` if the store's offsets belong to another one.
    """
    if topic is None:
        raise BrokerError(f"the broker has no topic {name!r}")
    for facts in facts_of(engine.source_info()).values():
        if facts.role != role or facts.topic_id == topic.id:
            continue
        if facts.topic == name:
            raise SourceMismatchError(
                f"topic {name!r} was deleted and made again: the store's offsets belong to topic id {facts.topic_id}, "
                f"the broker's topic has id {topic.id}; use a new data directory"
            )
        raise SourceMismatchError(
            f"this store has read its {role} from topic {facts.topic!r}, not {name!r}; use a new data directory"
        )
    return topic


def resolve_starts(
    consumer: KafkaConsumer, topic: Topic, engine: SourceEngine, config: KafkaConfig, role: str
) -> dict[Place, int]:
    """Return the offset to start from for every partition, storing those that are new.

    A store that knows no partition of the topic starts where the configuration says; a partition that has come since
    starts at its beginning. A catalogue is read whole. Raises ``SourceBehindError`` if the broker no longer has what
    comes next, unless ``kafka.skip_lost``, ``SourceMismatchError`` if the log ends before the stored offset, and
    ``ConfigError`` if ``kafka.start`` would skip what the group has read into a store that is gone.
    """
    partitions = chosen_partitions(topic, config) if role == "events" else topic.partitions
    facts = facts_of(engine.source_info()).get(topic.id)
    if facts is None:
        first = config.start if role == "events" else "earliest"
        if first == "latest":
            _check_group(consumer, topic, partitions, config.group)
        facts = SourceFacts(topic.name, topic.id, role, dict(_first_offsets(consumer, topic, partitions, first)))
        _keep(engine, facts)
    fresh = dict.fromkeys(set(partitions) - set(facts.starts), 0)
    if fresh:
        facts = msgspec.structs.replace(facts, starts=facts.starts | fresh)
        _keep(engine, facts)
    stored = engine.offsets()
    starts = {}
    for partition in partitions:
        offset = facts.first(partition, stored.get(source_key(topic, partition)))
        span = _Span(*consumer.watermarks((topic.name, partition)))
        if offset > span.high:
            raise SourceMismatchError(
                f"the store has read {topic.name!r} partition {partition} up to offset {offset}, but it ends at "
                f"{span.high}: the log was cut or belongs to another cluster; use a new data directory"
            )
        if offset < span.low:
            facts = _behind(facts, partition, offset, span.low, config)
            _keep(engine, facts)
        starts[(topic.name, partition)] = max(offset, span.low)
    return starts


def chosen_partitions(topic: Topic, config: KafkaConfig) -> tuple[int, ...]:
    """Return the partitions that the configuration names; raises ``ConfigError`` for one that is not there."""
    if config.partitions == "all":
        return topic.partitions
    missing = sorted(set(config.partitions) - set(topic.partitions))
    if missing:
        raise ConfigError(
            f"kafka.partitions names {missing}, but topic {topic.name!r} has partitions {list(topic.partitions)}"
        )
    return tuple(sorted(set(config.partitions)))


def _check_group(consumer: KafkaConsumer, topic: Topic, partitions: tuple[int, ...], group: str) -> None:
    """Refuse to begin at the end of a topic that was read before: the store that it was read into is gone."""
    committed = consumer.committed((topic.name, partition) for partition in partitions)
    read = {partition: offset for (_, partition), offset in committed.items() if offset > 0}
    if read:
        raise ConfigError(
            f"the store is empty, but group {group!r} has read topic {topic.name!r} before, up to "
            f"{', '.join(f'offset {offset} of partition {partition}' for partition, offset in sorted(read.items()))}: "
            'kafka.start = "latest" would leave all of that out; bring the store back, or rebuild it with '
            'kafka.start = "earliest", or give this engine a kafka.group of its own'
        )


def _first_offsets(
    consumer: KafkaConsumer, topic: Topic, partitions: tuple[int, ...], start: Literal["earliest", "latest"] | int
) -> Iterator[tuple[int, int]]:
    if isinstance(start, int):
        found = consumer.offsets_at([(topic.name, partition) for partition in partitions], start)
        yield from ((partition, offset) for (_, partition), offset in found.items())
    else:
        for partition in partitions:
            span = _Span(*consumer.watermarks((topic.name, partition)))
            yield partition, span.low if start == "earliest" else span.high


def _behind(facts: SourceFacts, partition: int, offset: int, low: int, config: KafkaConfig) -> SourceFacts:
    if not config.skip_lost:
        raise SourceBehindError(
            f"the store has read {facts.topic!r} partition {partition} up to offset {offset}, but the broker has "
            f"deleted everything before {low}: {low - offset} messages are lost; set kafka.skip_lost = true to go on "
            "without them"
        )
    _LOG.warning("gave up %d lost messages of %s partition %d", low - offset, facts.topic, partition)
    return msgspec.structs.replace(facts, lost=(*facts.lost, (partition, offset, low)))


def _keep(engine: SourceEngine, facts: SourceFacts) -> None:
    engine.set_source_info(f"kafka:{facts.topic_id}", msgspec.json.encode(facts))
