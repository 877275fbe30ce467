"""The durable truth of one engine: a directory with one database, written by one process."""

import contextlib
import logging
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import msgspec

from ..clock import Clock, SystemClock
from ..config import StoreConfig
from ..errors import ClosedError, StoreError, StoreFencedError
from ..failpoints import failpoint, pause_between_writes
from ..owner import Owner
from .batch import Applied, Batch
from .commit import Commit, Planner
from .directory import make_directory
from .log import LogWriter
from .mark import Mark, MarkFile, losses
from .reader import DATABASE, FORMAT_FILE, Database, Reader, check_format_file, close_quietly
from .records import FORMAT, LOG, MIX, Counters, encode_blob, seq_of
from .rocks import Rocks
from .tables import Tables

__all__ = ["Plan", "Store"]

_LOG = logging.getLogger(__name__)


class Plan:
    """A batch whose events have their order and status, before it is committed; see `Store.plan`."""

    def __init__(self, planned: Commit, commit: Callable[[bytes | None], Applied]) -> None:
        self._planned = planned
        self._commit = commit
        self.committed = False

    @property
    def applied(self) -> Applied:
        """What the commit will do."""
        return self._planned.applied

    def commit(self, mix: bytes | None = None) -> Applied:
        """Commit the batch, once; returns when it is in the write-ahead log.

        ``mix`` is the state of the mixture that belongs to it, None leaves the stored one. Raises ``StoreFullError``,
        ``StoreFencedError`` or another ``StoreError`` when it could not be written; nothing of the batch was applied
        then, and the store refuses further ones until `Store.reopen`.
        """
        applied = self._commit(mix)
        self.committed = True
        return applied


class Store(Reader):
    """Writer of histories, seen sets, the log, ids, item records and offsets; every commit is one atomic batch.

    All methods are thread-safe. A commit holds the lock to its end, so that readers see it whole or not at all.
    """

    def __init__(
        self,
        path: Path,
        config: StoreConfig,
        database: Database,
        owner: Owner,
        clock: Clock,
        monotonic: Callable[[], float],
    ) -> None:
        """Use `open`."""
        self._owner = owner
        self._clock = clock
        self._monotonic = monotonic
        self._failure: BaseException | None = None
        self._mark = MarkFile(path)
        super().__init__(path, config, database, None)

    # a writer needs a clock, a reader a place for notes: neither is opened through the other's type
    @classmethod
    def open(  # type: ignore[override]
        cls,
        path: str | Path,
        config: StoreConfig | None = None,
        *,
        clock: Clock | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        database: Database = Rocks,
    ) -> Self:
        """Open the store in directory ``path`` for writing, creating it if it is not there.

        ``clock`` is the default of `apply`'s now; ``monotonic`` counts seconds for the syncs; ``database`` opens the
        database (tests inject faults there). Raises ``StoreInUseError``, ``StoreFormatError``, ``StoreCorruptError``,
        ``StoreError``, and ``ConfigError`` if the store was made with another anchor.
        """
        path, config = Path(path), config or StoreConfig()
        make_directory(path, config.hidden_bits)
        owner = Owner(path)
        try:
            check_format_file(path, must_exist=False)
            return cls(path, config, database, owner, clock or SystemClock(), monotonic)
        except BaseException as error:
            owner.release()
            if isinstance(error, OSError):
                raise StoreError.of_file(error, f"cannot open the store {path}") from None
            raise

    def _open_database(self) -> None:
        """Open the database, read the tables and raise the epoch."""
        tables = Tables(self.path, self.config.anchor)
        db = self._load(tables)
        try:
            found = Mark(tables.counters.store_id, db.sequence(), tables.counters.next_seq)
            if (loss := self._mark.compare(found)) is not None:
                _LOG.error("%s: %s", self.path, loss)
            tables.counters = msgspec.structs.replace(tables.counters, epoch=tables.counters.epoch + 1)
            db.write(tables.first_records(tables.counters), [], sync=True)
            self._owner.claim(tables.counters.epoch, datetime.now(UTC).isoformat(timespec="seconds"))
            starts = [seq_of(key) for key in db.keys(LOG)]
        except BaseException:
            close_quietly(db)
            raise
        self._attach(db, tables)
        self._log = LogWriter(self.config.log_events, starts)
        self._planner = Planner(db, tables, self._histories, self._log)
        self._lost = losses(self.path)
        # opening has synced
        self._note_sync()
        self._failure = None
        failpoint("store.opened")

    def _start_empty(self, tables: Tables) -> None:
        tables.counters = Counters(uuid.uuid4().hex, self.config.anchor, tail_events=self.config.tail_events)

    def catch_up(self) -> None:
        """Do nothing: a writer is always as new as its own commits."""

    @property
    def failure(self) -> str | None:
        """Why the store refuses to write, None while it does not; `reopen` tries again."""
        return None if self._failure is None else str(self._failure) or type(self._failure).__name__

    @property
    def damage(self) -> str | None:
        """What is damaged or was lost: the first damaged record met, or synced changes that are missing."""
        found = super().damage
        return found if found or not self._lost else str(self._lost[-1])

    @contextlib.contextmanager
    def plan(self, batch: Batch, now_ms: int | None = None) -> Iterator[Plan]:
        """Order and deduplicate a batch, and hold the store's lock until the plan is committed or given up.

        A plan that is not committed leaves nothing behind. Events after ``now_ms`` (None: the clock's) by more than the
        tolerance are refused. Raises ``InputError`` for a malformed batch, and ``StoreError`` while the store refuses
        to write.
        """
        batch.check()
        with self._lock:
            self._check_writable()
            self._owner.check()
            now_ms = self._clock.now_ms() if now_ms is None else now_ms
            planned = self._planner.plan(batch, now_ms + self.config.future_tolerance_ms)
            plan = Plan(planned, lambda mix: self._commit(batch, planned, mix))
            try:
                yield plan
            finally:
                if not plan.committed:
                    self._histories.drop(planned.applied.touched.tolist())

    def apply(self, batch: Batch, now_ms: int | None = None) -> Applied:
        """Plan a batch and commit it; see `plan` and `Plan.commit`."""
        with self.plan(batch, now_ms) as plan:
            return plan.commit()

    def _commit(self, batch: Batch, commit: Commit, mix: bytes | None) -> Applied:
        if mix is not None:
            commit.puts.append((MIX, encode_blob(mix)))
        sync = (self._monotonic() - self._last_sync) * 1000 >= self.config.sync_ms
        try:
            self._write(commit, sync)
            self._tables.publish(commit.counters, commit, batch.offsets, batch.source_info)
            self._histories.drop(commit.forgotten)
            self._log.commit(commit.log)
        except BaseException as error:
            # an interrupt may come after the write: only reopening shows what is on disk
            self._failure = error
            raise
        if sync:
            self._note_sync()
        return commit.applied._replace(synced=sync)

    def _write(self, commit: Commit, sync: bool) -> None:
        failpoint("store.before_commit")
        if (pause_s := pause_between_writes()) is not None:
            self._db.write(commit.offset_puts, [], sync=sync)
            failpoint("store.between_writes")
            time.sleep(pause_s)
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
            self._check_writable()
            self._owner.check()
            try:
                self._db.sync()
            except StoreError as error:
                self._failure = error
                raise
            self._note_sync()

    def _note_sync(self) -> None:
        self._last_sync = self._monotonic()
        self._synced_offsets = dict(self._tables.offsets)
        self._mark.write(Mark(self.store_id, self._db.sequence(), self.next_seq))
        failpoint("store.synced")

    def synced_offsets(self) -> dict[str, int]:
        """Return the offsets that have reached the device: what a power loss cannot undo."""
        with self._lock:
            return dict(self._synced_offsets)

    def put_blob(self, name: str, data: bytes) -> None:
        """Keep a cache (the fast memory's snapshot) beside the truth, marked with the present `next_seq`."""
        self._check_writable()
        self._owner.check()
        self._blobs.put(name, data, self.store_id, self.next_seq)

    def checkpoint(self, directory: str | Path) -> None:
        """Write a consistent copy to a directory that does not exist yet; it can be opened like any store."""
        directory = Path(directory)
        with self._lock:
            db = self._open_db()
            try:
                directory.mkdir(parents=True, mode=0o777 & ~self.config.hidden_bits)
                (directory / FORMAT_FILE).write_text(f"{FORMAT}\n")
            except OSError as error:
                raise StoreError.of_file(error, f"cannot write a checkpoint to {directory}") from None
            db.checkpoint(directory / DATABASE)

    def compact(self) -> None:
        """Rewrite all files, so that overwritten and forgotten records leave the device."""
        with self._lock:
            self._check_writable()
            self._owner.check()
            self._db.compact()

    def reopen(self) -> None:
        """Close the database and open it again, after a failed write; memory equals the disk afterwards.

        Raises ``StoreFullError``, and stays open for reading, as long as the device has no room.
        """
        with self._lock:
            if self._closed:
                raise ClosedError(f"the store {self.path} is closed")
            self._owner.check()
            # opening flushes the write-ahead log; while there is no room for that the old handle still answers reads
            self._db.check_room()
            close_quietly(self._db)
            self._open_database()

    def close(self) -> None:
        """Flush and close; may be repeated. What was committed is safe even if this fails.

        A store that has another owner by now is closed without a write.
        """
        with self._lock:
            if self._closed:
                return
            try:
                self._owner.check()
                if self._failure is None:
                    self._db.sync()
                    self._note_sync()
            except StoreFencedError as error:
                _LOG.warning("closed without a write: %s", error)
                self._db.abandon()
            finally:
                super().close()
                self._owner.release()

    def _check_writable(self) -> None:
        self._open_db()
        if self._failure is not None:
            # a full disk stays one for the callers that wait for room
            kind = type(self._failure) if isinstance(self._failure, StoreError) else StoreError
            raise kind(f"the store refuses to write until it is reopened, because: {self.failure}")
