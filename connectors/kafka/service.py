"""Everything that one running engine does with Kafka, as one source."""

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import msgspec

from ...engine.config import Config
from ...engine.results import OutletHealth, Recommendation, RequestsHealth, SourceHealth
from ..apply import SourceEngine
from ..dead_letter import DeadLetters, FileDeadLetters
from .contract import KafkaClient, KafkaProducer
from .options import check_kafka
from .outlets import KafkaDeadLetters, RecommendationOutlet, RequestReply
from .source import KafkaSource

__all__ = ["KafkaService"]

_STOP_S = 2.0


class ServedEngine(SourceEngine, Protocol):
    """An engine that takes events and answers."""

    def recommend(self, user: str, k: int = 10, *, where: str | None = None) -> Recommendation:
        """Return the best items of a user."""
        ...


class KafkaService:
    """Reads ``kafka://HOST:PORT/TOPIC`` into an engine, with the outlets that the configuration names.

    Dead letters go to ``kafka.dead_letter_topic``, or to ``dead-letters.jsonl`` in ``folder``. Raises what
    ``KafkaSource`` raises, and ``InputError`` or ``ConfigError`` at once for an address or setting that is not valid.
    """

    def __init__(self, engine: ServedEngine, address: str, config: Config, folder: Path) -> None:
        kafka = config.kafka
        place, client = check_kafka(address, kafka)
        letters: DeadLetters = FileDeadLetters(folder / "dead-letters.jsonl")
        if kafka.dead_letter_topic is not None:
            letters = KafkaDeadLetters(_LateProducer(client), kafka.dead_letter_topic, letters)
        self._replies = None
        if kafka.request_topic is not None or kafka.reply_topic is not None:
            self._replies = RequestReply(engine, client, kafka)
        self._outlet = None
        if kafka.output_topic is not None:
            self._outlet = RecommendationOutlet(engine, _LateProducer(client), kafka.output_topic, kafka.output_k)
        changed = None if self._outlet is None else self._outlet.changed
        self._source = KafkaSource(engine, place, config, letters, client=client, on_report=changed)

    def run(self, stopped: threading.Event) -> None:
        """Read, and serve the outlets, until ``stopped`` is set."""
        # a source that has failed ends its outlets, but it is not for it to end the service
        ended = threading.Event()
        threads = []
        if self._outlet is not None:
            threads.append(threading.Thread(target=self._outlet.run, args=(ended,), name="recurra-outlet"))
        if self._replies is not None:
            threads.append(threading.Thread(target=self._replies.run, args=(ended,), name="recurra-replies"))
        for thread in threads:
            thread.daemon = True
            thread.start()
        try:
            self._source.run(stopped)
        finally:
            ended.set()
            for thread in threads:
                thread.join(_STOP_S)

    def health(self) -> SourceHealth:
        """Return the health of the source, with what the outlets have sent and what keeps them from it."""
        health = self._source.health()
        if self._outlet is not None:
            output = OutletHealth(self._outlet.sent, self._outlet.problem)
            health = msgspec.structs.replace(health, output=output)
        if self._replies is not None:
            health = msgspec.structs.replace(
                health, requests=RequestsHealth(self._replies.answered, self._replies.problem)
            )
        return health


class _LateProducer:
    """A producer that is made when it is first needed: at the start the broker may be away."""

    def __init__(self, client: KafkaClient) -> None:
        self._client = client
        self._lock = threading.Lock()
        self._producer: KafkaProducer | None = None

    def send(
        self, topic: str, key: bytes | None, value: bytes | None, headers: Mapping[str, bytes] | None = None
    ) -> None:
        with self._lock:
            if self._producer is None:
                self._producer = self._client.producer()
        self._producer.send(topic, key, value, headers)

    def flush(self, timeout_s: float) -> None:
        if self._producer is not None:
            self._producer.flush(timeout_s)

    def close(self) -> None:
        if self._producer is not None:
            self._producer.close()
