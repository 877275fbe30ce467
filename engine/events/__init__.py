"""Input of an engine: events, items and forget requests, their bounds, and their decoding from JSON."""

from .checks import check_id, check_inputs, input_problem, rfc_3339_ms
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
    "check_id",
    "check_inputs",
    "input_problem",
    "rfc_3339_ms",
]
