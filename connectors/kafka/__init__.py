"""Kafka: one contract with two clients, the source of events, and what goes out."""

from .contract import CLOSING, KafkaClient, KafkaConsumer, KafkaProducer, Message, Place, Polled, Topic
from .options import KafkaAddress, check_kafka, is_kafka, kafka_client, parse_address
from .outlets import KafkaDeadLetters, RecommendationOutlet, RequestReply
from .service import KafkaService
from .source import KafkaSource
from .start import SourceFacts, facts_of, source_key

__all__ = [
    "CLOSING",
    "KafkaAddress",
    "KafkaClient",
    "KafkaConsumer",
    "KafkaDeadLetters",
    "KafkaProducer",
    "KafkaService",
    "KafkaSource",
    "Message",
    "Place",
    "Polled",
    "RecommendationOutlet",
    "RequestReply",
    "SourceFacts",
    "Topic",
    "check_kafka",
    "facts_of",
    "is_kafka",
    "kafka_client",
    "parse_address",
    "source_key",
]
