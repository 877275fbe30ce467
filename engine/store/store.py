"""The durable truth of one engine: a directory with one database, written by one process."""

import contextlib
import threading
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Self

import msgspec

from ..clock import Clock, SystemClock
from ..config import StoreConfig
from ..errors import ClosedError, StoreError, StoreFormatError
from ..failpoints import TWO_WRITES, failpoint
from ..owner import Owner
from .batch import Applied, Batch
from .blobs import Blobs
from .commit import Commit, Planner
from .histories import Histories
from .log import LogWriter
from .reader import Reader
from .rocks import Rocks
from .tables import FORMAT, LOG, Counters, Tables, check_format

__all__ = ["Store"]

_FORMAT_FILE = "FORMAT"
_DATABASE = "rocks"
# a writer may delete files that a reader is about to open; the next attempt sees the newer ones
_OPEN_ATTEMPTS = 5

Database = Callable[[Path, int, Path | None], Rocks]


class Store(Reader):
    """Histories, seen sets, the log, ids, item records and offsets; every commit is one atomic batch.

    All methods are thread-safe. A commit holds the lock to its end, so that readers see it whole or not at all.
    """

    def __init__(
        self,
        path: Path,
        config: StoreConfig,
        *,
        clock: Clock,
        monotonic: Callable[[], float],
        database: Database,
        owner: Owner | None = None,
        secondary: Path | None = None,
    ) -> None:
        """Use `open`."""
        self.path = path
        self.config = config
        self._clock = clock
        self._monotonic = monotonic
        self._database = database
        self._owner = owner
        self._secondary = secondary
        # what `close` undoes beside the database
        self._cleanup = contextlib.ExitStack()
        self._lock = threading.RLock()
        self._closed = False
        self._failure: str | None = None
        self._blobs = Blobs(path / "caches")
        self._open_database()

    @classmethod
    def open(
        cls,
        path: str | Path,
        config: StoreConfig | None = None,
        *,
        clock: Clock | None = None,
        read_only: bool = False,
        secondary: str | Path | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        database: Database = Rocks,
    ) -> "Store":
        """Open the store in directory ``path``, creating it if it is to be written.

        ``read_only`` opens it for reading beside a writer and sees what was committed until now, `catch_up` what came
        since; ``secondary`` is the same with a directory of its own for RocksDB's notes instead of a temporary one.
        ``clock`` is the default of `apply`'s now; ``monotonic`` counts seconds for the syncs; ``database`` opens the
        database (tests inject faults there). Raises ``StoreInUseError``, ``StoreFormatError``, ``StoreCorruptError``,
        ``StoreError``, and ``ConfigError`` if the store was made with another anchor.
        """
        path, config = Path(path), config or StoreConfig()
        parts: dict[str, Any] = {"clock": clock or SystemClock(), "monotonic": monotonic, "database": database}
        if read_only or secondary is not None:
            _check_format_file(path, must_exist=True)
            notes = None if secondary is None else Path(secondary)
            with contextlib.ExitStack() as cleanup:
                if notes is None:
                    notes = Path(cleanup.enter_context(TemporaryDirectory(prefix="recurra-reader-")))
                store = cls(path, config, **parts, secondary=notes)
                store._cleanup = cleanup.pop_all()
                return store
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"cannot create the store {path}: {error.strerror}") from None
        owner = Owner(path)
        try:
            _check_format_file(path, must_exist=False)
            return cls(path, config, **parts, owner=owner)
        except BaseException:
            owner.release()
            raise

    def _open_database(self) -> None:
        """Open the database and read the tables; a writer raises the epoch."""
        config = self.config
        db, tables = self._loaded(Tables(self.path, config.anchor))
        starts: list[int] = []
        if self._owner is not None:
            try:
                tables.counters = msgspec.structs.replace(tables.counters, epoch=tables.counters.epoch + 1)
                db.write(tables.first_records(tables.counters), [], sync=True)
                self._owner.claim(tables.counters.epoch, datetime.now(UTC).isoformat(timespec="seconds"))
                starts = [int.from_bytes(key[1:], "big") for key in db.keys(LOG)]
            except BaseException:
                _close_quietly(db)
                raise
        self._db, self._tables = db, tables
        slots = max(config.hot_histories, config.batch_events)
        self._histories = Histories(db, slots, 2 * config.anchor, tables.counters.tail_events, config.seen_horizon)
        self._log = LogWriter(config.log_events, starts)
        self._planner = Planner(db, tables, self._histories, self._log)
        self._last_sync = self._monotonic()
        self._synced_offsets = dict(tables.offsets)
        self._failure = None
        failpoint("store.opened")

    def _loaded(self, tables: Tables) -> tuple[Rocks, Tables]:
        """Open the database and bring the tables up to it."""
        for attempt in range(1, _OPEN_ATTEMPTS + 1):
            db = None
            try:
                db = self._database(self.path / _DATABASE, self.config.cache_bytes, self._secondary)
                if not tables.load(db):
                    if self._owner is None:
                        raise StoreError(f"the store {self.path} is still empty; nothing was ever committed to it")
                    tables.counters = Counters(
                        uuid.uuid4().hex, self.config.anchor, tail_events=self.config.tail_events
                    )
            except BaseException as error:
                if db is not None:
                    _close_quietly(db)
                if self._owner is not None or attempt == _OPEN_ATTEMPTS or not isinstance(error, StoreError):
                    raise
            else:
                return db, tables
        raise AssertionError("the last attempt returns or raises")

    def catch_up(self) -> None:
        """Readers only: see what the writer has committed since. `users`, `items`, `types` may be new objects."""
        with self._lock:
            db = self._open_db()
            if self._owner is not None:
                raise StoreError("only a store opened for reading catches up with a writer")
            # not RocksDB's own catching up: after a flush it answers from its old memory table until new writes come
            # (seen with rocksdict 0.3.29)
            _close_quietly(db)
            self._db, self._tables = self._loaded(self._tables)
            self._histories.db = self._db
            self._histories.slab.drop_all()

    @property
    def failure(self) -> str | None:
        """Why the store refuses to write, None while it does not; `reopen` tries again."""
        return self._failure

    def apply(self, batch: Batch, now_ms: int | None = None) -> Applied:
        """Order, deduplicate and commit a batch; returns when it is in the write-ahead log.

        Raises ``InputError`` for a malformed batch, ``StoreFullError``, ``StoreFencedError`` or another ``StoreError``
        when it could not be written; nothing of the batch was applied then. After a failed write the store refuses
        further ones until `reopen`.
        """
        batch.check()
        with self._lock:
            owner = self._writable()
            owner.check()
            now_ms = self._clock.now_ms() if now_ms is None else now_ms
            sync = (self._monotonic() - self._last_sync) * 1000 >= self.config.sync_ms
            commit = self._planner.plan(batch, now_ms + self.config.future_tolerance_ms)
            try:
                self._write(commit, sync)
                self._tables.publish(commit.counters, commit, batch.offsets, batch.source_info)
                self._histories.drop(commit.forgotten)
                self._log.commit(commit.log)
            except BaseException as error:
                # an interrupt may come after the write: only reopening tells what is on disk
                self._histories.drop(commit.applied.touched.tolist())
                self._failure = str(error) or type(error).__name__
                raise
            if sync:
                self._note_sync()
            return commit.applied._replace(synced=sync)

    def _write(self, commit: Commit, sync: bool) -> None:
        failpoint("store.before_commit")
        if TWO_WRITES:
            self._db.write(commit.offset_puts, [], sync=sync)
            failpoint("store.between_writes")
            self._db.write(commit.puts, commit.deletes, sync=sync)
        else:
            self._db.write(commit.puts + commit.offset_puts, commit.deletes, sync=sync)
        failpoint("store.after_commit")

    def forget(self, user: str) -> bool:
        """Erase everything that is kept of a user, and sync; False if there was nothing."""
        empty = Batch.of([])
        empty.forgets = [user]
        with self._lock:
            if user not in self._tables.users:
                return False
            self.apply(empty)
            self.sync()
        return True

    def sync(self) -> None:
        """Bring everything committed so far to the device."""
        with self._lock:
            self._writable()
            try:
                self._db.sync()
            except StoreError as error:
                self._failure = str(error)
                raise
            self._note_sync()

    def _note_sync(self) -> None:
        self._last_sync = self._monotonic()
        self._synced_offsets = dict(self._tables.offsets)
        failpoint("store.synced")

    def synced_offsets(self) -> dict[str, int]:
        """Return the offsets that have reached the device: what a power loss can not take back."""
        with self._lock:
            return dict(self._synced_offsets)

    def put_blob(self, name: str, data: bytes) -> None:
        """Keep a cache (the fast memory's snapshot) beside the truth, marked with the present `next_seq`."""
        self._writable()
        self._blobs.put(name, data, self.store_id, self.next_seq)

    def checkpoint(self, directory: str | Path) -> None:
        """Write a consistent copy to a directory that does not exist yet; it can be opened like any store."""
        directory = Path(directory)
        with self._lock:
            db = self._open_db()
            try:
                directory.mkdir(parents=True)
                (directory / _FORMAT_FILE).write_text(f"{FORMAT}\n")
            except OSError as error:
                raise StoreError(f"cannot write a checkpoint to {directory}: {error.strerror}") from None
            db.checkpoint(directory / _DATABASE)

    def compact(self) -> None:
        """Rewrite all files, so that overwritten and forgotten records leave the device."""
        with self._lock:
            self._writable()
            self._db.compact()

    def reopen(self) -> None:
        """Close the database and open it again, after a failed write; memory equals the disk afterwards.

        Raises ``StoreFullError``, and stays open for reading, as long as the device has no room.
        """
        with self._lock:
            if self._closed or self._owner is None:
                raise ClosedError(f"the store {self.path} is closed or was opened for reading")
            self._owner.check()
            # opening flushes the write-ahead log; while there is no room for that the old handle still answers reads
            self._db.check_room()
            _close_quietly(self._db)
            self._open_database()

    def close(self) -> None:
        """Flush and close; may be repeated. What was committed is safe even if this fails."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            try:
                if self._owner is not None and self._failure is None:
                    self._db.sync()
            finally:
                _close_quietly(self._db)
                if self._owner is not None:
                    self._owner.release()
                self._cleanup.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _writable(self) -> Owner:
        self._open_db()
        if self._owner is None:
            raise StoreError(f"the store {self.path} was opened for reading")
        if self._failure is not None:
            raise StoreError(f"the store refuses to write until it is reopened, because: {self._failure}")
        return self._owner


def _check_format_file(path: Path, *, must_exist: bool) -> None:
    """Refuse a foreign or newer store before the database touches its files; mark a new directory as ours."""
    file = path / _FORMAT_FILE
    try:
        check_format(file.read_text(), path)
    except FileNotFoundError:
        if must_exist:
            raise StoreError(f"there is no store at {path}") from None
        if (path / _DATABASE).exists():
            raise StoreFormatError(
                f"{path} holds a database that recurra did not make; choose another directory"
            ) from None
        scratch = file.with_suffix(".tmp")
        scratch.write_text(f"{FORMAT}\n")
        scratch.replace(file)
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(f"cannot read {file}: {error}") from None


def _close_quietly(db: Rocks) -> None:
    # what was committed is in the write-ahead log; a failing flush on the way out loses nothing
    with contextlib.suppress(StoreError, ClosedError):
        db.close()
