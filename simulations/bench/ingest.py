"""``recurra bench ingest``: how many events a second an engine takes in, and how soon they change an answer."""

import contextlib
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from ...connectors.kafka import KafkaService, kafka_client
from ...engine.config import Config
from ...engine.engine import Engine
from ...engine.engine import open as open_engine
from ...engine.errors import BrokerError, InputError
from ...engine.events import Event
from .fixtures import made_events, publish_random

__all__ = ["bench_ingest"]

_PARTITIONS = 4
_DEFAULT_BROKER = "127.0.0.1:9092"
# this share of the events compiles kernels and fills caches before anything is measured
_WARM = 0.2
_PROBE_PAUSE_S = 0.02
_LOOK_S = 0.002
_PATIENCE_S = 300.0


def bench_ingest(
    source: str = "memory",
    train: bool = False,
    broker: str | None = None,
    *,
    events: int = 60_000,
    users: int = 5_000,
    items: int = 2_000,
    stream_rate: float = 12_000.0,
    rate: float = 500.0,
    seconds: float = 15.0,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure an engine with states, memories and a version of random weights; return the JSON of the command.

    First ``events`` events are taken in as fast as they can be, durably, from a topic filled before (``source``
    "kafka") or from batches in memory ("memory"). By their times they are ``stream_rate`` a second, which decides from
    how many of them the mixture learns (``mix.budget``); ``mix_sample`` is that share. Then events come at ``rate`` a
    second, and probes measure the time from the production of an event to the first answer that it changed. ``broker``
    is HOST:PORT; None takes RECURRA_TEST_KAFKA, a broker at 127.0.0.1:9092, or starts the one of the tests. Raises
    ``InputError`` for another source, ``BrokerError`` if no broker can be had.
    """
    if source not in ("kafka", "memory"):
        raise InputError(f"expected kafka or memory as the source of a benchmark, got {source!r}")
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="recurra-bench-")))
        stream = made_events(events, users, items, seed, span_ms=round(1000 * events / stream_rate))
        publish_random(folder, items, seed)
        config = _config(train, seed)
        engine = stack.enter_context(open_engine(folder, config))
        inlet: _Inlet = _Memory(engine)
        if source == "kafka":
            inlet = _Topic(engine, stack.enter_context(_broker(broker)), config, folder)
        stack.callback(inlet.close)
        throughput = inlet.drain(stream)
        learnt = engine.stats()["mix_share"]
        visible = _visible(engine, inlet, rate, seconds, users, items, seed)
        return {
            "source": source,
            "events_per_s": round(throughput.events_per_s),
            "visible_ms_p50": round(statistics.median(visible), 1),
            "visible_ms_p99": round(float(np.percentile(visible, 99)), 1),
            "cpu_us_per_event": round(throughput.cpu_us_per_event, 1),
            "mix_sample": round(learnt, 4),
            "events": events,
            "users": users,
            "items": items,
            "stream_rate": stream_rate,
            "rate": rate,
            "probes": len(visible),
            "train": train,
            "version": engine.version,
            "seed": seed,
        }


class _Throughput(NamedTuple):
    events_per_s: float
    cpu_us_per_event: float


class _Inlet(ABC):
    """One way for events to come in."""

    @abstractmethod
    def drain(self, stream: list[Event]) -> _Throughput:
        """Take in a stream as fast as possible and measure all but its beginning."""

    @abstractmethod
    def produce(self, event: Event) -> None:
        """Let one event come in; returns at once."""

    @abstractmethod
    def close(self) -> None:
        """Stop."""


class _Memory(_Inlet):
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def drain(self, stream: list[Event]) -> _Throughput:
        size = self._engine.config.store.batch_events
        batches = [stream[start : start + size] for start in range(0, len(stream), size)]
        warm = int(len(batches) * _WARM)
        for batch in batches[:warm]:
            self._engine.ingest(batch)
        stopwatch = _Stopwatch()
        for batch in batches[warm:]:
            self._engine.ingest(batch)
        self._engine.sync()
        return stopwatch.stop(len(stream) - warm * size)

    def produce(self, event: Event) -> None:
        self._engine.ingest([event])

    def close(self) -> None:
        """Leave the engine, which is its owner's, as it is."""


class _Topic(_Inlet):
    def __init__(self, engine: Engine, broker: str, config: Config, folder: Path) -> None:
        self._engine = engine
        self._topic = f"recurra-bench-{uuid.uuid4().hex[:12]}"
        self._broker = broker
        self._service = KafkaService(engine, f"kafka://{broker}/{self._topic}", config, folder)
        self._producer = kafka_client(broker, config.kafka).producer()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._service.run, args=(self._stopped,), name="recurra-source")

    def drain(self, stream: list[Event]) -> _Throughput:
        _create_topic(self._broker, self._topic)
        for event in stream:
            self._producer.send(self._topic, event.user.encode(), _message(event))
        self._producer.flush(60)
        warm = int(len(stream) * _WARM)
        self._thread.start()
        self._until(lambda: self._read() >= warm)
        begun, stopwatch = self._read(), _Stopwatch()
        self._until(lambda: self._read() >= len(stream))
        self._engine.sync()
        return stopwatch.stop(len(stream) - begun)

    def produce(self, event: Event) -> None:
        self._producer.send(self._topic, event.user.encode(), _message(event))

    def close(self) -> None:
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()
        self._producer.close()

    def _read(self) -> int:
        return sum(self._engine.offsets().values())

    def _until(self, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while not done():
            if not self._thread.is_alive() or time.monotonic() > deadline:
                raise BrokerError(f"the topic was not read to its end: {self._service.health().problem}")
            # looking takes the store's lock and the interpreter from the one that is measured
            time.sleep(0.05)


class _Stopwatch:
    def __init__(self) -> None:
        self._began_s, self._cpu_s = time.perf_counter(), time.process_time()

    def stop(self, events: int) -> _Throughput:
        seconds, cpu_s = time.perf_counter() - self._began_s, time.process_time() - self._cpu_s
        return _Throughput(events / seconds, cpu_s / events * 1e6)


def _visible(
    engine: Engine, inlet: _Inlet, rate: float, seconds: float, users: int, items: int, seed: int
) -> list[float]:
    """Return the milliseconds from the production of an event to the first answer without its item.

    The item is the one that the user would have been given first; an item that the user had is never given again.
    """
    stop = threading.Event()
    rng = np.random.default_rng(seed + 1)

    def load() -> None:
        began = time.perf_counter()
        number = 0
        while not stop.wait(max(0.0, began + number / rate - time.perf_counter())):
            user, item = int(rng.integers(users // 2)), int(rng.integers(items))
            inlet.produce(Event(f"user-{user}", f"item-{item}", time.time_ns() // 1_000_000))
            number += 1

    thread = threading.Thread(target=load, name="recurra-load")
    thread.start()
    found: list[float] = []
    try:
        end = time.perf_counter() + seconds
        # the load and the probes have different users: a probe's answer changes by the probe's event only
        for probe in range(1_000_000):
            user = f"user-{users // 2 + probe % (users - users // 2)}"
            first = engine.recommend(user, 10).items[0]
            produced = time.perf_counter()
            inlet.produce(Event(user, first, time.time_ns() // 1_000_000))
            while first in engine.recommend(user, 10).items:
                if time.perf_counter() > end + _PATIENCE_S:
                    raise BrokerError("an event did not become visible")
                time.sleep(_LOOK_S)
            found.append((time.perf_counter() - produced) * 1000)
            if time.perf_counter() > end:
                break
            time.sleep(_PROBE_PAUSE_S)
    finally:
        stop.set()
        thread.join()
    return found


def _config(train: bool, seed: int) -> Config:
    config = Config(seed=seed)
    return msgspec.structs.replace(
        config, training=msgspec.structs.replace(config.training, mode="auto" if train else "off")
    )


def _message(event: Event) -> bytes:
    return msgspec.json.encode({"user": event.user, "item": event.item, "time": event.time_ms})


def _create_topic(broker: str, topic: str) -> None:
    admin = AdminClient({"bootstrap.servers": broker, "log_level": 0})
    try:
        admin.create_topics([NewTopic(topic, _PARTITIONS, 1)])[topic].result(30)
    except KafkaException as error:
        raise BrokerError(f"cannot make a topic at {broker}: {error.args[0].str()}") from None


@contextlib.contextmanager
def _broker(given: str | None) -> Iterator[str]:
    """Find a broker or start one for the time of the block."""
    address = given or os.environ.get("RECURRA_TEST_KAFKA")
    if address is not None or _answers(_DEFAULT_BROKER):
        yield address or _DEFAULT_BROKER
        return
    script = Path(__file__).resolve().parents[2] / "tests" / "support" / "broker" / "broker.py"
    if not script.exists():
        raise BrokerError(f"no broker at {_DEFAULT_BROKER}; name one, or run this in a checkout, which can start one")
    with subprocess.Popen([sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            line = process.stdout.readline().decode().strip()
            if not line:
                raise BrokerError("the broker of the tests did not start; it needs Java 17 and Maven")
            yield line
        finally:
            process.terminate()


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((host, int(port))) == 0
