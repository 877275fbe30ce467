"""Topics on a real broker, services that read them, in this process and as one of its own."""

import contextlib
import itertools
import os
import re
import signal
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import confluent_kafka as ck
import msgspec
import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

import recurra
from recurra.connectors.files import read_events
from recurra.connectors.kafka import KafkaService
from recurra.engine.config import Config, KafkaConfig, MixConfig, StoreConfig, TrainingConfig
from recurra.engine.events import Event
from recurra.engine.store import Reader

CLIENTS = ("confluent", "kafka-python")
NOW_MS = 1_700_000_000_000

_NUMBERS = itertools.count()


@pytest.fixture(scope="session")
def admin(address: str) -> AdminClient:
    return AdminClient({"bootstrap.servers": address, "log_level": 0})


@pytest.fixture
def topic(admin: AdminClient) -> Callable[..., str]:
    """Make topics of their own for a test."""

    def make(partitions: int = 1, **config: str) -> str:
        name = f"test-{os.getpid()}-{next(_NUMBERS)}"
        admin.create_topics([NewTopic(name, partitions, 1, config=config)])[name].result(30)
        return name

    return make


Payload = bytes | Mapping[str, object] | None


@pytest.fixture(scope="session")
def produce(address: str) -> Callable[..., None]:
    """Write messages to a topic: a user's events to the partition that the user's id decides, if none is given."""
    producer = ck.Producer({"bootstrap.servers": address, "linger.ms": 5, "log_level": 0})

    def send(topic: str, messages: Sequence[Payload], partition: int | None = None, partitions: int = 1) -> None:
        # a partition that was just added is not known otherwise
        wanted = partitions if partition is None else partition + 1
        while len(producer.list_topics(topic, timeout=10).topics[topic].partitions) < wanted:
            time.sleep(0.05)
        for message in messages:
            key = str(message.get("user", "")).encode() if isinstance(message, Mapping) else b""
            at = zlib.crc32(key) % partitions if partition is None else partition
            value = msgspec.json.encode(message) if isinstance(message, Mapping) else message
            while True:
                try:
                    producer.produce(topic, value, key, partition=at)
                except BufferError:
                    producer.poll(0.1)
                else:
                    break
        assert producer.flush(60) == 0

    return send


@pytest.fixture(scope="session")
def produce_raw(address: str) -> Callable[[str, bytes | None, bytes | None, int], None]:
    """Write one message with any key and value."""
    producer = ck.Producer({"bootstrap.servers": address, "log_level": 0})

    def send(topic: str, key: bytes | None, value: bytes | None, partition: int) -> None:
        producer.produce(topic, value, key, partition=partition)
        assert producer.flush(60) == 0

    return send


class Service:
    """``recurra run`` as a process; its directory outlives it."""

    def __init__(self, forker: Any, data: Path, source: str, options: Sequence[str]) -> None:
        self.data = data
        self.source = source
        self._options = options
        self._forker = forker
        self._process: Any = None
        self._log = data.with_suffix(".log")

    def start(self, **environment: str) -> None:
        """Start it; ``environment`` arms failpoints."""
        self._log.touch()
        command = ["run", "--data", self.data, "--source", self.source, "--api", "off", *self._options]
        self._process = self._forker.start(command, self._log, **environment)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(30)

    def terminate(self) -> tuple[int, float]:
        """Ask it to stop; returns the exit status and how many seconds it took."""
        asked = time.monotonic()
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(60), time.monotonic() - asked

    def wait(self, timeout_s: float = 120) -> int:
        """Wait until it ends by itself."""
        status: int = self._process.wait(timeout_s)
        return status

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def until_reading(self, timeout_s: float = 60) -> None:
        """Wait until this start has come to read its source."""
        before = self.log().count("reading ")
        deadline = time.monotonic() + timeout_s
        while self.log().count("reading ") == before:
            assert self.running, self.log()
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.05)

    def until_read(self, wanted: int, timeout_s: float = 240) -> None:
        """Wait until the stored offsets add up to ``wanted`` messages."""
        deadline = time.monotonic() + timeout_s
        while stored_messages(self.data) < wanted:
            assert self.running, self.log()
            assert time.monotonic() < deadline, f"{stored_messages(self.data)} of {wanted}\n{self.log()}"
            time.sleep(0.5)

    def url(self) -> str:
        """Return where this start serves HTTP, if it was given an ``--api``; it must have come to read its source."""
        found: list[str] = re.findall(r"serving (http\S+)", self.log())
        return found[-1]

    def trainers(self) -> list[int]:
        """Return the training programs that work on this directory, by process id."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                command = (folder / "cmdline").read_bytes().split(b"\0")
                if b"recurra.engine.training" in command and any(str(self.data).encode() in part for part in command):
                    found.append(int(folder.name))
        return found

    def close(self) -> None:
        if self.running:
            self.kill()


def stored_messages(data: Path) -> int:
    """Return the sum of the stored offsets of a store, 0 while there is none."""
    if not (data / "store").exists():
        return 0
    try:
        with Reader.open(data / "store") as store:
            return sum(store.offsets().values())
    except Exception:
        # the store is just being made or opened again
        return 0


@pytest.fixture
def service(forker: Any, tmp_path: Path) -> Iterator[Callable[..., Service]]:
    made: list[Service] = []

    def make(source: str, *options: str, name: str = "data") -> Service:
        made.append(Service(forker, tmp_path / name, source, options or ("--train", "off")))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def ml_100k(shared_data: Callable[[str], Path]) -> Callable[..., list[dict[str, object]]]:
    """Return the events of ML-100k in the order of time, as they go over the wire."""

    def read(limit: int | None = None) -> list[dict[str, object]]:
        events = read_events(shared_data("ml-100k/ml-100k.inter"), limit=limit).events
        return [
            {"user": e.user, "item": e.item, "time": e.time_ms, "weight": e.weight}
            for e in events
            if isinstance(e, Event)
        ]

    return read


def config(client: str = "confluent", *, batch_events: int = 512, **kafka: object) -> Config:
    return Config(
        training=TrainingConfig(mode="off"),
        mix=MixConfig(budget=0.0, sample=0.1),
        store=StoreConfig(batch_events=batch_events, hot_histories=256, log_events=10_000),
        kafka=KafkaConfig(client=client, **kafka),  # type: ignore[arg-type]
    )


def event(number: int, user: str | None = None, **fields: object) -> dict[str, object]:
    return {"user": user or f"u{number % 7}", "item": f"i{number % 11}", "time": NOW_MS + number * 1_000, **fields}


class Run:
    """A service that reads in a thread; its failure is raised when it is stopped."""

    def __init__(self, engine: recurra.Engine, source: str, settings: Config, folder: Path) -> None:
        self.service = KafkaService(engine, source, settings, folder)
        self._engine = engine
        self._stopped = threading.Event()
        self._failure: Exception | None = None
        # a test that fails leaves it behind
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def until(self, done: Callable[[], bool], timeout_s: float = 60) -> None:
        deadline = time.monotonic() + timeout_s
        while not done():
            assert self._thread.is_alive(), self._failure
            assert time.monotonic() < deadline, (self.service.health(), self._engine.offsets())
            time.sleep(0.05)

    def until_read(self, wanted: int) -> None:
        self.until(lambda: sum(self._engine.offsets().values()) >= wanted)

    def lists_sent(self) -> int:
        """Return how many lists the output topic has acknowledged."""
        output = self.service.health().output
        assert output is not msgspec.UNSET
        return output.sent

    def until_ended(self, timeout_s: float = 60) -> None:
        self._thread.join(timeout_s)
        assert not self._thread.is_alive()

    def until_failed(self, timeout_s: float = 60) -> None:
        """Wait until it ends by itself, and raise what ended it."""
        self.until_ended(timeout_s)
        assert self._failure is not None
        raise self._failure

    def stop(self) -> None:
        self._stopped.set()
        self.until_ended(10)
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            self.service.run(self._stopped)
        except Exception as error:
            self._failure = error


@pytest.fixture
def run(address: str, tmp_path: Path) -> Callable[..., Any]:
    """Open an engine, read a topic up to a number of messages, close; returns (digest, health, folder)."""

    def read(
        topic: str, wanted: int, settings: Config | None = None, name: str = "data"
    ) -> tuple[str, recurra.SourceHealth, Path]:
        settings = settings or config()
        folder = tmp_path / name
        with recurra.open(folder, settings) as engine:
            reader = Run(engine, f"kafka://{address}/{topic}", settings, folder)
            try:
                reader.until_read(wanted)
            finally:
                reader.stop()
            return engine.digest(), reader.service.health(), folder

    return read
