"""Address of a cluster and settings of its client."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from ...engine.config import KafkaConfig
from ...engine.errors import ConfigError, InputError
from .contract import KafkaClient

__all__ = [
    "KafkaAddress",
    "check_kafka",
    "is_kafka",
    "kafka_client",
    "kafka_python_options",
    "librdkafka_options",
    "parse_address",
]

# these decide what is read and counted; a source without them would lose or repeat events
_OURS = frozenset(
    {
        "auto.offset.reset",
        "bootstrap.servers",
        "enable.auto.commit",
        "enable.auto.offset.store",
        "enable.partition.eof",
        "group.id",
        "isolation.level",
    }
)
_KAFKA_PYTHON = {
    "sasl.mechanism": "sasl_mechanism",
    "sasl.mechanisms": "sasl_mechanism",
    "sasl.username": "sasl_plain_username",
    "sasl.password": "sasl_plain_password",
    "ssl.ca.location": "ssl_cafile",
    "ssl.certificate.location": "ssl_certfile",
    "ssl.key.location": "ssl_keyfile",
    "ssl.key.password": "ssl_password",
    "ssl.crl.location": "ssl_crlfile",
    "ssl.cipher.suites": "ssl_ciphers",
    "sasl.kerberos.service.name": "sasl_kerberos_service_name",
}


class KafkaAddress(NamedTuple):
    """``kafka://HOST:PORT[,HOST:PORT]/TOPIC`` in its parts."""

    brokers: str
    topic: str


def parse_address(text: str) -> KafkaAddress:
    """Take ``kafka://HOST:PORT[,HOST:PORT]/TOPIC`` apart; raises ``InputError``."""
    brokers, _, topic = text.removeprefix("kafka://").partition("/")
    named = all(host and port.isdigit() for host, _, port in (each.rpartition(":") for each in brokers.split(",")))
    if not text.startswith("kafka://") or not named or not topic or "/" in topic:
        raise InputError(f"expected kafka://HOST:PORT/TOPIC, got {text!r}")
    return KafkaAddress(brokers, topic)


def is_kafka(source: str) -> bool:
    """Return whether a source is a topic rather than a file; raises ``InputError`` for another kind of address."""
    scheme, found, _ = source.partition("://")
    if found and scheme != "kafka" and scheme.isidentifier():
        raise InputError(f"expected kafka://HOST:PORT/TOPIC or a file as a source, got the unknown scheme {scheme}://")
    return bool(found) and scheme == "kafka"


def check_kafka(address: str, config: KafkaConfig) -> tuple[KafkaAddress, KafkaClient]:
    """Return what ``address`` names and the client for it, without asking any broker.

    Raises ``InputError`` or ``ConfigError`` for an address or a setting that can never work.
    """
    place = parse_address(address)
    _check_topics(place.topic, config)
    return place, kafka_client(place.brokers, config)


def _check_topics(topic: str, config: KafkaConfig) -> None:
    """Check that no topic that is read has a second use; raises ``ConfigError``."""
    read = {
        "the topic of events": topic,
        "kafka.catalogue_topic": config.catalogue_topic,
        "kafka.request_topic": config.request_topic,
    }
    written = {
        "kafka.output_topic": config.output_topic,
        "kafka.reply_topic": config.reply_topic,
        "kafka.dead_letter_topic": config.dead_letter_topic,
    }
    used: dict[str, str] = {}
    for use, name in (read | written).items():
        if name is not None and name in used and used[name] in read:
            raise ConfigError(f"{use} and {used[name]} are both {name!r}: a topic that is read may have no other use")
        if name is not None:
            used.setdefault(name, use)


def kafka_client(brokers: str, config: KafkaConfig) -> KafkaClient:
    """Return the client that ``kafka.client`` names; raises ``ConfigError`` for a bad option."""
    # each library is loaded only where it is used: both start threads and take time
    if config.client == "confluent":
        from .confluent import ConfluentClient

        return ConfluentClient(brokers, config.group, librdkafka_options(config.options))
    from .kafka_python import KafkaPythonClient

    return KafkaPythonClient(brokers, config.group, kafka_python_options(config.options))


def librdkafka_options(options: Mapping[str, str | int | float | bool]) -> dict[str, Any]:
    """Return the options as confluent-kafka takes them; raises ``ConfigError`` for those that recurra itself sets."""
    _check(options)
    return dict(options)


def kafka_python_options(options: Mapping[str, str | int | float | bool]) -> dict[str, Any]:
    """Return the options under the names that kafka-python has for them; raises ``ConfigError``."""
    _check(options)
    found: dict[str, Any] = {}
    for name, value in options.items():
        if name == "ssl.endpoint.identification.algorithm":
            found["ssl_check_hostname"] = value not in ("none", "")
        else:
            found[_KAFKA_PYTHON.get(name, name.replace(".", "_"))] = value
    return found


def _check(options: Mapping[str, object]) -> None:
    ours = sorted(_OURS.intersection(options))
    if ours:
        raise ConfigError(f"kafka.options may not set {', '.join(ours)}: recurra's guarantees rest on its own values")
