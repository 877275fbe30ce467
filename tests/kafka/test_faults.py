"""The broker, the connection and the topic go wrong while the engine reads: health says so, and the audit is exact."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions, NewTopic

import recurra
from recurra.connectors.audit import audit
from recurra.connectors.kafka import confluent, outlets
from recurra.engine.config import Config
from recurra.engine.errors import SourceMismatchError
from recurra.engine.results import IngestReport, SourceHealth

from .conftest import CLIENTS, Run, config, event

# kafka-python reads its own files by a function that newer Pythons advise against
pytestmark = [pytest.mark.kafka, pytest.mark.filterwarnings("ignore:(read|open)_text is deprecated:DeprecationWarning")]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let clients lose patience after two seconds instead of five."""
    # not at the top: its import warns, and only tests are excused
    from recurra.connectors.kafka import kafka_python

    monkeypatch.setattr(confluent, "_TIMEOUT_S", 2.0)
    monkeypatch.setattr(kafka_python, "_TIMEOUT_MS", 2_000)


@contextmanager
def reading(source: str, settings: Config, folder: Path, count: int) -> Iterator[tuple[recurra.Engine, Run]]:
    """Open an engine that has read so many messages, and is connected."""
    with recurra.open(folder / "data", settings) as engine:
        reader = Run(engine, source, settings, folder)
        reader.until_read(count)
        reader.until(lambda: reader.service.health().connected)
        yield engine, reader


def made_again(admin: AdminClient, name: str) -> None:
    admin.delete_topics([name])[name].result(30)
    deadline = time.monotonic() + 30
    while True:
        try:
            admin.create_topics([NewTopic(name, 1, 1)])[name].result(30)
        except Exception:
            # the name is free only once the deletion is through
            assert time.monotonic() < deadline
            time.sleep(0.02)
        else:
            return


@pytest.mark.parametrize(("client", "idle_s"), [("confluent", None), ("kafka-python", None), ("confluent", 0.5)])
def test_nothing_of_a_topic_that_was_made_again_is_applied(
    topic: Any, produce: Any, admin: AdminClient, proxy: Any, tmp_path: Path, client: str, idle_s: float | None
) -> None:
    name = topic(1)
    produce(name, [event(number) for number in range(300)], partition=0)
    settings = config(client)
    with reading(f"kafka://{proxy.address}/{name}", settings, tmp_path, 300) as (engine, reader):
        proxy.idle_s = idle_s
        digest = engine.digest()
        made_again(admin, name)
        # more than the old topic had: the stored offset is inside the new one
        produce(name, [event(number, user=f"foreign{number % 50}") for number in range(2_000)], partition=0)
        with pytest.raises(SourceMismatchError, match="deleted and made again"):
            reader.until_failed()
        assert engine.digest() == digest
        assert sum(engine.offsets().values()) == 300
        assert not reader.service.health().connected


@pytest.mark.parametrize("client", CLIENTS)
def test_a_partition_added_while_it_runs_is_read_from_its_beginning_within_seconds(
    address: str, topic: Any, produce: Any, admin: AdminClient, tmp_path: Path, client: str
) -> None:
    name = topic(1)
    produce(name, [event(number) for number in range(70)], partition=0)
    settings = config(client)
    with recurra.open(tmp_path / "data", settings) as engine:
        reader = Run(engine, f"kafka://{address}/{name}", settings, tmp_path)
        reader.until_read(70)
        admin.create_partitions([NewPartitions(name, 2)])[name].result(30)
        # the same users, now over another partition
        produce(name, [event(number) for number in range(70, 140)], partition=1)
        reader.until(lambda: sum(engine.offsets().values()) == 140, timeout_s=15)
        reader.until(lambda: reader.service.health().lag == {f"{name}/0": 0, f"{name}/1": 0})
        reader.stop()
        assert engine.registry.get_sample_value("recurra_records_total", {"outcome": "moved"}) == 70
    assert audit(tmp_path / "data", f"kafka://{address}/{name}", settings).ok


class Watch:
    """Looks at the health of a service many times a second."""

    def __init__(self, health: Callable[[], SourceHealth]) -> None:
        self.seen: list[tuple[float, bool, str | None]] = []
        self._health = health
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        began = time.monotonic()
        while not self._ended.wait(0.05):
            health = self._health()
            self.seen.append((time.monotonic() - began, health.connected, health.problem))

    def changes(self) -> list[bool]:
        states = [connected for _, connected, _ in self.seen]
        return [state for at, state in enumerate(states) if at == 0 or states[at - 1] != state]

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


@contextmanager
def _frozen(broker: Any, proxy: Any) -> Iterator[None]:
    broker.freeze()
    try:
        yield
    finally:
        broker.thaw()


@contextmanager
def _hole(broker: Any, proxy: Any) -> Iterator[None]:
    proxy.hole = True
    try:
        yield
    finally:
        proxy.heal()


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("broken", [_frozen, _hole])
def test_health_is_not_connected_while_nothing_can_come(
    own_broker: Any, proxy: Any, topic: Any, produce: Any, tmp_path: Path, client: str, broken: Any
) -> None:
    name = topic(2)
    produce(name, [event(number) for number in range(300)], partitions=2)
    settings = config(client)
    with reading(f"kafka://{proxy.address}/{name}", settings, tmp_path, 300) as (engine, reader):
        with broken(own_broker, proxy), Watch(reader.service.health) as watch:
            reader.until(lambda: not reader.service.health().connected, timeout_s=6)
            # long enough for several more tries
            time.sleep(5)
            assert engine.history("u1")
        # once, and it stays
        assert watch.changes() == [True, False], watch.seen
        assert all(problem for _, connected, problem in watch.seen if not connected)
        produce(name, [event(number) for number in range(300, 600)], partitions=2)
        reader.until(lambda: sum(engine.offsets().values()) == 600, timeout_s=15)
        reader.until(lambda: reader.service.health().connected, timeout_s=15)
        reader.stop()
    found = audit(tmp_path / "data", f"kafka://{own_broker.address}/{name}", settings)
    assert found.ok, found


@pytest.mark.parametrize("client", CLIENTS)
def test_slow_and_cut_connections_lose_nothing(
    own_broker: Any, proxy: Any, topic: Any, produce: Any, tmp_path: Path, client: str
) -> None:
    name = topic(2)
    produce(name, [event(number) for number in range(300)], partitions=2)
    settings = config(client)
    with reading(f"kafka://{proxy.address}/{name}", settings, tmp_path, 300) as (engine, reader):
        with Watch(reader.service.health) as watch:
            proxy.delay_s = 0.2
            for start in range(300, 600, 100):
                produce(name, [event(number) for number in range(start, start + 100)], partitions=2)
                time.sleep(1)
            reader.until_read(600)
        # slow is not away
        assert watch.changes() == [True], watch.seen
        proxy.heal()
        for start in range(600, 1_000, 100):
            proxy.cut()
            produce(name, [event(number) for number in range(start, start + 100)], partitions=2)
            time.sleep(0.5)
        reader.until(lambda: sum(engine.offsets().values()) == 1_000, timeout_s=15)
        reader.until(lambda: reader.service.health().connected, timeout_s=15)
        reader.stop()
    found = audit(tmp_path / "data", f"kafka://{own_broker.address}/{name}", settings)
    assert found.ok, found
    assert found.events == 1_000


@pytest.mark.parametrize("client", ["confluent", pytest.param("kafka-python", marks=pytest.mark.slow)])
def test_a_service_stops_in_time_though_the_broker_stands_still(
    own_broker: Any, topic: Any, produce: Any, service: Any, tmp_path: Path, client: str
) -> None:
    name = topic(1)
    produce(name, [event(number) for number in range(100)], partition=0)
    (tmp_path / "recurra.toml").write_text(f'[kafka]\nclient = "{client}"\n')
    runner = service(
        f"kafka://{own_broker.address}/{name}", "--train", "off", "--config", str(tmp_path / "recurra.toml")
    )
    runner.start()
    runner.until_read(100)
    own_broker.freeze()
    try:
        # the next question is under way
        time.sleep(1.5)
        status, seconds = runner.terminate()
    finally:
        own_broker.thaw()
    assert status == 0, runner.log()
    assert seconds < 5


@pytest.mark.slow
@pytest.mark.parametrize("client", CLIENTS)
def test_a_batch_slower_than_the_longest_pause_between_polls_is_applied_once(
    address: str, topic: Any, produce: Any, tmp_path: Path, client: str
) -> None:
    name = topic(1)
    produce(name, [event(number) for number in range(300)], partition=0)
    settings = config(client, options={"max.poll.interval.ms": 6_000, "session.timeout.ms": 6_000})
    with recurra.open(tmp_path / "data", settings) as engine:
        reader = Run(engine, f"kafka://{address}/{name}", settings, tmp_path)
        reader.until_read(300)
        # nothing is applied while another thread writes
        with engine._write:
            produce(name, [event(number) for number in range(300, 600)], partition=0)
            time.sleep(9)
        produce(name, [event(number) for number in range(600, 900)], partition=0)
        reader.until(lambda: sum(engine.offsets().values()) == 900, timeout_s=15)
        reader.until(lambda: reader.service.health().connected)
        reader.stop()
    found = audit(tmp_path / "data", f"kafka://{address}/{name}", settings)
    assert found.ok, found
    assert found.events == 900


def test_a_full_disk_is_waited_out(
    address: str, topic: Any, produce: Any, service: Any, small_disk: Path, fill_up: Callable[..., Path], tmp_path: Path
) -> None:
    name = topic(2)
    produce(name, [event(number) for number in range(300)], partitions=2)
    (tmp_path / "data").symlink_to(small_disk)
    runner = service(f"kafka://{address}/{name}", "--train", "off")
    runner.start()
    runner.until_read(300)
    ballast = fill_up(small_disk)
    produce(name, [event(number, f"{number % 97}-{'x' * 400}") for number in range(300, 20_000)], partitions=2)
    deadline = time.monotonic() + 60
    while "No space left" not in runner.log():
        assert runner.running, runner.log()
        assert time.monotonic() < deadline, runner.log()
        time.sleep(0.1)
    # for as long as it lasts
    time.sleep(3)
    assert runner.running
    ballast.unlink()
    runner.until_read(20_000)
    assert runner.terminate()[0] == 0
    assert audit(tmp_path / "data", f"kafka://{address}/{name}", config()).ok


def test_an_output_topic_that_takes_nothing_is_a_problem_and_gets_its_lists_later(
    own_broker: Any, topic: Any, produce: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outlets, "_FLUSH_S", 2.0)
    name, output = topic(1), topic(1)
    settings = config(output_topic=output)
    with recurra.open(tmp_path / "data", settings) as engine:
        reader = Run(engine, f"kafka://{own_broker.address}/{name}", settings, tmp_path)
        produce(name, [event(number) for number in range(7)], partition=0)
        reader.until(lambda: reader.lists_sent() == 7)
        own_broker.freeze()
        try:
            outlet = reader.service._outlet
            assert outlet is not None
            # two users whose events were read just before
            outlet.changed(IngestReport(applied=1, users=["u1", "u2"]))
            reader.until(lambda: "output" in reader.service.health().problems)
            assert "not acknowledged" in reader.service.health().problems["output"]
            assert reader.lists_sent() == 7
        finally:
            own_broker.thaw()
        reader.until(lambda: reader.lists_sent() == 9)
        assert "output" not in reader.service.health().problems
        reader.stop()
