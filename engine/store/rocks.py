"""RocksDB behind the few operations that the store needs, its options, and its errors in our words."""

import contextlib
import ctypes
import os
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rocksdict import (
    AccessType,
    BlockBasedOptions,
    Cache,
    Checkpoint,
    ChecksumType,
    DbClosedError,
    DBCompressionType,
    DBRecoveryMode,
    Options,
    Rdict,
    RdictIter,
    WriteBatch,
    WriteOptions,
)

from ..errors import ClosedError, StoreCorruptError, StoreError, StoreFullError, StoreInUseError

__all__ = ["REPAIR", "Rocks", "store_error"]

_WRITE_BUFFER_BYTES = 16 << 20
_BLOCK_BYTES = 16 << 10
_OPEN_FILES = 256
# file descriptors that the rest of the process needs
_OTHER_FILES = 32
# room for new tables and notes, beyond the write-ahead logs
_MARGIN_BYTES = 2 << 20
_LIBRARY_FILE = "rocksdict-config.json"
# what the library writes or locks in a directory that it opens, even for reading
_WRITTEN = frozenset({_LIBRARY_FILE, "LOCK", "LOG"})
_LINKS = "links"
REPAIR = "`recurra verify` says what is damaged and what can be built again"
_FULL = ("No space left", "Disk quota exceeded", "File too large")


class Rocks:
    """One open database of raw byte keys and values; tests wrap or replace it to inject faults.

    ``damage`` says what was found damaged since it was opened, None while nothing was.
    """

    def __init__(self, path: Path, cache_bytes: int, secondary: Path | None = None, *, whole_log: bool = False) -> None:
        """Open for writing, or with a directory ``secondary`` for notes only for reading, also beside a writer.

        ``whole_log`` (only for reading, and without a writer beside) refuses a write-ahead log that is damaged, where
        otherwise what comes before the damage is taken.
        """
        self.path = path
        self.damage: str | None = None
        self._unsynced, self._synced = WriteOptions(), WriteOptions()
        self._synced.sync = True
        options = _options(cache_bytes, secondary is not None)
        try:
            if secondary is None:
                place, access = path, AccessType.read_write()
            else:
                place, access = _mirrored(path, secondary), AccessType.secondary(str(secondary))
            if whole_log:
                options.set_wal_recovery_mode(DBRecoveryMode.tolerate_corrupted_tail_records())
                options.set_db_log_dir(str(secondary))
                access = AccessType.read_only(False)
            self._db = Rdict(str(place), options, access_type=access)
        except Exception as error:
            # of the files, not of the links to them
            text = str(error) if secondary is None else str(error).replace(str(secondary / _LINKS), str(path))
            raise store_error(Exception(text), f"cannot open the store {path.parent}") from None
        finally:
            # a reader holds all files open
            if secondary is not None:
                shutil.rmtree(secondary / _LINKS, ignore_errors=True)

    def damaged(self, problem: str) -> StoreCorruptError:
        """Note that a record is damaged, and return the error to raise."""
        self.damage = self.damage or problem
        return StoreCorruptError(f"{problem}; {REPAIR}")

    def sequence(self) -> int:
        """Return the number of the last change, which grows with every record that is written or deleted."""
        return int(self._db.latest_sequence_number())

    def get(self, key: bytes) -> bytes | None:
        """Return one value, None if the key is absent."""
        try:
            value: bytes | None = self._db.get(key)
        except Exception as error:
            raise self._error(error, f"cannot read {_kind(key)}") from None
        return value

    def get_many(self, keys: list[bytes]) -> list[bytes | None]:
        """Return values as of one moment."""
        if not keys:
            return []
        try:
            values: list[bytes | None] = self._db.get(keys)  # type: ignore[assignment,arg-type]
        except Exception as error:
            raise self._error(error, f"cannot read {_kind(keys[0])}") from None
        return values

    def write(self, puts: list[tuple[bytes, bytes]], deletes: list[bytes], *, sync: bool) -> None:
        """Write everything or nothing; with ``sync`` it has reached the device on return."""
        batch = WriteBatch(raw_mode=True)
        put = batch.put
        for key, value in puts:
            put(key, value)
        for key in deletes:
            batch.delete(key)
        try:
            self._db.write(batch, self._synced if sync else self._unsynced)
        except Exception as error:
            raise self._error(error, "cannot write to the store") from None

    def sync(self) -> None:
        """Bring everything written so far to the device; raises for a flush or compaction that failed before, too."""
        try:
            self._db.flush_wal(True)
        except Exception as error:
            raise self._error(error, "cannot sync the store") from None
        self._check_background("cannot sync the store")

    def scan(self, prefix: bytes, start: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        """Iterate over the keys with this prefix and their values in order, from ``start`` on, as of this call."""
        cursor = self._cursor(start or prefix)
        return ((key, cursor.value()) for key in self._walk(cursor, prefix))

    def keys(self, prefix: bytes) -> Iterator[bytes]:
        """Iterate over the keys with this prefix in order, as of this call."""
        return self._walk(self._cursor(prefix), prefix)

    def _walk(self, cursor: RdictIter, prefix: bytes) -> Iterator[bytes]:
        try:
            while cursor.valid():
                key: bytes = cursor.key()
                if not key.startswith(prefix):
                    return
                yield key
                cursor.next()
            cursor.status()
        except Exception as error:
            raise self._error(error, f"cannot read {_kind(prefix)}") from None

    def _cursor(self, start: bytes) -> RdictIter:
        try:
            cursor = self._db.iter()
            cursor.seek(start)
        except Exception as error:
            raise self._error(error, f"cannot read {_kind(start)}") from None
        return cursor

    def last(self, key: bytes) -> bytes | None:
        """Return the greatest key that is not greater than ``key``."""
        try:
            cursor = self._db.iter()
            cursor.seek_for_prev(key)
            found: bytes | None = cursor.key() if cursor.valid() else None
            cursor.status()
        except Exception as error:
            raise self._error(error, f"cannot read {_kind(key)}") from None
        return found

    def compact(self) -> None:
        """Rewrite all files, dropping overwritten and deleted records for good."""
        try:
            self._db.compact_range(None, None)
        except Exception as error:
            raise self._error(error, "cannot compact the store") from None
        # the library does not say whether it failed
        self._check_background("cannot compact the store")

    def check_room(self) -> None:
        """Raise ``StoreFullError`` unless the device has room for what the write-ahead logs hold."""
        probe = self.path / "room.tmp"
        # random, so that a compressing file system does not fool us
        block = os.urandom(1 << 20)
        wanted = _MARGIN_BYTES
        for log in self.path.glob("*.log"):
            # the library deletes old logs in the background
            with contextlib.suppress(FileNotFoundError):
                wanted += log.stat().st_size
        try:
            with probe.open("wb") as file:
                for _ in range(0, wanted, len(block)):
                    file.write(block)
        except OSError as error:
            raise store_error(error, f"cannot reopen the store {self.path.parent}") from None
        finally:
            probe.unlink(missing_ok=True)

    def checkpoint(self, path: Path) -> None:
        """Write a consistent copy, sharing unchanged files by hard links where the file system can."""
        try:
            Checkpoint(self._db).create_checkpoint(str(path))
        except Exception as error:
            raise store_error(error, f"cannot write a checkpoint to {path}") from None

    def check_tables(self) -> None:
        """Read the indexes and filters of all table files: a scan reads only the records."""
        for file in self._db.live_files():
            for key in (file["start_key"], file["end_key"]):
                self.get(key)

    def file_bytes(self) -> int:
        """Return the size of all live table files."""
        files: list[dict[str, Any]] = self._db.live_files()
        return sum(int(file["size"]) for file in files)

    def close(self) -> None:
        """Flush and close; raises if the flush failed, the handle is gone in any case."""
        try:
            self._db.close()
        except Exception as error:
            raise store_error(error, "cannot flush the store while closing it") from None

    def abandon(self) -> None:
        """Stop using files that belong to another process by now: the library deletes by path when it closes.

        The handle is kept until the process ends.
        """
        self._db.cancel_all_background(True)
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._db))
        self._db = _Closed()  # type: ignore[assignment]

    def _check_background(self, doing: str) -> None:
        """Raise for a flush or a compaction that failed; the library says why at the next flush, until it is mended."""
        if self._db.property_int_value("rocksdb.background-errors"):
            try:
                self._db.flush()
            except Exception as error:
                raise self._error(error, doing) from None

    def _error(self, error: Exception, doing: str) -> Exception:
        found = store_error(error, doing)
        if isinstance(found, StoreCorruptError):
            self.damage = self.damage or str(found)
        return found


class _Closed:
    """Stands for a database that was abandoned."""

    def __getattr__(self, name: str) -> Any:
        raise DbClosedError("the database is closed")


def _mirrored(path: Path, notes: Path) -> Path:
    """Make a directory of links to the database's files: the library writes into the directory that it opens."""
    mirror = notes / _LINKS
    shutil.rmtree(mirror, ignore_errors=True)
    mirror.mkdir(parents=True)
    for file in path.iterdir():
        if file.name not in _WRITTEN:
            (mirror / file.name).symlink_to(file.absolute())
    shutil.copyfile(path / _LIBRARY_FILE, mirror / _LIBRARY_FILE)
    return mirror


def _options(cache_bytes: int, secondary: bool) -> Options:
    options = Options(raw_mode=True)
    options.create_if_missing(not secondary)
    # a torn or damaged write-ahead log gives the state at an earlier batch boundary, never a hole
    options.set_wal_recovery_mode(DBRecoveryMode.point_in_time())
    options.set_paranoid_checks(True)
    # a reader must hold its files open, because the writer deletes them
    options.set_max_open_files(-1 if secondary else _open_files())
    options.set_write_buffer_size(_WRITE_BUFFER_BYTES)
    options.set_max_write_buffer_number(3)
    options.set_max_total_wal_size(4 * _WRITE_BUFFER_BYTES)
    options.set_max_background_jobs(2)
    options.set_bytes_per_sync(1 << 20)
    options.set_keep_log_file_num(2)
    options.set_max_log_file_size(1 << 20)
    options.set_stats_dump_period_sec(0)
    options.set_compression_type(DBCompressionType.lz4())
    options.set_bottommost_compression_type(DBCompressionType.zstd())
    table = BlockBasedOptions()
    table.set_block_cache(Cache(cache_bytes))
    table.set_block_size(_BLOCK_BYTES)
    table.set_bloom_filter(10, False)
    table.set_cache_index_and_filter_blocks(True)
    table.set_pin_l0_filter_and_index_blocks_in_cache(True)
    table.set_checksum_type(ChecksumType.xxh3())
    options.set_block_based_table_factory(table)
    return options


def _open_files() -> int:
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed == resource.RLIM_INFINITY:
        return _OPEN_FILES
    return max(16, min(_OPEN_FILES, allowed - _OTHER_FILES))


_KINDS = {
    b"B": "the base block of a history",
    b"I": "the items",
    b"L": "a chunk of the log",
    b"M": "the store's own facts",
    b"O": "the offsets of the sources",
    b"S": "a seen record",
    b"T": "the tail block of a history",
    b"U": "the ids of users",
    b"Y": "the types of events",
}


def _kind(key: bytes) -> str:
    return _KINDS.get(key[:1], "a record")


def store_error(error: Exception, doing: str) -> Exception:
    """Turn an exception of the database into the one of ours that says what to do."""
    # one sentence, also of a message of several lines
    text = " ".join(str(error).split())
    if isinstance(error, DbClosedError):
        return ClosedError(f"{doing}: the store is closed")
    if any(sign in text for sign in _FULL):
        return StoreFullError(f"{doing}: {text}; free some space, nothing was applied")
    if "Corruption" in text or "checksum mismatch" in text:
        return StoreCorruptError(f"{doing}, the data is damaged: {text}; {REPAIR}")
    if "LOCK" in text and ("lock hold by" in text or "unavailable" in text):
        return StoreInUseError(f"{doing}: another process holds it")
    return StoreError(f"{doing}: {text}")
