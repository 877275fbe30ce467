"""Input of an engine: events, items and forget requests, their bounds, and their decoding from JSON."""

from .arguments import MAX_K, check_filter, check_query, check_version
from .checks import FIRST_LIKELY_S, LAST_LIKELY_S, check_id, check_inputs, input_problem, rfc_3339_ms
from .decoder import Decoder
from .features import Features, feature_buckets, item_features
from .types import MAX_ID_BYTES, MAX_MESSAGE_BYTES, MAX_TIME_MS, TIME_UNITS, Event, Forget, Item

__all__ = [
    "FIRST_LIKELY_S",
    "LAST_LIKELY_S",
    "MAX_ID_BYTES",
    "MAX_K",
    "MAX_MESSAGE_BYTES",
    "MAX_TIME_MS",
    "TIME_UNITS",
    "Decoder",
    "Event",
    "Features",
    "Forget",
    "Item",
    "check_filter",
    "check_id",
    "check_inputs",
    "check_query",
    "check_version",
    "feature_buckets",
    "input_problem",
    "item_features",
    "rfc_3339_ms",
]
