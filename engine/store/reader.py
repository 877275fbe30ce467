"""Reader of a store, also beside its writer."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ..config import StoreConfig
from ..errors import ClosedError, StoreError, StoreFormatError
from .blobs import Blobs
from .digest import UserRecord, digest, export, record_sizes
from .histories import Histories, History
from .ids import IdMap, ItemTable
from .log import LogChunk, decode_chunk
from .records import FORMAT, LOG, MIX, check_format, decode_blob, log_key, seq_of
from .rocks import Rocks
from .tables import Tables

__all__ = ["CACHES", "DATABASE", "FORMAT_FILE", "Database", "Reader", "check_format_file", "close_quietly"]

# opens the database of a path with so many bytes of cache; with a third path for the notes of a reader
Database = Callable[[Path, int, Path | None], Rocks]

FORMAT_FILE = "FORMAT"
DATABASE = "rocks"
CACHES = "caches"
# a writer may delete files that a reader is about to open; the next attempt sees the newer ones
_OPEN_ATTEMPTS = 5

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
    """An open store as of the last commit, or for a reader beside a writer of the last `catch_up`.

    All methods are thread-safe.
    """

    def __init__(self, path: Path, config: StoreConfig, database: Database, secondary: Path | None) -> None:
        """Use `open`."""
        self.path = path
        self.config = config
        self._database = database
        self._secondary = secondary
        # undone by `close`, beside the database
        self._cleanup = contextlib.ExitStack()
        self._lock = threading.RLock()
        self._closed = False
        self._blobs = Blobs(path / CACHES)
        self._db: Rocks
        self._tables: Tables
        self._histories: Histories
        self._open_database()

    @classmethod
    def open(
        cls,
        path: str | Path,
        config: StoreConfig | None = None,
        *,
        secondary: str | Path | None = None,
        database: Database = Rocks,
    ) -> Self:
        """Open the store in directory ``path`` for reading: as of now, with a writer beside it or without.

        ``secondary`` is a directory for RocksDB's notes (None: a temporary one); ``database`` opens the database (tests
        inject faults there). Raises ``StoreFormatError``, ``StoreCorruptError``, ``StoreError``, and ``ConfigError`` if
        the store was made with another anchor.
        """
        path, config = Path(path), config or StoreConfig()
        check_format_file(path, must_exist=True)
        with contextlib.ExitStack() as cleanup:
            if secondary is None:
                secondary = cleanup.enter_context(TemporaryDirectory(prefix="recurra-reader-"))
            reader = cls(path, config, database, Path(secondary))
            reader._cleanup = cleanup.pop_all()
            return reader

    def catch_up(self) -> None:
        """Read what the writer has committed since. `users`, `items`, `types` may be new objects."""
        with self._lock:
            # not RocksDB's own catching up: after a flush it answers from its old memory table until new writes come
            # (seen with rocksdict 0.3.29)
            close_quietly(self._open_db())
            self._db = self._loaded(self._tables)
            self._histories.db = self._db
            self._histories.slab.drop_all()

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

    @property
    def failure(self) -> str | None:
        """Why the store refuses to write, None while it does not; a reader never writes."""
        return None

    @property
    def damage(self) -> str | None:
        """The first damaged record that was met since the store was opened, None while there is none."""
        return self._db.damage

    def offsets(self) -> dict[str, int]:
        """Return the next offset of every source; waits for no lock, since health asks for it."""
        return dict(self._tables.offsets)

    def source_info(self) -> dict[str, bytes]:
        """Return the facts stored about sources; waits for no lock, since health asks for it."""
        return dict(self._tables.source_info)

    def mix(self) -> bytes | None:
        """Return the stored state of the mixture."""
        with self._lock:
            value = self._open_db().get(MIX)
        try:
            return None if value is None else decode_blob(value)
        except ValueError as error:
            raise self._db.damaged(f"the state of the mixture in the store {self.path} is damaged: {error}") from None

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
                chunk = decode_chunk(seq_of(key), value)
            except ValueError as error:
                raise self._db.damaged(f"the log of the store {self.path} is damaged: {error}") from None
            chosen = (chunk.seqs >= from_seq) & (chunk.user_rows >= 0)
            if chosen.any():
                yield chunk if chosen.all() else chunk.take(chosen)

    def export(self, chosen: Callable[[str], bool] | None = None) -> Iterator[UserRecord]:
        """Iterate over the ``chosen`` users, or all, by external ids (`digest.export`)."""
        return export(self, chosen)

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
            users, next_seq, hot = self._tables.users.active, self.next_seq, len(slab)
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

    def close(self) -> None:
        """Close the database; may be repeated."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            close_quietly(self._db)
            self._cleanup.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open_database(self) -> None:
        tables = Tables(self.path, self.config.anchor)
        self._attach(self._loaded(tables), tables)

    def _attach(self, db: Rocks, tables: Tables) -> None:
        config = self.config
        slots = max(config.hot_histories, config.batch_events)
        self._db, self._tables = db, tables
        self._histories = Histories(db, slots, 2 * config.anchor, tables.counters.tail_events, config.seen_horizon)

    def _loaded(self, tables: Tables) -> Rocks:
        """Open the database and bring the tables up to it, in as many attempts as a writer beside it may cost."""
        for _ in range(_OPEN_ATTEMPTS - 1):
            with contextlib.suppress(StoreError):
                return self._load(tables)
        return self._load(tables)

    def _load(self, tables: Tables) -> Rocks:
        db = self._database(self.path / DATABASE, self.config.cache_bytes, self._secondary)
        try:
            if not tables.load(db):
                self._start_empty(tables)
        except BaseException:
            close_quietly(db)
            raise
        return db

    def _start_empty(self, tables: Tables) -> None:
        del tables
        raise StoreError(f"the store {self.path} is still empty; nothing was ever committed to it")

    def _open_db(self) -> Rocks:
        if self._closed:
            raise ClosedError(f"the store {self.path} is closed")
        return self._db


def check_format_file(path: Path, *, must_exist: bool) -> None:
    """Refuse a foreign or newer store before the database touches its files; mark a new directory as ours."""
    file = path / FORMAT_FILE
    try:
        check_format(file.read_text(), path)
    except FileNotFoundError:
        if must_exist:
            raise StoreError(f"there is no store at {path}") from None
        if (path / DATABASE).exists():
            raise StoreFormatError(
                f"{path} holds a database that recurra did not make; choose another directory"
            ) from None
        scratch = file.with_suffix(".tmp")
        scratch.write_text(f"{FORMAT}\n")
        scratch.replace(file)
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(f"cannot read {file}: {error}") from None


def close_quietly(db: Rocks) -> None:
    """Close a database whose commits are in its write-ahead log: a flush that fails on the way out loses nothing."""
    with contextlib.suppress(StoreError, ClosedError):
        db.close()
