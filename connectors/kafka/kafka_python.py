"""The contract kept by kafka-python (no native code)."""

import base64
import logging
import socket
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import kafka
import kafka.errors

from ...engine.errors import BrokerError, ConfigError
from .contract import Looked, Message, Place, Polled, Topic

__all__ = ["KafkaPythonClient"]

_LOG = logging.getLogger("recurra.kafka")
_TIMEOUT_MS = 5_000
_FILL_MS = 20
_CLOSE_MS = 1_000


class KafkaPythonClient:
    """Makes consumers and producers of kafka-python; ``options`` are its keyword arguments."""

    def __init__(self, brokers: str, group: str, options: Mapping[str, Any]) -> None:
        unknown = sorted(
            set(options) - set(kafka.KafkaConsumer.DEFAULT_CONFIG) - set(kafka.KafkaProducer.DEFAULT_CONFIG)
        )
        if unknown:
            raise ConfigError(f"kafka.options: kafka-python has no option for {', '.join(unknown)}")
        self._common = {"bootstrap_servers": brokers.split(","), "reconnect_backoff_max_ms": 2_000, **options}
        self._group = group

    def consumer(self) -> "_Consumer":
        """Return a consumer; waits a few seconds for the broker, then raises ``BrokerError``."""
        _check_reachable(self._common["bootstrap_servers"])
        with _broker_errors():
            return _Consumer(self._common, self._group)

    def producer(self) -> "_Producer":
        """Return a producer; waits a few seconds for the broker, then raises ``BrokerError``."""
        _check_reachable(self._common["bootstrap_servers"])
        with _broker_errors():
            return _Producer(self._common)


class _Consumer:
    def __init__(self, common: Mapping[str, Any], group: str) -> None:
        settings = {
            **_known(kafka.KafkaConsumer, common),
            "group_id": group,
            "bootstrap_timeout_ms": _TIMEOUT_MS,
            "enable_auto_commit": False,
            # an offset outside the log must never be replaced by another one silently
            "auto_offset_reset": "none",
            "isolation_level": "read_committed",
            "allow_auto_create_topics": False,
        }
        asking = {"request_timeout_ms": _TIMEOUT_MS, **_known(kafka.KafkaAdminClient, common)}
        self._admin = kafka.KafkaAdminClient(**asking, bootstrap_timeout_ms=_TIMEOUT_MS)
        self._settings = settings
        self._consumer = kafka.KafkaConsumer(**settings)
        self._problem: str | None = None
        self._last_report: dict[kafka.TopicPartition, kafka.OffsetAndMetadata] = {}
        self._group_problem: str | None = None

    @property
    def problem(self) -> str | None:
        # the library retries silently: only a request without an answer shows it
        return self._problem

    @property
    def group_problem(self) -> str | None:
        return self._group_problem

    def look(self, names: Sequence[str]) -> Callable[[], Looked]:
        # the library asks and waits in one
        return lambda: {name: self._topic(name) for name in names}

    def _topic(self, name: str) -> Topic | None:
        with _broker_errors():
            try:
                (found,) = self._admin.describe_topics([name])
            except kafka.errors.UnknownTopicOrPartitionError:
                return None
        if found["error_code"] == kafka.errors.UnknownTopicOrPartitionError.errno:
            return None
        if found["error_code"]:
            raise BrokerError(f"topic {name!r}: {kafka.errors.for_code(found['error_code']).__name__}")
        # the text form that Kafka's own tools show
        topic_id = base64.urlsafe_b64encode(uuid.UUID(str(found["topic_id"])).bytes).decode().rstrip("=")
        return Topic(name, topic_id, tuple(sorted(each["partition_index"] for each in found["partitions"])))

    def watermarks(self, place: Place) -> tuple[int, int]:
        at = kafka.TopicPartition(*place)
        try:
            with _broker_errors():
                low = self._consumer.beginning_offsets([at], timeout_ms=_TIMEOUT_MS)[at]
                high = self._consumer.end_offsets([at], timeout_ms=_TIMEOUT_MS)[at]
        except BrokerError as error:
            self._problem = str(error)
            raise
        self._problem = None
        return low, high

    def ends(self, places: Iterable[Place]) -> dict[Place, int]:
        wanted = [kafka.TopicPartition(*place) for place in places]
        with _broker_errors():
            found = self._consumer.end_offsets(wanted, timeout_ms=_TIMEOUT_MS)
        return {(at.topic, at.partition): end for at, end in found.items()}

    def offsets_at(self, places: Iterable[Place], time_ms: int) -> dict[Place, int]:
        wanted = {kafka.TopicPartition(*place): time_ms for place in places}
        with _broker_errors():
            found = self._consumer.offsets_for_times(wanted, timeout_ms=_TIMEOUT_MS)
        return {
            (at.topic, at.partition): self.watermarks(at)[1] if hit is None or hit.offset < 0 else hit.offset
            for at, hit in found.items()
        }

    def assign(self, starts: Mapping[Place, int]) -> None:
        with _broker_errors():
            self._consumer.assign([kafka.TopicPartition(*place) for place in starts])
            for place, offset in starts.items():
                self._consumer.seek(kafka.TopicPartition(*place), offset)

    def poll(self, max_messages: int, wait_s: float) -> Polled:
        batch = Polled([], {})
        try:
            self._fill(batch, max_messages, wait_s)
        except _GroupError as error:
            self._leave_group(str(error))
        return batch

    def _fill(self, batch: Polled, max_messages: int, wait_s: float) -> None:
        with _broker_errors():
            self._take(batch, int(wait_s * 1000), max_messages)
            until = time.monotonic() + (_FILL_MS / 1000 if wait_s else 0)
            while batch.messages and len(batch.messages) < max_messages and time.monotonic() < until:
                self._take(batch, max(1, int((until - time.monotonic()) * 1000)), max_messages - len(batch.messages))
            for at in self._consumer.assignment():
                batch.positions[(at.topic, at.partition)] = self._consumer.position(at, timeout_ms=_TIMEOUT_MS)

    def committed(self, places: Iterable[Place]) -> dict[Place, int]:
        found: dict[Place, int] = {}
        try:
            for place in places:
                with _broker_errors():
                    offset = self._consumer.committed(kafka.TopicPartition(*place), timeout_ms=_TIMEOUT_MS)
                if offset is not None and offset >= 0:
                    found[place] = offset
        except _GroupError as error:
            self._leave_group(str(error))
            return {}
        return found

    def _leave_group(self, problem: str) -> None:
        """Go on without a group: with one that it may not use the library reads nothing."""
        self._group_problem = problem
        starts = {at: self._consumer.position(at, timeout_ms=_TIMEOUT_MS) for at in self._consumer.assignment()}
        self._consumer.close(autocommit=False, timeout_ms=_CLOSE_MS)
        with _broker_errors():
            self._consumer = kafka.KafkaConsumer(**{**self._settings, "group_id": None})
        self.assign({(at.topic, at.partition): offset for at, offset in starts.items() if offset is not None})

    def report(self, offsets: Mapping[Place, int]) -> None:
        places = {
            kafka.TopicPartition(*place): kafka.OffsetAndMetadata(offset, "", -1) for place, offset in offsets.items()
        }
        self._last_report = places
        try:
            self._consumer.commit_async(places)
        except kafka.errors.KafkaError as error:
            _LOG.info("could not report offsets to the group: %s", error)

    def close(self) -> None:
        # the library drops what is under way, and its sockets with it
        if self._last_report:
            try:
                self._consumer.commit(self._last_report, timeout_ms=_CLOSE_MS)
            except kafka.errors.KafkaError as error:
                _LOG.info("could not report the last offsets to the group: %s", error)
        self._consumer.close(autocommit=False, timeout_ms=_CLOSE_MS)
        self._admin.close()

    def _take(self, batch: Polled, timeout_ms: int, max_messages: int) -> None:
        for at, records in self._consumer.poll(timeout_ms=timeout_ms, max_records=max_messages).items():
            batch.messages.extend(
                Message(at.topic, at.partition, record.offset, record.key, record.value) for record in records
            )


class _GroupError(BrokerError):
    """The group may not be used; topics may."""


class _Producer:
    def __init__(self, common: Mapping[str, Any]) -> None:
        settings = _known(kafka.KafkaProducer, common)
        self._producer = kafka.KafkaProducer(
            **settings, acks="all", linger_ms=5, bootstrap_timeout_ms=_TIMEOUT_MS, max_block_ms=_TIMEOUT_MS
        )
        self._waiting: list[Any] = []

    def send(
        self, topic: str, key: bytes | None, value: bytes | None, headers: Mapping[str, bytes] | None = None
    ) -> None:
        given = [] if headers is None else list(headers.items())
        with _broker_errors():
            self._waiting.append(self._producer.send(topic, value=value, key=key, headers=given))
        # answers without a flush in between: forget those that have arrived
        if len(self._waiting) > 10_000:
            self._waiting = [each for each in self._waiting if not each.succeeded()]

    def flush(self, timeout_s: float) -> None:
        waiting, self._waiting = self._waiting, []
        with _broker_errors():
            self._producer.flush(timeout=timeout_s)
            for each in waiting:
                each.get(timeout=0.001)

    def close(self) -> None:
        self._producer.close(timeout=1)


def _known(kind: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    # an option of the consumer is none of the producer, and the other way round
    return {name: value for name, value in options.items() if name in kind.DEFAULT_CONFIG}


def _check_reachable(brokers: Iterable[str]) -> None:
    # a constructor of the library that finds no broker leaves a thread and sockets behind
    reasons = []
    for broker in brokers:
        host, _, port = broker.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=_TIMEOUT_MS / 1000).close()
        except OSError as error:
            reasons.append(f"{broker}: {error}")
        else:
            return
    raise BrokerError("; ".join(reasons))


@contextmanager
def _broker_errors() -> Iterator[None]:
    try:
        yield
    except kafka.errors.UnsupportedCodecError as error:
        raise BrokerError(
            f"{error}: pip install 'recurra[kafka-python]', or set kafka.client = \"confluent\""
        ) from None
    except kafka.errors.GroupAuthorizationFailedError as error:
        raise _GroupError(str(error)) from None
    except kafka.errors.KafkaError as error:
        raise BrokerError(str(error) or type(error).__name__) from None
