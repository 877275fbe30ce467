"""Kafka: one contract with two clients, the source of events, and what goes out."""

from .contract import Batch, KafkaClient, KafkaConsumer, KafkaProducer, Message, Place, Topic
from .options import KafkaAddress, kafka_client, parse_address
from .outlets import KafkaDeadLetters, RecommendationOutlet, RequestReply
from .service import KafkaService
from .source import KafkaSource
from .start import SourceFacts, facts_of, source_key

__all__ = [
    "Batch",
    "KafkaAddress",
    "KafkaClient",
    "KafkaConsumer",
    "KafkaDeadLetters",
    "KafkaProducer",
    "KafkaService",
    "KafkaSource",
    "Message",
    "Place",
    "RecommendationOutlet",
    "RequestReply",
    "SourceFacts",
    "Topic",
    "facts_of",
    "kafka_client",
    "parse_address",
    "source_key",
]
