"""The start of reading: at the offsets of the store, checked against what the broker still has."""

import time
from pathlib import Path
from typing import Any

import confluent_kafka as ck
import httpx
import msgspec
import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions, NewTopic

import recurra
from recurra.connectors.audit import audit
from recurra.connectors.kafka import facts_of
from recurra.engine.errors import ConfigError, SourceBehindError, SourceMismatchError

from .conftest import CLIENTS, NOW_MS, Run, config, event

# kafka-python reads its own files by a function that newer Pythons advise against
pytestmark = [pytest.mark.kafka, pytest.mark.filterwarnings("ignore:(read|open)_text is deprecated:DeprecationWarning")]


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


def test_a_service_stops_at_a_gap_and_counts_it_once_it_may_go_on(
    address: str, topic: Any, produce: Any, service: Any, admin: AdminClient, tmp_path: Path
) -> None:
    name, settings = topic(1), tmp_path / "recurra.toml"
    settings.touch()
    options = ("--train", "off", "--config", str(settings), "--api", "127.0.0.1:0")
    runner = service(f"kafka://{address}/{name}", *options)
    produce(name, [event(number) for number in range(100)], partition=0)
    runner.start()
    runner.until_read(100)
    assert runner.terminate()[0] == 0
    produce(name, [event(number) for number in range(100, 200)], partition=0)
    place = ck.TopicPartition(name, 0, 150)
    admin.delete_records([place])[place].result(30)
    runner.start()
    assert runner.wait() == 1
    assert "offset 100" in runner.log()
    assert "before 150: 50 messages" in runner.log()
    settings.write_text("[kafka]\nskip_lost = true\n")
    runner.start()
    runner.until_reading()
    runner.until_read(200)
    figures = httpx.get(f"{runner.url()}/metrics").text
    assert "recurra_source_lost 50.0" in figures
    assert "recurra_source_connected 1.0" in figures
    assert runner.terminate()[0] == 0


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


def test_a_log_that_ends_before_the_stored_offset_is_refused(topic: Any, produce: Any, run: Any) -> None:
    name = topic(1)
    produce(name, [event(number) for number in range(10)], partition=0)
    _, _, folder = run(name, 10)
    # one broker cannot be made to forget what it has acknowledged: the store claims to have read more
    with recurra.open(folder, config()) as engine:
        ((source, offset),) = engine.offsets().items()
        assert offset == 10
        engine.apply([recurra.Record(None, source, 50)])
    with pytest.raises(SourceMismatchError, match="up to offset 50, but it ends at 10"):
        run(name, 60)


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
