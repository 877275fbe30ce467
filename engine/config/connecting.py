"""Sections about what is connected: Kafka, the audit of sampled users, HTTP."""

from ..errors import ConfigError
from .section import Section

__all__ = ["ApiConfig", "AuditConfig", "KafkaConfig"]


class KafkaConfig(Section, frozen=True):
    """The Kafka source and its outputs."""

    # "confluent" or "kafka-python"
    client: str = "confluent"
    # of the events and of requests, not of the catalogue: "all" or a list of partition numbers
    partitions: str | tuple[int, ...] = "all"
    # for a store without offsets: "earliest", "latest" or milliseconds since the epoch
    start: str | int = "earliest"
    # consumer group to which offsets are reported, for lag monitors only; engines that read the same partitions need
    # one each
    group: str = "recurra"
    # topic of item records
    catalogue_topic: str | None = None
    # topic that gets the new list of every user with an event, of so many items
    output_topic: str | None = None
    output_k: int = 10
    # topics of requests for lists and of their answers
    request_topic: str | None = None
    reply_topic: str | None = None
    # topic of messages that cannot be applied; without it they go to a file in the data directory
    dead_letter_topic: str | None = None
    # go on after events that the broker deleted before they were read
    skip_lost: bool = False
    # handed to the client as they are: sasl.*, ssl.*, security.protocol, ...
    options: dict[str, str | int | float | bool] = {}  # noqa: RUF012 (msgspec copies it)


class AuditConfig(Section, frozen=True):
    """Audit of sampled users in the background of `recurra run`, against a source that still has everything."""

    # seconds between two audits; 0 is off
    every_seconds: float = 0.0
    # users of a sample, about
    users: int = 64
    # an audit reads the whole source, at most so fast
    messages_per_second: float = 2_000.0

    def __post_init__(self) -> None:
        if self.every_seconds < 0 or self.users < 1 or self.messages_per_second <= 0:
            raise ConfigError("audit: every_seconds must not be negative, users and messages_per_second be above 0")


class ApiConfig(Section, frozen=True):
    """The HTTP endpoint."""

    # address to listen on
    host: str = "127.0.0.1"
    port: int = 8000
    # names that requests may give as their host, beside those of loopback; without any, a service that listens on
    # loopback serves loopback's names only, and any other service all names
    hosts: tuple[str, ...] = ()
