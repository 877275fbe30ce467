"""Sections about what is connected: Kafka, the audit of sampled users, HTTP."""

import sys
from typing import Annotated, Literal

from msgspec import Meta

from ..errors import ConfigError
from .kinds import MAX_TIME_MS, Seconds, Topic
from .section import Section

__all__ = ["ApiConfig", "AuditConfig", "KafkaConfig"]

_Partition = Annotated[int, Meta(ge=0, le=2**31 - 1)]
_Option = (
    str
    | bool
    | Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
    | Annotated[float, Meta(ge=-sys.float_info.max, le=sys.float_info.max)]
)
_Options = Annotated[dict[str, _Option], Meta(description="a table of text, numbers, true and false")]


class KafkaConfig(Section, frozen=True):
    """The Kafka source and its outputs."""

    section = "kafka"

    # "confluent" or "kafka-python"
    client: Literal["confluent", "kafka-python"] = "confluent"
    # of the events and of requests, not of the catalogue: "all" or a list of partition numbers
    partitions: Literal["all"] | Annotated[tuple[_Partition, ...], Meta(min_length=1)] = "all"
    # for a store without offsets: "earliest", "latest" or milliseconds since the epoch
    start: Literal["earliest", "latest"] | Annotated[int, Meta(ge=0, le=MAX_TIME_MS)] = "earliest"
    # consumer group to which offsets are reported, for lag monitors only; engines that read the same partitions need
    # one each
    group: Annotated[str, Meta(min_length=1, max_length=32_767)] = "recurra"
    # topic of item records
    catalogue_topic: Topic | None = None
    # topic that gets the new list of every user with an event, of so many items
    output_topic: Topic | None = None
    output_k: Annotated[int, Meta(ge=1, le=10_000)] = 10
    # topics of requests for lists and of their answers
    request_topic: Topic | None = None
    reply_topic: Topic | None = None
    # topic of messages that cannot be applied; without it they go to a file in the data directory
    dead_letter_topic: Topic | None = None
    # go on after events that the broker deleted before they were read
    skip_lost: bool = False
    # handed to the client as they are: sasl.*, ssl.*, security.protocol, ...
    options: _Options = {}  # noqa: RUF012 (msgspec copies it)

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(set(self.partitions)) < len(self.partitions) and self.partitions != "all":
            raise ConfigError(f"kafka.partitions must name each partition once, got {list(self.partitions)}")


class AuditConfig(Section, frozen=True):
    """Audit of sampled users in the background of `recurra run`, against a source that still has everything."""

    section = "audit"

    # seconds between two audits; 0 is off
    every_seconds: Seconds = 0.0
    # users of a sample, about
    users: Annotated[int, Meta(ge=1, le=2**31 - 1)] = 64
    # an audit reads the whole source, at most so fast
    messages_per_second: Annotated[float, Meta(ge=0.001, le=10**9)] = 2_000.0


class ApiConfig(Section, frozen=True):
    """The HTTP endpoint."""

    section = "api"

    # address to listen on
    host: Annotated[str, Meta(min_length=1, max_length=255)] = "127.0.0.1"
    # 0 takes a free one
    port: Annotated[int, Meta(ge=0, le=65_535)] = 8000
    # names that requests may give as their host, beside those of loopback; without any, a service that listens on
    # loopback serves loopback's names only, and any other service all names
    hosts: tuple[Annotated[str, Meta(min_length=1, max_length=255)], ...] = ()
