"""Connectors: files, Kafka and HTTP in and out of the engine."""
