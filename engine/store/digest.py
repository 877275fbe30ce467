"""The store's content by external ids: the plain export for auditors, its digest, and the size of the records."""

import hashlib
import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from .codec import counter
from .histories import History
from .ids import IdMap, ItemTable
from .records import BASE, LOG, SEEN_ITEMS, TAIL, USER, seq_of
from .rocks import Rocks

__all__ = ["RecordSizes", "Truth", "UserRecord", "digest", "export", "record_sizes"]

_CHUNK_USERS = 256
# what RocksDB adds to a key before compression: sequence number and type, three lengths
_KEY_OVERHEAD = 11


class UserRecord(NamedTuple):
    """Everything that the store knows of one user, free of rows."""

    user: str
    # all events ever applied
    n: int
    partition: int
    # (item, time_ms, type, weight, hash of the event id or 0) in (time, arrival) order
    history: list[tuple[str, int, str | None, float | None, int]]
    # distinct items, ascending
    seen: list[str]


class Truth(Protocol):
    """Content of a store as the export asks for it."""

    @property
    def users(self) -> IdMap:
        """User ids and rows."""

    @property
    def items(self) -> ItemTable:
        """Item ids and rows."""

    @property
    def types(self) -> IdMap:
        """Event types."""

    def histories(self, user_rows: list[int]) -> list[History]:
        """Return the histories of many users as of one moment."""

    def seen(self, user_row: int) -> NDArray[np.int32]:
        """Return all item rows a user ever had, ascending."""


def export(reader: Truth, chosen: Callable[[str], bool] | None = None) -> Iterator[UserRecord]:
    """Iterate over the ``chosen`` users (None: all) in order of their rows.

    Commits in between are seen by the users that come after.
    """
    rows = [row for user, row in reader.users.items() if chosen is None or chosen(user)]
    kinds: list[str | None] = [None, *(name for name, _ in reader.types.items())]
    for first in range(0, len(rows), _CHUNK_USERS):
        part = rows[first : first + _CHUNK_USERS]
        for row, history in zip(part, reader.histories(part), strict=True):
            user = reader.users.id(row)
            if user is None:
                continue
            names = reader.items.ids(history.items.tolist())
            seen = sorted(str(name) for name in reader.items.ids(reader.seen(row).tolist()))
            columns = (
                history.times_ms.tolist(),
                history.types.tolist(),
                history.weights.tolist(),
                history.hashes.tolist(),
            )
            events = [
                (str(name), time, kinds[kind], None if weight != weight else weight, event_hash)
                for name, time, kind, weight, event_hash in zip(names, *columns, strict=True)
            ]
            yield UserRecord(user, history.n, history.partition, events, seen)


def digest(reader: Truth) -> str:
    """Return the SHA-256 of all user records in order of user ids, in hexadecimal.

    Rows, batches, blocks and partitions leave no trace in it: stores that hold the same of every user have the same
    digest, whatever way they took there.
    """
    records = sorted((record.user.encode(), _record_digest(record)) for record in export(reader))
    total = hashlib.sha256()
    for user, record in records:
        total.update(struct.pack("<I", len(user)) + user + record)
    return total.hexdigest()


def _record_digest(record: UserRecord) -> bytes:
    parts = [struct.pack("<QII", record.n, len(record.history), len(record.seen))]
    for item, time_ms, kind, weight, event_hash in record.history:
        parts.append(_text(item) + _text(kind))
        parts.append(struct.pack("<qfQ", time_ms, np.nan if weight is None else weight, event_hash))
    parts += [_text(item) for item in record.seen]
    return hashlib.sha256(b"".join(parts)).digest()


def _text(value: str | None) -> bytes:
    if value is None:
        return b"\xff\xff\xff\xff"
    data = value.encode()
    return struct.pack("<I", len(data)) + data


class RecordSizes(NamedTuple):
    """Sums over the records of a store, before compression, in bytes."""

    user_bytes: int
    log_bytes: int
    kept_events: int
    first_seq: int | None


def record_sizes(db: Rocks, keep: int) -> RecordSizes:
    """Measure all records of users and of the log; ``keep`` is how many events a history holds."""
    user_bytes = log_bytes = kept_events = 0
    first_seq: int | None = None
    for prefix in (BASE, SEEN_ITEMS, TAIL, USER):
        for key, value in db.scan(prefix):
            user_bytes += len(key) + len(value) + _KEY_OVERHEAD
            if prefix == TAIL:
                kept_events += min(keep, counter(value))
    for key, value in db.scan(LOG):
        log_bytes += len(key) + len(value) + _KEY_OVERHEAD
        if first_seq is None:
            first_seq = seq_of(key)
    return RecordSizes(user_bytes, log_bytes, kept_events, first_seq)
