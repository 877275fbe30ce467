"""The source against a real broker, with each client, feeding a real engine in this process."""

import json
import time
from pathlib import Path
from typing import Any

import confluent_kafka as ck
import msgspec
import pytest
from confluent_kafka.admin import AdminClient

import recurra
from recurra.connectors.audit import audit
from recurra.connectors.dead_letter import read_dead_letters
from recurra.connectors.kafka import confluent
from recurra.connectors.kafka.options import kafka_client
from recurra.engine.config import KafkaConfig

from .conftest import CLIENTS, NOW_MS, Run, config, event

# kafka-python reads its own files by a function that newer Pythons advise against
pytestmark = [pytest.mark.kafka, pytest.mark.filterwarnings("ignore:(read|open)_text is deprecated:DeprecationWarning")]
DAY_MS = 86_400_000


def answered(reader: Run) -> int:
    requests = reader.service.health().requests
    assert requests is not msgspec.UNSET
    return requests.answered


@pytest.mark.parametrize("client", CLIENTS)
def test_a_restart_goes_on_where_the_store_is(
    address: str, topic: Any, produce: Any, run: Any, client: str, admin: AdminClient, caplog: Any
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
    assert f"at offset 10000 of {name}/0" in caplog.text
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
        reader.until(lambda: reader.lists_sent() >= 7)
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


def test_a_broker_that_is_away_is_waited_for(
    own_broker: Any, topic: Any, produce: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(confluent, "_TIMEOUT_S", 2.0)
    name = topic(1)
    produce(name, [event(number) for number in range(100)], partition=0)
    settings = config()
    own_broker.stop()
    try:
        with recurra.open(tmp_path / "data", settings) as engine:
            engine.ingest([recurra.Event("ann", "m1", NOW_MS)])
            reader = Run(engine, f"kafka://{own_broker.address}/{name}", settings, tmp_path)
            # there is a reason from the first moment on
            assert own_broker.address in str(reader.service.health().problem)
            reader.until(lambda: "starting" not in str(reader.service.health().problem))
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
            engine.forget("ann")
        assert audit(tmp_path / "data", f"kafka://{own_broker.address}/{name}", settings).ok
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


@pytest.mark.parametrize("client", CLIENTS)
def test_what_is_reported_last_reaches_the_group(address: str, topic: Any, client: str) -> None:
    """The first report is also the last one here: the connection that it needs is not there yet when it is closed."""
    name = topic(1)
    group = f"group-{name}"
    consumer = kafka_client(address, KafkaConfig(client=client, group=group)).consumer()  # type: ignore[arg-type]
    consumer.report({(name, 0): 7})
    consumer.close()
    monitor = ck.Consumer({"bootstrap.servers": address, "group.id": group})
    (found,) = monitor.committed([ck.TopicPartition(name, 0)], timeout=10)
    monitor.close()
    assert found.offset == 7
