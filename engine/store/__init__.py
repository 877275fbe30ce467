"""The durable truth: histories, seen sets, the log, ids, item records and offsets in one atomic batch per commit."""

from .batch import APPLIED, DUPLICATE, FUTURE, LATE, TOO_LATE, Applied, Batch, event_hash
from .digest import UserRecord
from .histories import History
from .ids import IdMap, ItemTable
from .log import LogChunk
from .reader import Reader
from .store import Plan, Store

__all__ = [
    "APPLIED",
    "DUPLICATE",
    "FUTURE",
    "LATE",
    "TOO_LATE",
    "Applied",
    "Batch",
    "History",
    "IdMap",
    "ItemTable",
    "LogChunk",
    "Plan",
    "Reader",
    "Store",
    "UserRecord",
    "event_hash",
]
