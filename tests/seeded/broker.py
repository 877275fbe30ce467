"""Model of a Kafka cluster behind the connector's contract: partitions as lists, and what a network does to them."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from recurra.connectors.kafka.contract import KafkaProducer, Looked, Message, Place, Polled, Topic
from recurra.engine.errors import BrokerError

# a control record of a transaction, or a message of an aborted one: takes an offset and is never read
GAP = b"\0gap"


class Broker:
    """The log. ``step`` is called whenever a client waits for it."""

    def __init__(self, topics: Mapping[str, int], step: Callable[[], None]) -> None:
        self.logs: dict[str, list[list[bytes | None]]] = {
            name: [[] for _ in range(count)] for name, count in topics.items()
        }
        self.step = step
        self.down = False
        self.reported: dict[Place, int] = {}

    def append(self, name: str, partition: int, payload: bytes | None) -> None:
        """Write one message."""
        self.logs[name][partition].append(payload)

    def end(self, place: Place) -> int:
        """Return the next offset of a partition."""
        return len(self.logs[place[0]][place[1]])

    def consumer(self) -> "Consumer":
        self.check()
        return Consumer(self)

    def producer(self) -> KafkaProducer:
        raise NotImplementedError

    def check(self) -> None:
        """Raise if nobody answers."""
        if self.down:
            raise BrokerError("connection refused")


class Consumer:
    """Reads as librdkafka does: while the broker is away it says so and brings nothing."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._positions: dict[Place, int] = {}

    @property
    def problem(self) -> str | None:
        return "all brokers are down" if self._broker.down else None

    @property
    def group_problem(self) -> str | None:
        return None

    def look(self, names: Sequence[str]) -> Callable[[], Looked]:
        def answer() -> Looked:
            self._broker.check()
            return {name: self._topic(name) for name in names}

        return answer

    def _topic(self, name: str) -> Topic | None:
        found = self._broker.logs.get(name)
        return None if found is None else Topic(name, f"id-of-{name}", tuple(range(len(found))))

    def watermarks(self, place: Place) -> tuple[int, int]:
        self._broker.check()
        return 0, self._broker.end(place)

    def ends(self, places: Iterable[Place]) -> dict[Place, int]:
        self._broker.check()
        return {place: self._broker.end(place) for place in places}

    def committed(self, places: Iterable[Place]) -> dict[Place, int]:
        self._broker.check()
        return {place: self._broker.reported[place] for place in places if place in self._broker.reported}

    def offsets_at(self, places: Iterable[Place], time_ms: int) -> dict[Place, int]:
        raise NotImplementedError

    def assign(self, starts: Mapping[Place, int]) -> None:
        self._positions = dict(starts)

    def poll(self, max_messages: int, wait_s: float) -> Polled:
        del wait_s
        self._broker.step()
        batch = Polled([], {})
        if self._broker.down:
            return batch
        for place, position in self._positions.items():
            name, partition = place
            for payload in self._broker.logs[name][partition][position:]:
                if len(batch.messages) == max_messages:
                    return batch
                if payload != GAP:
                    batch.messages.append(Message(name, partition, position, None, payload))
                position += 1
                self._positions[place] = position
            batch.positions[place] = position
        return batch

    def report(self, offsets: Mapping[Place, int]) -> None:
        self._broker.reported |= offsets

    def close(self) -> None:
        pass
