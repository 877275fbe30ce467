"""Outlets to Kafka: dead letters, new recommendations, replies to requests."""

import itertools
import json
import logging
import threading
import time
from typing import Protocol

import msgspec

from ...engine.config import KafkaConfig
from ...engine.errors import BrokerError, ConfigError, InputError, RecurraError
from ...engine.results import IngestReport, Recommendation
from ..apply import Backoff
from ..dead_letter import DeadLetters
from .contract import KafkaClient, KafkaConsumer, KafkaProducer, Message, Topic
from .start import chosen_partitions

__all__ = ["KafkaDeadLetters", "RecommendationOutlet", "RequestReply"]

_LOG = logging.getLogger("recurra.kafka")
_FLUSH_S = 10.0
# the broker's default limit is 1 MB for a message with its headers
_MOST_BYTES = 900_000
_MOST_WAITING = 100_000
# answers that are acknowledged together
_AT_ONCE = 100
_LOOK_S = 0.5
# how often the request topic is looked at
_TOPIC_S = 1.0
_REQUEST = frozenset({"user", "k", "where", "id"})
_EXPECTED = 'expected {"user": "...", "k": 10, "where": "...", "id": "..."}, the last three as needed'


class KafkaDeadLetters:
    """Dead letters on a topic: the original bytes, with headers ``source``, ``position`` and ``reason``.

    A letter that the topic could not take because of its size goes to ``oversized``.
    """

    def __init__(self, producer: KafkaProducer, topic: str, oversized: DeadLetters) -> None:
        self._producer = producer
        self._topic = topic
        self._oversized = oversized

    def write(self, source: str, position: int, payload: bytes | None, reason: str) -> None:
        """Queue one letter."""
        if payload is not None and len(payload) > _MOST_BYTES:
            self._oversized.write(source, position, payload, reason)
            return
        headers = {"source": source, "position": str(position), "reason": reason}
        key = f"{source}@{position}".encode()
        self._producer.send(self._topic, key, payload, {name: text.encode() for name, text in headers.items()})

    def flush(self) -> None:
        """Return once the broker has acknowledged every letter."""
        self._oversized.flush()
        self._producer.flush(_FLUSH_S)

    def close(self) -> None:
        """Release the connection."""
        self._oversized.close()
        self._producer.close()


class _Answers(Protocol):
    """What the outlets need of the engine."""

    def recommend(self, user: str, k: int = 10, *, where: str | None = None) -> Recommendation:
        """Return the best items of a user."""
        ...


class RecommendationOutlet:
    """Writes the new top-k of every user whose history changed to a topic, keyed by user.

    A user whose events come faster than answers can be made gets one answer for several events. The topic gets what
    is true when the answer is made; an answer is lost if the process dies before it was sent, and comes again with the
    user's next event.
    """

    def __init__(self, engine: _Answers, producer: KafkaProducer, topic: str, k: int) -> None:
        self._engine = engine
        self._producer = producer
        self._topic = topic
        self._k = k
        self._waiting: dict[str, None] = {}
        self._news = threading.Condition()
        self.sent = self.dropped = 0
        self.problem: str | None = None

    def changed(self, report: IngestReport) -> None:
        """Queue the users of a report; returns at once. When too many wait, the oldest are left out."""
        with self._news:
            self._waiting.update(dict.fromkeys(report.users))
            while len(self._waiting) > _MOST_WAITING:
                del self._waiting[next(iter(self._waiting))]
                self.dropped += 1
            self._news.notify()

    def run(self, stopped: threading.Event) -> None:
        """Send until ``stopped`` is set."""
        backoff = Backoff(stopped)
        try:
            while not stopped.is_set():
                if users := self._next():
                    self._send(users, backoff)
        finally:
            self._producer.close()

    def _next(self) -> list[str]:
        """Return the users who have waited longest, and who wait no more; none if nobody comes for a while."""
        with self._news:
            if not self._waiting:
                self._news.wait(_LOOK_S)
            # a report may be of items only
            users = list(itertools.islice(self._waiting, _AT_ONCE))
            for user in users:
                del self._waiting[user]
        return users

    def _send(self, users: list[str], backoff: Backoff) -> None:
        sent = 0
        try:
            for user in users:
                if (answer := self._answer(user)) is not None:
                    self._producer.send(self._topic, user.encode(), answer)
                    sent += 1
            # a broker that takes nothing is noticed here only
            self._producer.flush(_FLUSH_S)
        except Exception as error:
            # nothing may end this thread while the engine runs
            self.problem = f"output topic {self._topic!r}: {error}"
            with self._news:
                self._waiting = dict.fromkeys(users) | self._waiting
            backoff.wait()
        else:
            self.sent += sent
            if sent == len(users):
                self.problem = None
            backoff.reset()

    def _answer(self, user: str) -> bytes | None:
        """Return a message with the user's list; None, and the reason is the problem, if there is none."""
        try:
            return _encoded(user, self._engine.recommend(user, self._k))
        except Exception as error:
            # the other users get theirs
            self.problem = f"no answer for the output topic: {error}"
            _LOG.exception("no answer for the output topic")
            return None


class RequestReply:
    """Answers requests of one topic on another.

    A request is ``{"user": ..., "k"?: ..., "where"?: ..., "id"?: ...}``; its reply has the request's key, ``id`` and
    either the answer or ``error``. Requests that came before the service listened are not answered: their senders have
    given up. An engine that ``kafka.partitions`` gives some partitions of the events answers what comes over the same
    partitions of the request topic: requests are keyed by user, like events.
    """

    def __init__(self, engine: _Answers, client: KafkaClient, config: KafkaConfig) -> None:
        if config.request_topic is None or config.reply_topic is None:
            raise ConfigError("kafka.request_topic and kafka.reply_topic go together: set both or none")
        self._engine = engine
        self._client = client
        self._config = config
        self._requests, self._replies = config.request_topic, config.reply_topic
        self._k = config.output_k
        self.answered = 0
        self.problem: str | None = None

    def run(self, stopped: threading.Event) -> None:
        """Answer until ``stopped`` is set; waits for a broker that is away."""
        backoff = Backoff(stopped)
        while not stopped.is_set():
            try:
                self._serve(stopped, backoff)
            except RecurraError as error:
                self.problem = str(error)
                backoff.wait()

    def _serve(self, stopped: threading.Event, backoff: Backoff) -> None:
        consumer = self._client.consumer()
        try:
            producer = self._client.producer()
            try:
                self._listen(consumer, producer, stopped, backoff)
            finally:
                producer.close()
        finally:
            consumer.close()

    def _listen(
        self, consumer: KafkaConsumer, producer: KafkaProducer, stopped: threading.Event, backoff: Backoff
    ) -> None:
        topic = self._topic(consumer)
        places = [(topic.name, partition) for partition in chosen_partitions(topic, self._config)]
        consumer.assign({place: consumer.watermarks(place)[1] for place in places})
        due_s = 0.0
        while not stopped.is_set():
            for message in consumer.poll(64, _LOOK_S).messages:
                producer.send(self._replies, message.key, self._reply(message))
                self.answered += 1
            if time.monotonic() >= due_s:
                due_s = time.monotonic() + _TOPIC_S
                if self._topic(consumer) != topic:
                    # more partitions, or made again
                    return
                producer.flush(_FLUSH_S)
                self.problem = None
                backoff.reset()

    def _topic(self, consumer: KafkaConsumer) -> Topic:
        topic = consumer.look([self._requests])()[self._requests]
        if topic is None:
            raise BrokerError(f"the broker has no topic {self._requests!r}")
        return topic

    def _reply(self, message: Message) -> bytes:
        reply: dict[str, object] = {}
        try:
            request = json.loads(message.value or b"")
            if not isinstance(request, dict):
                raise InputError(_EXPECTED)
            reply["id"] = request.get("id")
            if not isinstance(request.get("user"), str):
                raise InputError(_EXPECTED)
            if unknown := sorted(request.keys() - _REQUEST):
                raise InputError(f"unknown fields {', '.join(unknown)}; {_EXPECTED}")
            answer = self._engine.recommend(request["user"], request.get("k", self._k), where=request.get("where"))
            return _encoded(request["user"], answer, reply)
        except (RecurraError, ValueError, RecursionError) as error:
            # the sender gets the reason
            return json.dumps({**reply, "error": str(error)}).encode()
        except Exception as error:
            # nothing may end this thread while the engine runs
            _LOG.exception("no answer to a request")
            return json.dumps({**reply, "error": f"the engine failed: {error}"}).encode()


def _encoded(user: str, answer: Recommendation, head: dict[str, object] | None = None) -> bytes:
    body = {"user": user, "items": answer.items, "scores": answer.scores}
    return msgspec.json.encode({**(head or {}), **body, "version": answer.version, "source": answer.source})
