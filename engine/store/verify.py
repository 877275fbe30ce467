"""Offline check of a store: every checksum, every record, and what the records say of each other."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import numpy as np

from ..config import StoreConfig
from ..errors import RecurraError, StoreCorruptError, StoreFormatError
from .blobs import Blobs
from .histories import Histories
from .log import decode_chunk
from .mark import LOST_FILE, Mark, MarkFile, losses
from .reader import CACHES, DATABASE, check_format_file
from .records import BASE, LOG, MIX, SEEN_ITEMS, TAIL, decode_blob, row_of, seq_of
from .rocks import REPAIR, Rocks
from .tables import Tables

__all__ = ["Damage", "verify_store"]


class Damage(msgspec.Struct, frozen=True):
    """One damaged part: ``part`` names it, ``path`` is what has to be put aside, ``remedy`` says what becomes of it.

    ``kind`` is ``store`` (built again from its sources), ``cache`` or ``version`` (built again by the engine), ``mark``
    (written again) or ``loss`` (a person has to know).
    """

    kind: str
    part: str
    path: str
    problem: str
    remedy: str


class _Checks:
    """The checks of one open database; each gives what it finds."""

    def __init__(self, path: Path, config: StoreConfig, db: Rocks) -> None:
        self._path = path
        self._db = db
        self._tables = tables = Tables(path, config.anchor)
        self.empty = not tables.load(db)
        keep, tail_events = 2 * config.anchor, tables.counters.tail_events
        self._histories = Histories(db, 1024, keep, tail_events, config.seen_horizon)

    def mark(self) -> Iterable[str]:
        """Compare what is there with the mark of what was synced."""
        counters = self._tables.counters
        missing = MarkFile(self._path).missing(Mark(counters.store_id, self._db.sequence(), counters.next_seq))
        return () if missing is None else (f"{missing[0]} synced records are missing, {missing[1]} events among them",)

    def tables(self) -> Iterable[str]:
        """Read indexes and filters."""
        self._db.check_tables()
        return ()

    def users(self) -> Iterator[str]:
        """Decode every history and seen set; no user row may lack its id, no event its item."""
        known = {row for _, row in self._tables.users.items()}
        for prefix in (TAIL, BASE, SEEN_ITEMS):
            for key in self._db.keys(prefix):
                if row_of(key) not in known:
                    yield f"there is a record of user row {row_of(key)}, but no id"
                    return
        yield from self._decoded()

    def log(self) -> Iterator[str]:
        """Decode every chunk of the log; their numbers must follow each other up to the counter."""
        counters, expected = self._tables.counters, None
        for key, value in self._db.scan(LOG):
            chunk = decode_chunk(seq_of(key), value)
            if expected is not None and seq_of(key) != expected:
                yield f"the log goes on with event {seq_of(key)} where {expected} is expected"
            expected = seq_of(key) + len(chunk.seqs)
            if int(chunk.item_rows.max(initial=0)) >= max(1, counters.items):
                yield f"the log has an item row beyond the {counters.items} items"
        if expected not in (None, counters.next_seq):
            yield f"the log ends before event {expected}, the counter is at {counters.next_seq}"

    def mixture(self) -> Iterable[str]:
        """Read the state of the mixture."""
        value = self._db.get(MIX)
        if value is not None:
            decode_blob(value)
        return ()

    def _decoded(self) -> Iterator[str]:
        rows = sorted(row for _, row in self._tables.users.items())
        items, types = self._tables.counters.items, self._tables.counters.types
        for first in range(0, len(rows), 512):
            part = rows[first : first + 512]
            for row, history in zip(part, self._histories.read(part), strict=True):
                seen = self._histories.seen(row)
                newest = max(history.items.max(initial=-1), seen.max(initial=-1))
                if newest >= items or int(history.types.max(initial=0)) > types:
                    yield f"the history of user row {row} has an item or type that is not there"
                if not np.all(history.times_ms[1:] >= history.times_ms[:-1]):
                    yield f"the history of user row {row} is out of order"


def verify_store(path: Path, config: StoreConfig) -> Iterator[Damage]:
    """Check the store in directory ``path``, which no process may have open; changes nothing.

    Raises ``StoreFormatError`` and ``ConfigError`` for a store that is not damaged but not for this release or
    configuration.
    """
    check_format_file(path, must_exist=True)
    yield from _beside(path)
    with TemporaryDirectory(prefix="recurra-verify-") as notes:
        yield from _database(path, config, Path(notes))


def _beside(path: Path) -> Iterator[Damage]:
    mark = MarkFile(path)
    try:
        mark.read()
    except (StoreCorruptError, OSError) as error:
        yield Damage("mark", "high-water mark", str(mark.path), str(error), "is written again at the next sync")
    for loss in losses(path):
        remedy = "is closed by --repair once you have dealt with it"
        yield Damage("loss", "synced changes", str(path / LOST_FILE), str(loss), remedy)
    for cache, problem in Blobs(path / CACHES).damaged():
        yield Damage("cache", f"cache {cache.name}", str(cache), problem, "is built again from the store")


def _database(path: Path, config: StoreConfig, notes: Path) -> Iterator[Damage]:
    def damaged(part: str, problem: str) -> Damage:
        return Damage("store", part, str(path), problem.removesuffix(f"; {REPAIR}"), "is built again from its sources")

    def opened(*, whole_log: bool) -> tuple[Rocks, _Checks]:
        db = Rocks(path / DATABASE, config.cache_bytes, notes, whole_log=whole_log)
        try:
            return db, _Checks(path, config, db)
        except BaseException:
            db.close()
            raise

    try:
        db, checks = opened(whole_log=True)
    except StoreFormatError:
        raise
    except RecurraError as error:
        yield damaged("database", str(error))
        return
    try:
        for part, check in _parts(checks):
            try:
                for problem in check():
                    yield damaged(part, problem)
            except (RecurraError, ValueError) as error:
                yield damaged(part, str(error))
    finally:
        db.close()


def _parts(checks: _Checks) -> list[tuple[str, Callable[[], Iterable[str]]]]:
    return [
        ("synced changes", checks.mark),
        ("table files", checks.tables),
        ("users", checks.users),
        ("log", checks.log),
        ("mixture", checks.mixture),
    ]
