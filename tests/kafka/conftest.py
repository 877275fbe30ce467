"""A real broker, topics on it, and the service as a process of its own."""

import contextlib
import importlib.util
import itertools
import os
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import confluent_kafka as ck
import msgspec
import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from recurra.connectors.files import read_events
from recurra.engine.events import Event
from recurra.engine.store import Reader

_NUMBERS = itertools.count()


def _broker_module() -> ModuleType:
    path = Path(__file__).resolve().parents[1] / "support" / "broker" / "broker.py"
    spec = importlib.util.spec_from_file_location("recurra_test_broker", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _unavailable(reason: str) -> None:
    if "kafka" in os.environ.get("RECURRA_REQUIRE", "").split(","):
        pytest.fail(f"a Kafka broker is required: {reason}")
    pytest.skip(f"no Kafka broker: {reason}")


@pytest.fixture(scope="session")
def own_broker() -> Iterator[Any]:
    """A broker of our own, which tests may stop and start."""
    if "RECURRA_TEST_KAFKA" in os.environ:
        pytest.skip("RECURRA_TEST_KAFKA names a broker that tests may not stop")
    module = _broker_module()
    try:
        broker = module.Broker()
        broker.start()
    except module.BrokerUnavailableError as error:
        _unavailable(str(error))
    yield broker
    broker.close()


@pytest.fixture(scope="session")
def address(request: pytest.FixtureRequest) -> str:
    """HOST:PORT of the broker that RECURRA_TEST_KAFKA names, else of our own."""
    given = os.environ.get("RECURRA_TEST_KAFKA")
    return given or request.getfixturevalue("own_broker").address


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
        producer.list_topics(topic, timeout=10)
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


class Service:
    """``recurra run`` as a process; its directory outlives it."""

    def __init__(self, data: Path, source: str, options: Sequence[str]) -> None:
        self.data = data
        self.source = source
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self._log = data.with_suffix(".log")

    def start(self, **environment: str) -> None:
        """Start it; ``environment`` arms failpoints."""
        command = [sys.executable, "-m", "recurra.cli", "run", "--data", str(self.data), "--source", self.source]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "--api", "off", *self._options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONSAFEPATH": "1", **environment},
            )

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait(30)

    def terminate(self) -> tuple[int, float]:
        """Ask it to stop; returns the exit status and how many seconds it took."""
        assert self._process is not None
        asked = time.monotonic()
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(60), time.monotonic() - asked

    def wait(self, timeout_s: float = 120) -> int:
        """Wait until it ends by itself."""
        assert self._process is not None
        return self._process.wait(timeout_s)

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
def service(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    made: list[Service] = []

    def make(source: str, *options: str, name: str = "data") -> Service:
        made.append(Service(tmp_path / name, source, options or ("--train", "off")))
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
