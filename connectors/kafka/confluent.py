"""The contract kept by confluent-kafka (librdkafka)."""

import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

import confluent_kafka as ck
from confluent_kafka import admin as ck_admin
from confluent_kafka.admin import AdminClient

from ...engine.errors import BrokerError, ConfigError
from .contract import CLOSING, Looked, Message, Place, Polled, Topic

__all__ = ["ConfluentClient"]

_LOG = logging.getLogger("recurra.kafka")
_TIMEOUT_S = 5.0
_FILL_S = 0.02
_CLOSE_S = 2.0
_MISSING = (ck.KafkaError.UNKNOWN_TOPIC_OR_PART, ck.KafkaError._UNKNOWN_TOPIC)
# librdkafka goes on by itself after these; everything else needs a new look at the topic
_PASSING = (ck.KafkaError._TRANSPORT, ck.KafkaError._ALL_BROKERS_DOWN, ck.KafkaError._TIMED_OUT)
# the group is for lag monitors: partitions are read without it
_GROUP = (ck.KafkaError.GROUP_AUTHORIZATION_FAILED,)


class ConfluentClient:
    """Makes consumers and producers on librdkafka; ``options`` are handed to it as they are."""

    def __init__(self, brokers: str, group: str, options: Mapping[str, Any]) -> None:
        self._common = {
            "bootstrap.servers": brokers,
            "reconnect.backoff.max.ms": 2_000,
            # after so long without an answer a connection is given up
            "socket.timeout.ms": 30_000,
            **options,
        }
        self._group = group
        self._admin: _Admin | None = None

    def consumer(self) -> "_Consumer":
        """Return a consumer; does not wait for the broker."""
        try:
            # one for all consumers: it cannot be closed, and each has threads and descriptors of its own
            if self._admin is None:
                self._admin = _Admin(self._common)
        except ck.KafkaException as error:
            raise ConfigError(f"kafka.options: {_text(error)}") from None
        return _Consumer(self._common, self._group, self._admin)

    def producer(self) -> "_Producer":
        """Return a producer; does not wait for the broker."""
        return _Producer(self._common)


class _Admin:
    """The library's client for questions, and what its connection met last."""

    def __init__(self, common: Mapping[str, Any]) -> None:
        self._problem: str | None = None
        settings: dict[str, Any] = {**common, "error_cb": self._remember}
        self.client = AdminClient(settings, logger=_LOG)

    def problem(self) -> str | None:
        """Return why questions are not answered, such as a wrong password; None if the connection says nothing."""
        # it hands out what it met when it is polled only
        self.client.poll(0)
        return self._problem

    def forget(self) -> None:
        """Take the connection for a good one: a question was answered."""
        self._problem = None

    def _remember(self, error: ck.KafkaError) -> None:
        # that all brokers are down follows each reason, and is none
        if error.code() != ck.KafkaError._ALL_BROKERS_DOWN:
            self._problem = error.str()


class _Consumer:
    def __init__(self, common: Mapping[str, Any], group: str, admin: _Admin) -> None:
        self._admin = admin
        self._group = group
        self._problem: str | None = None
        self._group_problem: str | None = None
        settings = {
            # bounds the messages that are fetched ahead, in memory
            "queued.max.messages.kbytes": 16_384,
            **common,
            "group.id": group,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            # an offset outside the log must never be replaced by another one silently
            "auto.offset.reset": "error",
            "isolation.level": "read_committed",
            # the only way to learn the position behind aborted messages and control records
            "enable.partition.eof": True,
            "allow.auto.create.topics": False,
            "error_cb": self._remember,
            "on_commit": self._reported,
        }
        try:
            self._consumer = ck.Consumer(settings, logger=_LOG)
        except ck.KafkaException as error:
            raise ConfigError(f"kafka.options: {_text(error)}") from None

    @property
    def problem(self) -> str | None:
        return self._problem

    @property
    def group_problem(self) -> str | None:
        return self._group_problem

    def look(self, names: Sequence[str]) -> Callable[[], Looked]:
        answers = self._admin.client.describe_topics(ck.TopicCollection(list(names)), request_timeout=_TIMEOUT_S)
        return lambda: {name: self._topic(name, answers[name]) for name in names}

    def _topic(self, name: str, answer: "Future[Any]") -> Topic | None:
        try:
            found = answer.result()
        except ck.KafkaException as error:
            if error.args[0].code() in _MISSING:
                return None
            raise self._failed(error) from None
        self._problem = None
        self._admin.forget()
        # the text form that Kafka's own tools show
        topic_id = str(found.topic_id).replace("+", "-").replace("/", "_")
        return Topic(name, topic_id, tuple(sorted(each.id for each in found.partitions)))

    def _failed(self, error: ck.KafkaException) -> BrokerError:
        # what the connection met says more than that a request was not answered
        met = self._problem or self._admin.problem()
        return BrokerError(_text(error) if met is None else f"{_text(error)} ({met})")

    def watermarks(self, place: Place) -> tuple[int, int]:
        # not by get_watermark_offsets: when one of its two questions has to be asked again, it takes the end of the log
        # for the beginning
        return self._end(place, ck.OFFSET_BEGINNING), self._end(place, ck.OFFSET_END)

    def _end(self, place: Place, which: int) -> int:
        try:
            (found,) = self._consumer.offsets_for_times([ck.TopicPartition(*place, which)], timeout=_TIMEOUT_S)
        except ck.KafkaException as error:
            raise self._failed(error) from None
        if found.error is not None:
            raise self._failed(ck.KafkaException(found.error)) from None
        return int(found.offset)

    def ends(self, places: Iterable[Place]) -> dict[Place, int]:
        latest: Any = ck_admin.OffsetSpec  # type: ignore[attr-defined]  # it is not in the list of exports
        wanted = {ck.TopicPartition(*place): latest.latest() for place in places}
        # not over the consumer's connection: there the answer waits behind the fetch that is under way
        answers = self._admin.client.list_offsets(
            wanted, request_timeout=_TIMEOUT_S, isolation_level=ck.IsolationLevel.READ_COMMITTED
        )
        try:
            return {(at.topic, at.partition): answer.result().offset for at, answer in answers.items()}
        except ck.KafkaException as error:
            raise self._failed(error) from None

    def offsets_at(self, places: Iterable[Place], time_ms: int) -> dict[Place, int]:
        wanted = [ck.TopicPartition(topic, partition, time_ms) for topic, partition in places]
        try:
            found = self._consumer.offsets_for_times(wanted, timeout=_TIMEOUT_S)
        except ck.KafkaException as error:
            raise BrokerError(_text(error)) from None
        offsets = {(each.topic, each.partition): each.offset for each in found}
        return {place: offset if offset >= 0 else self.watermarks(place)[1] for place, offset in offsets.items()}

    def assign(self, starts: Mapping[Place, int]) -> None:
        try:
            self._consumer.assign([ck.TopicPartition(*place, offset) for place, offset in starts.items()])
        except ck.KafkaException as error:
            raise BrokerError(_text(error)) from None

    def poll(self, max_messages: int, wait_s: float) -> Polled:
        first = self._consumer.poll(wait_s)
        batch = Polled([], {})
        if first is None:
            return batch
        found = [first]
        # the end of a partition is no reason to wait for more
        if max_messages > 1 and first.error() is None:
            found += self._consumer.consume(max_messages - 1, _FILL_S if wait_s else 0)
        for message in found:
            error = message.error()
            if error is None:
                batch.messages.append(Message(*_place(message), _offset(message), message.key(), message.value()))
            elif error.code() == ck.KafkaError._PARTITION_EOF:
                batch.positions[_place(message)] = _offset(message)
            elif error.code() in _PASSING:
                self._problem = error.str()
            elif error.code() in _GROUP:
                self._group_problem = self._forbidden()
            else:
                raise BrokerError(error.str())
        return batch

    def committed(self, places: Iterable[Place]) -> dict[Place, int]:
        # not over the admin client: librdkafka 2.16 aborts the process if the broker goes away meanwhile
        try:
            found = self._consumer.committed([ck.TopicPartition(*place) for place in places], timeout=_TIMEOUT_S)
        except ck.KafkaException as error:
            if error.args[0].code() in _GROUP:
                self._group_problem = self._forbidden()
                return {}
            raise self._failed(error) from None
        return {(at.topic, at.partition): at.offset for at in found if at.offset >= 0}

    def report(self, offsets: Mapping[Place, int]) -> None:
        places = [ck.TopicPartition(*place, offset) for place, offset in offsets.items()]
        try:
            self._consumer.commit(offsets=places, asynchronous=True)
        except ck.KafkaException as error:
            self._group_problem = _text(error)

    def _reported(self, error: ck.KafkaError | None, _: Any) -> None:
        if error is not None and error.code() in _GROUP:
            self._group_problem = self._forbidden()
        else:
            self._group_problem = None if error is None else error.str()

    def _forbidden(self) -> str:
        # one text, wherever it shows: the same problem is logged once
        return f"no access to group {self._group!r}"

    def close(self) -> None:
        # it waits for the last report, and does not return while a broker is frozen
        closing = threading.Thread(target=self._consumer.close, name=CLOSING, daemon=True)
        closing.start()
        closing.join(_CLOSE_S)

    def _remember(self, error: ck.KafkaError) -> None:
        self._problem = error.str()


class _Producer:
    def __init__(self, common: Mapping[str, Any]) -> None:
        try:
            # up to 5 ms are waited for a fuller request
            self._producer = ck.Producer({"linger.ms": 5, **common, "enable.idempotence": True}, logger=_LOG)
        except ck.KafkaException as error:
            raise ConfigError(f"kafka.options: {_text(error)}") from None
        self._failure: str | None = None

    def send(
        self, topic: str, key: bytes | None, value: bytes | None, headers: Mapping[str, bytes] | None = None
    ) -> None:
        given: dict[str, Any] = {} if headers is None else {"headers": list(headers.items())}
        for _ in range(2):
            try:
                self._producer.produce(topic, value, key, on_delivery=self._delivered, **given)
            except BufferError:
                self._producer.poll(_TIMEOUT_S)
            except ck.KafkaException as error:
                raise BrokerError(_text(error)) from None
            else:
                self._producer.poll(0)
                return
        raise BrokerError(f"the queue of messages to {topic} is full and does not drain")

    def flush(self, timeout_s: float) -> None:
        waiting = self._producer.flush(timeout_s)
        failure, self._failure = self._failure, None
        if waiting:
            self._producer.purge()
            self._producer.poll(0)
            self._failure = None
            raise BrokerError(f"{waiting} messages were not acknowledged within {timeout_s:g} s")
        if failure is not None:
            raise BrokerError(failure)

    def close(self) -> None:
        self._producer.flush(1)

    def _delivered(self, error: ck.KafkaError | None, _: Any) -> None:
        if error is not None:
            self._failure = error.str()


def _place(message: Any) -> Place:
    return message.topic(), message.partition()


def _offset(message: Any) -> int:
    return int(message.offset())


def _text(error: BaseException) -> str:
    return str(error.args[0].str() if isinstance(error, ck.KafkaException) else error)
