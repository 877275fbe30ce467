"""Reading a store: what a writer and a reader beside it have in common."""

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..config import StoreConfig
from ..errors import ClosedError, StoreCorruptError
from .blobs import Blobs
from .digest import UserRecord, digest, export, record_sizes
from .histories import Histories, History
from .ids import IdMap, ItemTable
from .log import LogChunk, decode_chunk
from .rocks import Rocks
from .tables import LOG, MIX, Tables, log_key

__all__ = ["Reader"]

_EMPTY = History(
    np.empty(0, np.int32),
    np.empty(0, np.int64),
    np.empty(0, np.uint16),
    np.empty(0, np.float32),
    np.empty(0, np.uint64),
    0,
    -1,
)


class Reader:
    """An open store, seen as it was after the last commit; all methods are thread-safe."""

    path: Path
    config: StoreConfig
    _db: Rocks
    _tables: Tables
    _histories: Histories
    _lock: threading.RLock
    _blobs: Blobs
    _closed: bool

    @property
    def store_id(self) -> str:
        """A name that no other store has."""
        return self._tables.counters.store_id

    @property
    def epoch(self) -> int:
        """How many times the store was opened for writing."""
        return self._tables.counters.epoch

    @property
    def users(self) -> IdMap:
        """User ids and rows."""
        return self._tables.users

    @property
    def items(self) -> ItemTable:
        """Item ids and rows, catalogue records, availability."""
        return self._tables.items

    @property
    def types(self) -> IdMap:
        """Event types; a type's code in histories and log is 1 + its row, 0 stands for no type."""
        return self._tables.types

    @property
    def next_seq(self) -> int:
        """The sequence number that the next applied event gets: how many were ever applied."""
        return self._tables.counters.next_seq

    @property
    def item_changes(self) -> int:
        """A number that differs whenever an item that was there before has another record or got its first event."""
        return self._tables.counters.item_changes

    def offsets(self) -> dict[str, int]:
        """Return the next offset of every source."""
        with self._lock:
            return dict(self._tables.offsets)

    def source_info(self) -> dict[str, bytes]:
        """Return the facts stored about sources."""
        with self._lock:
            return dict(self._tables.source_info)

    def mix(self) -> bytes | None:
        """Return the stored state of the mixture."""
        with self._lock:
            value = self._open_db().get(MIX)
        return None if value is None else value[1:]

    def history(self, user_row: int, *, warm: bool = False) -> History:
        """Return a user's history, empty for a row without one; ``warm`` also keeps it in memory."""
        return self.histories([user_row], warm=warm)[0]

    def histories(self, user_rows: list[int], *, warm: bool = False) -> list[History]:
        """Return the histories of many users as of one moment."""
        with self._lock:
            self._open_db()
            live = [row for row in user_rows if self._tables.users.id(row) is not None]
            found = iter(self._histories.read(live, warm=warm))
            if len(live) == len(user_rows):
                return list(found)
            return [_EMPTY if self._tables.users.id(row) is None else next(found) for row in user_rows]

    def seen(self, user_row: int) -> NDArray[np.int32]:
        """Return all item rows a user ever had, ascending; with a horizon only the newest beyond the history."""
        with self._lock:
            self._open_db()
            if self._tables.users.id(user_row) is None:
                return np.empty(0, np.int32)
            return self._histories.seen(user_row)

    def log(self, from_seq: int = 0) -> Iterator[LogChunk]:
        """Iterate over the log from ``from_seq`` on, as of now; begins later if that was trimmed."""
        with self._lock:
            db = self._open_db()
            start = db.last(log_key(max(0, from_seq)))
            records = db.scan(LOG, start if start is not None and start.startswith(LOG) else None)
        return self._chunks(records, from_seq)

    def _chunks(self, records: Iterator[tuple[bytes, bytes]], from_seq: int) -> Iterator[LogChunk]:
        for key, value in records:
            try:
                chunk = decode_chunk(int.from_bytes(key[1:], "big"), value)
            except ValueError as error:
                raise StoreCorruptError(f"the log of the store {self.path} is damaged: {error}") from None
            chosen = (chunk.seqs >= from_seq) & (chunk.user_rows >= 0)
            if chosen.any():
                yield chunk if chosen.all() else chunk.take(chosen)

    def export(self) -> Iterator[UserRecord]:
        """Iterate over all users by external ids (`digest.export`)."""
        return export(self)

    def digest(self) -> str:
        """Return the SHA-256 of all user records by external ids (`digest.digest`)."""
        return digest(self)

    def get_blob(self, name: str) -> tuple[bytes, int] | None:
        """Return a cache and the sequence number it stands at; None if it is missing, damaged or ahead of the truth."""
        return self._blobs.get(name, self.store_id, self.next_seq)

    def stats(self) -> dict[str, int | float]:
        """Return sizes; reads every user record, so it takes seconds for millions of users."""
        with self._lock:
            db = self._open_db()
            slab = self._histories.slab
            users, next_seq, hot = self._tables.users.live, self.next_seq, len(slab)
        sizes = record_sizes(db, 2 * self.config.anchor)
        return {
            "users": users,
            "items": len(self._tables.items),
            "events": next_seq,
            "kept_events": sizes.kept_events,
            "log_events": 0 if sizes.first_seq is None else next_seq - sizes.first_seq,
            "hot_users": hot,
            "hot_history_bytes": slab.bytes_per_slot,
            "cold_user_bytes": sizes.user_bytes / users if users else 0.0,
            "user_bytes": sizes.user_bytes,
            "log_bytes": sizes.log_bytes,
            "table_file_bytes": db.file_bytes(),
        }

    def _open_db(self) -> Rocks:
        if self._closed:
            raise ClosedError(f"the store {self.path} is closed")
        return self._db
