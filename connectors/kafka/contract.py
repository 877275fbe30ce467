"""Contract of a Kafka client, kept by every client library behind it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

__all__ = ["CLOSING", "KafkaClient", "KafkaConsumer", "KafkaProducer", "Looked", "Message", "Place", "Polled", "Topic"]

# name of the thread in which a client is closed that does not return at once
CLOSING = "recurra-kafka-close"
# a topic's name and one of its partitions
Place = tuple[str, int]


class Message(NamedTuple):
    """One message as it lies in the log; ``value`` None is a tombstone."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None


class Polled(NamedTuple):
    """Result of one poll.

    ``positions`` are next offsets that the client knows beyond the messages: the end of a partition, or the place
    behind aborted transactions and control records, which are never messages.
    """

    messages: list[Message]
    positions: dict[Place, int]


class Topic(NamedTuple):
    """A topic as the broker knows it; a topic that was deleted and made again has another ``id``."""

    name: str
    id: str
    partitions: tuple[int, ...]


# topics by name; None: the broker has none of that name
Looked = dict[str, Topic | None]


class KafkaConsumer(Protocol):
    """Reads given partitions from given offsets; never asks the broker where a group has got to.

    One thread uses it. Every method raises ``BrokerError`` when the broker cannot be reached in time or refuses; the
    caller then closes this consumer and makes another one later. While partitions are assigned a lost broker is no
    error of ``poll``, which brings nothing: the next ``look`` shows it.
    """

    def look(self, names: Sequence[str]) -> Callable[[], Looked]:
        """Ask the broker for topics as they are from this call on; what is returned waits for the answer.

        Never answers from what the client knew before.
        """
        ...

    def watermarks(self, place: Place) -> tuple[int, int]:
        """Return the offset of the first message that is still kept and of the next one that will be readable."""
        ...

    def ends(self, places: Iterable[Place]) -> dict[Place, int]:
        """Return the offset of the next message that will be readable, for each of these partitions."""
        ...

    def offsets_at(self, places: Iterable[Place], time_ms: int) -> dict[Place, int]:
        """Return per partition the first offset whose message's time is ``time_ms`` or later, else the end."""
        ...

    def assign(self, starts: Mapping[Place, int]) -> None:
        """Read from exactly these partitions and offsets; replaces what was assigned before."""
        ...

    def poll(self, max_messages: int, wait_s: float) -> Polled:
        """Wait up to ``wait_s`` for a first message, then up to 20 ms for more; 0 takes what has arrived.

        Aborted transactions are left out. An offset that is no longer kept raises ``BrokerError``; nothing is skipped.
        """
        ...

    def committed(self, places: Iterable[Place]) -> dict[Place, int]:
        """Return the next offsets that the group has on the broker, for those of these partitions that have one.

        None at all where the group may not be read, which is then the ``group_problem``.
        """
        ...

    def report(self, offsets: Mapping[Place, int]) -> None:
        """Commit next offsets to the group without waiting, for lag monitors only; failures are logged."""
        ...

    @property
    def problem(self) -> str | None:
        """What the client last heard about the connection, None after an answer; for the reason of a failure."""
        ...

    @property
    def group_problem(self) -> str | None:
        """Why offsets cannot be reported to the group, or None; reading does not need the group."""
        ...

    def close(self) -> None:
        """Release the connections; nothing may be called after it."""
        ...


class KafkaProducer(Protocol):
    """Writes messages; ``send`` may be called by several threads."""

    def send(
        self, topic: str, key: bytes | None, value: bytes | None, headers: Mapping[str, bytes] | None = None
    ) -> None:
        """Queue one message; raises ``BrokerError`` if the queue is full and does not drain."""
        ...

    def flush(self, timeout_s: float) -> None:
        """Return once every message queued before is acknowledged; else raise ``BrokerError`` and drop the rest."""
        ...

    def close(self) -> None:
        """Release the connections; what is still queued may be lost."""
        ...


class KafkaClient(Protocol):
    """Makes consumers and producers for one cluster."""

    def consumer(self) -> KafkaConsumer:
        """Return a consumer without partitions; may raise ``BrokerError``."""
        ...

    def producer(self) -> KafkaProducer:
        """Return a producer; may raise ``BrokerError``."""
        ...
