"""The durable truth: histories, seen sets, the log, ids, item records and offsets in one atomic batch per commit."""

from .batch import APPLIED, DUPLICATE, FUTURE, LATE, TOO_LATE, Applied, Batch, event_hash
from .digest import UserRecord
from .directory import make_directory
from .histories import History
from .ids import IdMap, ItemTable
from .log import LogChunk
from .reader import Database, Reader
from .rocks import Rocks
from .store import Plan, Store
from .verify import Damage, verify_store

__all__ = [
    "APPLIED",
    "DUPLICATE",
    "FUTURE",
    "LATE",
    "TOO_LATE",
    "Applied",
    "Batch",
    "Damage",
    "Database",
    "History",
    "IdMap",
    "ItemTable",
    "LogChunk",
    "Plan",
    "Reader",
    "Rocks",
    "Store",
    "UserRecord",
    "event_hash",
    "make_directory",
    "verify_store",
]
