"""Input of an engine: events, items and forget requests, their bounds, and their decoding from JSON."""

from .checks import id_problem, input_problem, rfc_3339_ms
from .decoder import Decoder
from .types import MAX_ID_BYTES, MAX_MESSAGE_BYTES, MAX_TIME_MS, Event, FieldNames, Forget, Item

__all__ = [
    "MAX_ID_BYTES",
    "MAX_MESSAGE_BYTES",
    "MAX_TIME_MS",
    "Decoder",
    "Event",
    "FieldNames",
    "Forget",
    "Item",
    "id_problem",
    "input_problem",
    "rfc_3339_ms",
]
