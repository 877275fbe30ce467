"""Difficulties for both clients: access rules, compression, a group that was read with before."""

import contextlib
import logging
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import confluent_kafka as ck
import msgspec
import pytest
from confluent_kafka import admin as ck_admin
from confluent_kafka.admin import AdminClient

import recurra
from recurra.connectors.kafka.options import kafka_client
from recurra.engine.config import KafkaConfig
from recurra.engine.errors import BrokerError, ConfigError

from .conftest import CLIENTS, Run, config, event

# the library does not list them as exports
acls: Any = ck_admin
AclBinding, AclBindingFilter, AclOperation = acls.AclBinding, acls.AclBindingFilter, acls.AclOperation
AclPermissionType, ResourcePatternType, ResourceType = (
    acls.AclPermissionType,
    acls.ResourcePatternType,
    acls.ResourceType,
)

# kafka-python reads its own files by a function that newer Pythons advise against
pytestmark = [pytest.mark.kafka, pytest.mark.filterwarnings("ignore:(read|open)_text is deprecated:DeprecationWarning")]


def deny(admin: AdminClient, kind: Any, name: str, operation: Any) -> Callable[[], None]:
    """Forbid everybody an operation; returns what allows it again."""
    who = (kind, name, ResourcePatternType.LITERAL, "User:ANONYMOUS", "*")
    # with one rule about it, all that no rule allows is forbidden
    rules = [(*who, operation, AclPermissionType.DENY)]
    if kind == ResourceType.TOPIC:
        rules.append((*who, AclOperation.DESCRIBE, AclPermissionType.ALLOW))
    for answer in admin.create_acls([AclBinding(*rule) for rule in rules]).values():
        answer.result(20)

    def allow() -> None:
        for answer in admin.delete_acls([AclBindingFilter(*rule) for rule in rules]).values():
            answer.result(20)

    return allow


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    found = [record for record in caplog.records if record.name.startswith("recurra.")]
    messages = [record.getMessage() for record in found if record.levelno >= logging.WARNING]
    # the library's own lines may be of a client of another test
    return [message for message in messages if "rdkafka" not in message]


@pytest.mark.parametrize("client", CLIENTS)
def test_reading_needs_no_right_to_the_group(
    own_broker: Any, topic: Any, produce: Any, admin: AdminClient, tmp_path: Path, client: str, caplog: Any
) -> None:
    name = topic(2)
    produce(name, [event(number) for number in range(100)], partitions=2)
    deny(admin, ResourceType.GROUP, f"forbidden-{name}", AclOperation.ALL)
    settings = config(client, group=f"forbidden-{name}")
    with recurra.open(tmp_path / "data", settings) as engine:
        reader = Run(engine, f"kafka://{own_broker.address}/{name}", settings, tmp_path)
        reader.until_read(100)
        reader.until(lambda: reader.service.health().connected)
        produce(name, [event(number) for number in range(100, 200)], partitions=2)
        reader.until_read(200)
        time.sleep(1.5)
        health = reader.service.health()
        assert health.connected
        assert "roup" in str(health.group_problem)
        reader.stop()
    assert len(warnings_of(caplog)) <= 1, warnings_of(caplog)


@pytest.mark.parametrize("operation", [AclOperation.READ, AclOperation.DESCRIBE], ids=["read", "describe"])
@pytest.mark.parametrize("client", CLIENTS)
def test_a_topic_that_may_not_be_read_is_never_connected_and_seldom_logged(
    own_broker: Any,
    topic: Any,
    produce: Any,
    admin: AdminClient,
    tmp_path: Path,
    client: str,
    operation: Any,
    caplog: Any,
) -> None:
    name = topic(1)
    produce(name, [event(number) for number in range(100)], partition=0)
    allow = deny(admin, ResourceType.TOPIC, name, operation)
    settings = config(client)
    with recurra.open(tmp_path / "data", settings) as engine:
        reader = Run(engine, f"kafka://{own_broker.address}/{name}", settings, tmp_path)
        reader.until(lambda: "uthoriz" in str(reader.service.health().problem))
        until = time.monotonic() + 3
        while time.monotonic() < until:
            assert not reader.service.health().connected
            time.sleep(0.05)
        assert len(warnings_of(caplog)) <= 2, warnings_of(caplog)
        allow()
        reader.until_read(100)
        reader.until(lambda: reader.service.health().connected)
        reader.stop()


def _compressed(address: str, name: str, codecs: tuple[str, ...]) -> None:
    for at, codec in enumerate(codecs):
        producer = ck.Producer({"bootstrap.servers": address, "compression.type": codec, "linger.ms": 50})
        for number in range(at * 100, (at + 1) * 100):
            producer.produce(name, msgspec.json.encode(event(number)), b"k")
        assert producer.flush(30) == 0


@pytest.mark.parametrize("client", CLIENTS)
def test_messages_of_every_compression_are_read(address: str, topic: Any, run: Any, client: str) -> None:
    name = topic(1)
    _compressed(address, name, ("none", "gzip", "snappy", "lz4", "zstd"))
    _, health, _ = run(name, 500, config(client))
    assert health.messages == 500


def test_a_missing_library_for_a_compression_is_named(
    address: str, topic: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    # what the import of a library that is not there leaves behind
    monkeypatch.setattr("kafka.codec.zstd", None)
    name = topic(1)
    _compressed(address, name, ("zstd",))
    settings = config("kafka-python")
    with recurra.open(tmp_path / "data", settings) as engine:
        reader = Run(engine, f"kafka://{address}/{name}", settings, tmp_path)
        reader.until(lambda: "recurra[kafka-python]" in str(reader.service.health().problem))
        until = time.monotonic() + 3
        while time.monotonic() < until:
            health = reader.service.health()
            assert not health.connected
            assert "zstd" in str(health.problem)
            time.sleep(0.05)
        assert len(warnings_of(caplog)) <= 2
        monkeypatch.undo()
        reader.until_read(100)
        reader.stop()


@pytest.mark.parametrize("client", CLIENTS)
def test_an_empty_store_does_not_begin_at_the_end_of_what_its_group_has_read(
    address: str, topic: Any, produce: Any, run: Any, client: str
) -> None:
    name = topic(1)
    produce(name, [event(number) for number in range(100)], partition=0)
    settings: dict[str, Any] = {"group": f"kept-{name}", "client": client}
    # what an engine has reported whose store is gone
    before = ck.Consumer({"bootstrap.servers": address, "group.id": f"kept-{name}"})
    before.commit(offsets=[ck.TopicPartition(name, 0, 100)], asynchronous=False)
    before.close()
    with pytest.raises(ConfigError, match=r"has read topic .* before, up to offset 100 of partition 0.*earliest"):
        run(name, 100, config(**settings, start="latest"), name="gone")
    # rebuilt, because that was asked for
    assert run(name, 100, config(**settings, start="earliest"), name="gone")[1].messages == 100
    # a group of its own has read nothing
    assert run(name, 0, config(client, group=f"other-{name}", start="latest"), name="other")[1].messages == 0


class NotLeaderOnce:
    """Turns the first answer about the offsets of a topic into that of a broker that no longer leads its partition."""

    def __init__(self, topic: str) -> None:
        self._topic = topic.encode()
        self._asked: set[int] = set()
        self.done = False

    def __call__(self, data: bytes, answer: bool) -> bytes:
        if not answer:
            at = 0
            while at + 12 <= len(data):
                size, kind, _, number = struct.unpack_from(">ihhi", data, at)
                # ListOffsets
                if kind == 2:
                    self._asked.add(number)
                at += 4 + size
            return data
        if self.done or len(data) < 8 or struct.unpack_from(">i", data, 4)[0] not in self._asked:
            return data
        at = data.index(self._topic) + len(self._topic)
        # the number of partitions, as newer and older versions of the protocol write it; then the partition
        at += 4 + (1 if data[at] == 2 else 4)
        self.done = True
        return data[:at] + b"\0\x06" + data[at + 2 :]


@pytest.mark.parametrize("client", CLIENTS)
def test_a_broker_that_does_not_lead_a_partition_now_gives_no_wrong_ends_of_its_log(
    topic: Any, produce: Any, proxy: Any, client: str
) -> None:
    name = topic(1)
    produce(name, [event(number) for number in range(30)], partition=0)
    proxy.change = NotLeaderOnce(name)
    consumer = kafka_client(proxy.address, KafkaConfig(client=client)).consumer()  # type: ignore[arg-type]
    try:
        # it may have to be asked again, as the source does
        with contextlib.suppress(BrokerError):
            assert consumer.watermarks((name, 0)) == (0, 30)
        assert proxy.change.done
        assert consumer.watermarks((name, 0)) == (0, 30)
        assert consumer.ends([(name, 0)]) == {(name, 0): 30}
    finally:
        consumer.close()


@pytest.mark.parametrize("client", CLIENTS)
def test_a_broker_that_wants_a_password(own_broker: Any, topic: Any, produce: Any, tmp_path: Path, client: str) -> None:
    name = topic(1)
    produce(name, [event(number) for number in range(5)], partition=0)

    def settings(password: str) -> Any:
        options = {
            "security.protocol": "SASL_PLAINTEXT",
            "sasl.mechanism": "PLAIN",
            "sasl.username": "ann",
            "sasl.password": password,
        }
        return config(client, options=options)

    source = f"kafka://{own_broker.signed}/{name}"
    with recurra.open(tmp_path, settings("wrong")) as engine:
        reader = Run(engine, source, settings("wrong"), tmp_path)
        # kafka-python keeps the reason to its log
        said = "Invalid username or password" if client == "confluent" else "Unable to bootstrap"
        reader.until(lambda: said in str(reader.service.health().problem))
        assert not reader.service.health().connected
        reader.stop()
        reader = Run(engine, source, settings("secret"), tmp_path)
        reader.until_read(5)
        reader.until(lambda: reader.service.health().problem is None)
        reader.stop()
