"""Engine: event -> ids -> store -> states and fast memory -> retrieval -> mix."""

from typing import TYPE_CHECKING, Any

from .clock import Clock, EventClock, SystemClock
from .config import Config, FieldNames, load_config
from .errors import RecurraError
from .events import Decoder, Event, Forget, Item
from .owner import check_free
from .results import HistoryEntry, IngestReport, Recommendation, Record, Scores, VersionInfo

if TYPE_CHECKING:
    from .engine import Engine, open

__all__ = [
    "Clock",
    "Config",
    "Decoder",
    "Engine",
    "Event",
    "EventClock",
    "FieldNames",
    "Forget",
    "HistoryEntry",
    "IngestReport",
    "Item",
    "Recommendation",
    "Record",
    "RecurraError",
    "Scores",
    "SystemClock",
    "VersionInfo",
    "check_free",
    "load_config",
    "open",
]


def __getattr__(name: str) -> Any:
    # the engine imports torch: callers that only decode events or print help do not wait for it
    if name in ("Engine", "open"):
        from . import engine

        return getattr(engine, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
