"""Input of an engine: events, items and forget requests, their bounds, and their decoding from JSON."""

from .checks import event_problem, forget_problem, id_problem, item_problem, rfc_3339_ms
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
    "event_problem",
    "forget_problem",
    "id_problem",
    "item_problem",
    "rfc_3339_ms",
]
