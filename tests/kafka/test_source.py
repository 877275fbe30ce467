"""The source against a real broker, with each client, feeding a real engine in this process."""

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import confluent_kafka as ck
import msgspec
import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions, NewTopic

import recurra
from recurra.connectors.audit import audit
from recurra.connectors.dead_letter import read_dead_letters
from recurra.connectors.kafka import KafkaService, facts_of
from recurra.engine.config import Config, KafkaConfig, MixConfig, StoreConfig, TrainingConfig
from recurra.engine.errors import ConfigError, SourceBehindError, SourceMismatchError

# kafka-python reads its own files by a function that newer Pythons advise against
pytestmark = [pytest.mark.kafka, pytest.mark.filterwarnings("ignore:(read|open)_text is deprecated:DeprecationWarning")]

CLIENTS = ("confluent", "kafka-python")
DAY_MS = 86_400_000
NOW_MS = 1_700_000_000_000


def config(client: str = "confluent", *, batch_events: int = 512, **kafka: object) -> Config:
    return Config(
        training=TrainingConfig(mode="off"),
        mix=MixConfig(sample=0.1),
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
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def until(self, done: Callable[[], bool], timeout_s: float = 60) -> None:
        deadline = time.monotonic() + timeout_s
        while not done():
            assert self._thread.is_alive(), self._failure
            assert time.monotonic() < deadline, (self.service.health(), self._engine.offsets())
            time.sleep(0.05)

    def until_read(self, wanted: int) -> None:
        self.until(lambda: sum(self._engine.offsets().values()) >= wanted)

    def until_ended(self, timeout_s: float = 60) -> None:
        self._thread.join(timeout_s)
        assert not self._thread.is_alive()

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


def sent(reader: Run) -> int:
    output = reader.service.health().output
    assert output is not msgspec.UNSET
    return output.sent


def answered(reader: Run) -> int:
    requests = reader.service.health().requests
    assert requests is not msgspec.UNSET
    return requests.answered


@pytest.mark.parametrize("client", CLIENTS)
def test_a_restart_goes_on_where_the_store_is(
    address: str, topic: Any, produce: Any, run: Any, client: str, admin: AdminClient
) -> None:
    name = topic(3)
    produce(name, [event(number) for number in range(1_000)], partitions=3)
    run(name, 1_000, config(client, group=f"group-{name}"))
    produce(name, [event(number) for number in range(1_000, 1_500)], partitions=3)
    # a group offset that is far ahead must not be believed
    ahead = ck.Consumer({"bootstrap.servers": address, "group.id": f"group-{name}"})
    ahead.commit(offsets=[ck.TopicPartition(name, 0, 10_000)], asynchronous=False)
    ahead.close()
    _, health, folder = run(name, 1_500, config(client, group=f"group-{name}"))
    assert health.messages == 500
    found = audit(folder, f"kafka://{address}/{name}", config(client))
    assert found.ok, found
    assert found.events == 1_500


def test_both_clients_and_every_batch_size_give_the_same_digest(topic: Any, produce: Any, run: Any) -> None:
    name = topic(2)
    produce(name, [event(number * 7 % 400, weight=number / 3) for number in range(600)], partitions=2)
    digests = {
        (client, size): run(name, 600, config(client, batch_events=size), name=f"{client}-{size}")[0]
        for client, size in (("confluent", 1), ("confluent", 7), ("confluent", 512), ("kafka-python", 512))
    }
    assert len(set(digests.values())) == 1, digests


POISON = {
    "not JSON": b"{user: 1}",
    "wrong types": json.dumps({"user": [], "item": {}, "time": "x"}).encode(),
    "missing field": b'{"user":"u1","time":1}',
    "null": b"null",
    "NaN": b'{"user":"u1","item":"i1","time":NaN}',
    "too large": b'{"user":"u1","item":"i1","time":100000000000000000000}',
    "negative": b'{"user":"u1","item":"i1","time":-1}',
    "duplicate keys": b'{"user":"u1","user":"u2","item":"i1","time":1}',
    "nesting": b'{"user":"u1","item":"i1","time":1,"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "big": b'{"user":"' + b"x" * 990_000 + b'","item":"i1","time":1}',
    "bad UTF-8": b'{"user":"\xff\xfe","item":"i1","time":1}',
    "empty": b"",
    "tombstone": None,
}


@pytest.mark.parametrize("outlet", ["file", "topic"])
def test_poison_goes_to_the_dead_letters_and_its_neighbours_are_applied(
    address: str, topic: Any, produce: Any, run: Any, outlet: str
) -> None:
    name = topic(1, **{"max.message.bytes": "1048588"})
    future = event(0, time=int(time.time() * 1000) + 400 * DAY_MS)
    bad = [*POISON.values(), future]
    for number, payload in enumerate(bad):
        produce(name, [event(number), payload], partition=0)
    settings = config(dead_letter_topic=topic(1)) if outlet == "topic" else config()
    _, health, folder = run(name, 2 * len(bad), settings)
    assert health.refused == len(bad)
    assert health.offsets == {f"{name}/0": 2 * len(bad)}
    sent = [payload if isinstance(payload, bytes | None) else msgspec.json.encode(payload) for payload in bad]
    found: dict[Any, Any] = {}
    if (folder / "dead-letters.jsonl").exists():
        for letter in read_dead_letters(folder / "dead-letters.jsonl"):
            assert letter["source"] == f"kafka:{name}/0"
            assert letter["reason"]
            found[letter["position"]] = letter["payload"]
    if settings.kafka.dead_letter_topic is not None:
        found |= _letters(address, settings.kafka.dead_letter_topic, len(bad) - len(found))
    assert found == {2 * number + 1: payload for number, payload in enumerate(sent)}
    audited = audit(folder, f"kafka://{address}/{name}", settings)
    assert audited.ok, audited
    assert audited.events == len(bad)


def _letters(address: str, name: str, count: int) -> dict[int, bytes | None]:
    found: dict[int, bytes | None] = {}
    for message in _read(address, name, count):
        given: Any = message.headers()
        headers = {key: value.decode() for key, value in given}
        assert headers["reason"]
        # librdkafka has no word for a tombstone that is not an empty one
        found[int(headers["position"])] = message.value()
    return found


def _read(address: str, topic: str, count: int) -> list[ck.Message]:
    consumer = ck.Consumer({"bootstrap.servers": address, "group.id": "tests", "auto.offset.reset": "error"})
    consumer.assign([ck.TopicPartition(topic, 0, 0)])
    found: list[ck.Message] = []
    deadline = time.monotonic() + 30
    while len(found) < count and time.monotonic() < deadline:
        message = consumer.poll(0.5)
        if message is not None and message.error() is None:
            found.append(message)
    consumer.close()
    assert len(found) == count
    return found


def test_a_repeat_with_the_same_id_is_applied_once(topic: Any, produce: Any, run: Any, address: str) -> None:
    name = topic(1)
    produce(name, [event(number, id=f"e{number}") for number in range(50)] * 2, partition=0)
    _, _, folder = run(name, 100)
    found = audit(folder, f"kafka://{address}/{name}", config())
    assert found.ok, found
    assert found.duplicates == 50


@pytest.mark.parametrize("client", CLIENTS)
def test_aborted_transactions_are_not_applied_and_the_lag_reaches_zero(
    address: str, topic: Any, run: Any, client: str
) -> None:
    name = topic(1)
    producer = ck.Producer({"bootstrap.servers": address, "transactional.id": f"tx-{name}", "log_level": 0})
    producer.init_transactions(30)
    for kept in (True, False, True, False):
        producer.begin_transaction()
        for number in range(20):
            producer.produce(name, msgspec.json.encode(event(number, user="kept" if kept else "aborted")), b"k")
        producer.flush()
        producer.commit_transaction() if kept else producer.abort_transaction()
    # 80 messages and 4 control records
    _, health, folder = run(name, 84, config(client))
    assert health.messages == 40
    with recurra.open(folder, config(), read_only=True) as engine:
        assert engine.history("kept")
        with pytest.raises(recurra.errors.UnknownUserError):
            engine.history("aborted")


@pytest.mark.parametrize("client", CLIENTS)
def test_what_the_broker_has_deleted_stops_the_source_until_told_otherwise(
    topic: Any, produce: Any, run: Any, admin: AdminClient, client: str
) -> None:
    name = topic(1)
    produce(name, [event(number) for number in range(100)], partition=0)
    run(name, 100, config(client))
    produce(name, [event(number) for number in range(100, 200)], partition=0)
    place = ck.TopicPartition(name, 0, 150)
    admin.delete_records([place])[place].result(30)
    with pytest.raises(SourceBehindError, match=r"offset 100.*before 150: 50 messages"):
        run(name, 200, config(client))
    _, health, folder = run(name, 200, config(client, skip_lost=True))
    assert health.lost == 50
    assert health.messages == 50
    # the gap was accepted once and for all
    assert run(name, 200, config(client))[1].lost == 50
    with recurra.open(folder, config(), read_only=True) as engine:
        (facts,) = facts_of(engine.source_info()).values()
    assert facts.lost == ((0, 100, 150),)


@pytest.mark.parametrize("client", CLIENTS)
def test_a_topic_that_was_made_again_is_refused(
    topic: Any, produce: Any, run: Any, admin: AdminClient, client: str
) -> None:
    name = topic(1)
    produce(name, [event(number) for number in range(10)], partition=0)
    run(name, 10, config(client))
    admin.delete_topics([name])[name].result(30)
    time.sleep(1)
    admin.create_topics([NewTopic(name, 1, 1)])[name].result(30)
    produce(name, [event(number) for number in range(10)], partition=0)
    with pytest.raises(SourceMismatchError, match="deleted and made again"):
        run(name, 20, config(client))


def test_another_topic_is_refused(topic: Any, produce: Any, run: Any) -> None:
    one, two = topic(1), topic(1)
    produce(one, [event(0)], partition=0)
    run(one, 1)
    with pytest.raises(SourceMismatchError, match=f"from topic '{one}', not '{two}'"):
        run(two, 2)


def test_a_partition_that_is_not_there_is_refused(topic: Any, run: Any) -> None:
    with pytest.raises(ConfigError, match=r"names \[5\]"):
        run(topic(2), 1, config(partitions=(0, 5)))


def test_only_the_named_partitions_are_read(topic: Any, produce: Any, run: Any) -> None:
    name = topic(3)
    for partition in range(3):
        produce(name, [event(number, user=f"p{partition}") for number in range(10)], partition=partition)
    _, health, _ = run(name, 20, config(partitions=(0, 2)))
    assert health.offsets == {f"{name}/0": 10, f"{name}/2": 10}


@pytest.mark.parametrize(("start", "read"), [("earliest", 30), ("latest", 5), (NOW_MS, 15)])
def test_where_a_new_store_starts(
    address: str, topic: Any, produce: Any, tmp_path: Path, start: str | int, read: int
) -> None:
    name = topic(1)
    producer = ck.Producer({"bootstrap.servers": address})
    for number in range(25):
        time_ms = NOW_MS - 1_000 if number < 15 else NOW_MS
        producer.produce(name, msgspec.json.encode(event(number)), b"k", timestamp=time_ms)
    producer.flush()
    settings = config(start=start)
    with recurra.open(tmp_path / "data", settings) as engine:
        reader = Run(engine, f"kafka://{address}/{name}", settings, tmp_path)
        reader.until(lambda: reader.service.health().connected)
        produce(name, [event(number) for number in range(25, 30)], partition=0)
        reader.until_read(30)
        reader.stop()
        assert reader.service.health().messages == read
    assert audit(tmp_path / "data", f"kafka://{address}/{name}", settings).ok


def test_a_partition_added_later_is_read_from_its_beginning(
    topic: Any, produce: Any, run: Any, admin: AdminClient
) -> None:
    name = topic(1)
    produce(name, [event(number) for number in range(10)], partition=0)
    run(name, 0, config(start="latest"))
    admin.create_partitions([NewPartitions(name, 2)])[name].result(30)
    time.sleep(1)
    produce(name, [event(number, user="new") for number in range(10)], partition=1)
    _, health, _ = run(name, 10, config(start="latest"))
    assert health.messages == 10


def test_the_catalogue_topic_has_offsets_of_its_own(address: str, topic: Any, produce: Any, run: Any) -> None:
    name, catalogue = topic(1), topic(1)
    produce(name, [event(0)], partition=0)
    items = [{"item": f"i{number}", "title": f"Title {number}", "categories": ["a"]} for number in range(20)]
    produce(catalogue, [*items, b"no item"], partition=0)
    _, health, folder = run(name, 22, config(catalogue_topic=catalogue))
    assert health.refused == 1
    with recurra.open(folder, config(), read_only=True) as engine:
        assert len(engine.recommend("u0", 5).titles) == 5
    produce(catalogue, [{"item": "new", "title": "New"}], partition=0)
    assert run(name, 23, config(catalogue_topic=catalogue))[1].messages == 1


def test_new_recommendations_and_replies_go_out(address: str, topic: Any, produce: Any, tmp_path: Path) -> None:
    name, output, requests, replies = (topic(1) for _ in range(4))
    settings = config(output_topic=output, request_topic=requests, reply_topic=replies, output_k=3)
    with recurra.open(tmp_path / "data", settings) as engine:
        reader = Run(engine, f"kafka://{address}/{name}", settings, tmp_path)
        reader.until(lambda: reader.service.health().connected)
        produce(name, [event(number) for number in range(40)], partition=0)
        reader.until(lambda: sent(reader) >= 7)
        deadline = time.monotonic() + 30
        while answered(reader) < 3 and time.monotonic() < deadline:
            produce(requests, [{"user": "u1", "k": 2, "id": "r"}, b"junk", {"user": "u1", "k": 0}], partition=0)
            time.sleep(0.5)
        reader.stop()
    told = _read(address, output, 7)
    answer = json.loads(told[-1].value() or b"")
    assert answer["user"].encode() == told[-1].key()
    assert len(answer["items"]) == len(answer["scores"]) == 3
    first, second, third = (json.loads(message.value() or b"") for message in _read(address, replies, 3))
    assert (first["id"], len(first["items"])) == ("r", 2)
    assert "error" in second
    assert "k" in third["error"]


def test_a_broker_that_is_away_is_waited_for(own_broker: Any, topic: Any, produce: Any, tmp_path: Path) -> None:
    name = topic(1)
    produce(name, [event(number) for number in range(100)], partition=0)
    settings = config()
    own_broker.stop()
    try:
        with recurra.open(tmp_path / "data", settings) as engine:
            engine.ingest([recurra.Event("ann", "m1", NOW_MS)])
            reader = Run(engine, f"kafka://{own_broker.address}/{name}", settings, tmp_path)
            reader.until(lambda: reader.service.health().problem is not None)
            assert not reader.service.health().connected
            # queries are answered meanwhile
            assert engine.history("ann")
            own_broker.start()
            reader.until_read(100)
            own_broker.stop(kill=True)
            reader.until(lambda: reader.service.health().problem is not None)
            own_broker.start()
            # that it is back shows even where nothing new comes
            reader.until(lambda: reader.service.health().connected)
            produce(name, [event(number) for number in range(100, 150)], partition=0)
            reader.until_read(150)
            reader.until(lambda: reader.service.health().lag == {f"{name}/0": 0})
            reader.stop()
    finally:
        if not own_broker.running:
            own_broker.start()


@pytest.mark.slow
def test_kafka_python_waits_for_a_broker_too(
    own_broker: Any, topic: Any, produce: Any, service: Any, tmp_path: Path
) -> None:
    name = topic(1)
    produce(name, [event(number) for number in range(100)], partition=0)
    (tmp_path / "recurra.toml").write_text('[kafka]\nclient = "kafka-python"\n')
    # in a process of its own: the library leaves the socket of a refused connection to the collector
    runner = service(
        f"kafka://{own_broker.address}/{name}", "--train", "off", "--config", str(tmp_path / "recurra.toml")
    )
    own_broker.stop()
    try:
        runner.start()
        runner.until_reading()
        time.sleep(2)
        own_broker.start()
        runner.until_read(100)
        own_broker.stop(kill=True)
        time.sleep(2)
        own_broker.start()
        produce(name, [event(number) for number in range(100, 150)], partition=0)
        runner.until_read(150)
        assert runner.terminate()[0] == 0
    finally:
        if not own_broker.running:
            own_broker.start()


def test_the_group_is_told_the_synced_offsets(address: str, topic: Any, produce: Any, tmp_path: Path) -> None:
    name = topic(1)
    produce(name, [event(number) for number in range(100)], partition=0)
    settings = config(group=f"group-{name}")
    with recurra.open(tmp_path / "data", settings) as engine:
        reader = Run(engine, f"kafka://{address}/{name}", settings, tmp_path)
        probe = ck.Consumer({"bootstrap.servers": address, "group.id": f"group-{name}"})
        reader.until(lambda: probe.committed([ck.TopicPartition(name, 0)], timeout=10)[0].offset == 100)
        probe.close()
        reader.stop()
