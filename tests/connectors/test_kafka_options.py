"""Addresses and client options."""

import time
from pathlib import Path

import pytest

from recurra.connectors.kafka import KafkaAddress, confluent, is_kafka, kafka_client, parse_address
from recurra.connectors.kafka.options import check_kafka, kafka_python_options, librdkafka_options
from recurra.engine.config import KafkaConfig
from recurra.engine.errors import BrokerError, ConfigError, InputError

# kafka-python reads its own files by a function that newer Pythons advise against
pytestmark = pytest.mark.filterwarnings("ignore:(read|open)_text is deprecated:DeprecationWarning")

SASL = {
    "security.protocol": "SASL_SSL",
    "sasl.mechanism": "SCRAM-SHA-512",
    "sasl.username": "ann",
    "sasl.password": "secret",
    "ssl.ca.location": "/ca.pem",
    "ssl.certificate.location": "/me.pem",
    "ssl.key.location": "/me.key",
    "ssl.endpoint.identification.algorithm": "none",
    "client.id": "r",
}


def test_addresses() -> None:
    assert parse_address("kafka://h:9092/plays") == KafkaAddress("h:9092", "plays")
    assert parse_address("kafka://a:1,b:2/plays") == KafkaAddress("a:1,b:2", "plays")


@pytest.mark.parametrize(
    "text", ["kafka://h/plays", "kafka://h:9092", "kafka://h:9092/", "kafka://:1/x", "h:1/x", "kafka://h:1/a/b", ""]
)
def test_bad_addresses(text: str) -> None:
    with pytest.raises(InputError, match="expected kafka://HOST:PORT/TOPIC"):
        parse_address(text)


def test_options_pass_through_under_the_names_of_each_client() -> None:
    assert librdkafka_options(SASL) == SASL
    assert kafka_python_options(SASL) == {
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": "ann",
        "sasl_plain_password": "secret",
        "ssl_cafile": "/ca.pem",
        "ssl_certfile": "/me.pem",
        "ssl_keyfile": "/me.key",
        "ssl_check_hostname": False,
        "client_id": "r",
    }


@pytest.mark.parametrize("source", ["kfka://h:1/t", "KAFKA://h:1/t", "http://h/x", "s3://bucket/x"])
def test_an_unknown_scheme_is_no_file(source: str) -> None:
    with pytest.raises(InputError, match="unknown scheme"):
        is_kafka(source)
    assert not is_kafka("a/b.csv")
    assert is_kafka("kafka://h:1/t")


@pytest.mark.parametrize(
    "topics",
    [
        {"catalogue_topic": "plays"},
        {"request_topic": "plays", "reply_topic": "r"},
        {"request_topic": "q", "reply_topic": "q"},
        {"request_topic": "q", "reply_topic": "plays"},
        {"output_topic": "plays"},
        {"dead_letter_topic": "plays"},
        {"catalogue_topic": "c", "dead_letter_topic": "c"},
        {"catalogue_topic": "c", "request_topic": "c", "reply_topic": "r"},
        {"request_topic": "q", "reply_topic": "r", "output_topic": "q"},
    ],
)
def test_a_topic_that_is_read_has_no_other_use(topics: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="may have no other use"):
        check_kafka("kafka://localhost:9092/plays", KafkaConfig(**topics))  # type: ignore[arg-type]


def test_topics_that_are_only_written_may_be_one() -> None:
    check_kafka(
        "kafka://localhost:9092/plays",
        KafkaConfig(request_topic="q", reply_topic="r", output_topic="r", dead_letter_topic="d"),
    )


@pytest.mark.parametrize("name", ["auto.offset.reset", "group.id", "enable.auto.commit", "isolation.level"])
@pytest.mark.parametrize("client", ["confluent", "kafka-python"])
def test_what_the_guarantees_rest_on_cannot_be_changed(client: str, name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        kafka_client("127.0.0.1:1", KafkaConfig(client=client, options={name: "x"}))  # type: ignore[arg-type]


def test_unknown_clients_and_options() -> None:
    with pytest.raises(ConfigError, match=r"kafka\.client must be"):
        kafka_client("127.0.0.1:1", KafkaConfig(client="aiokafka"))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="no option for fetch_wait_max_parsecs"):
        kafka_client("127.0.0.1:1", KafkaConfig(client="kafka-python", options={"fetch.wait.max.parsecs": 1}))
    with pytest.raises(ConfigError, match="parsecs"):
        kafka_client("127.0.0.1:1", KafkaConfig(options={"fetch.wait.max.parsecs": 1})).consumer()


def test_a_broker_that_stays_away_costs_no_more_threads_and_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confluent, "_TIMEOUT_S", 0.2)
    client = confluent.ConfluentClient("127.0.0.1:1", "group", {"log_level": 0})

    def used() -> tuple[int, int]:
        return len(list(Path("/proc/self/task").iterdir())), len(list(Path("/proc/self/fd").iterdir()))

    def again() -> None:
        consumer = client.consumer()
        with pytest.raises(BrokerError):
            consumer.look(["plays"])()
        consumer.close()

    again()
    threads, descriptors = used()
    for _ in range(8):
        again()
    time.sleep(0.5)
    more_threads, more_descriptors = used()
    assert more_threads <= threads + 4
    assert more_descriptors <= descriptors + 4
