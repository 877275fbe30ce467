"""Caches folded from the durable truth: the states of the serving version, the fast memory, the mixture."""

import logging
from functools import partial

import numpy as np
import numpy.typing as npt

from ..config import Config
from ..errors import StoreError
from ..failpoints import failpoint
from ..fast import FastMemory
from ..metrics import Metrics
from ..mix import Mix
from ..store import LATE, Applied, History, LogChunk, Reader, Store
from .locks import FairLock
from .shadow import Shadow
from .version import Move, ServedVersion

__all__ = ["ACTIVATION", "ERROR_MEMORY", "SLOW", "Caches", "ContextEntries", "last_entries"]

ContextEntries = tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]

_log = logging.getLogger(__name__)

_NOTHING: ContextEntries = (np.empty(0, np.int32), np.empty(0, np.int64))
# events learnt under the lock at a time: about a millisecond
_SLICE_EVENTS = 64
_SNAPSHOT = "fast"

# names of the parts beside the counting memory's: the model, what came after vectors like the user's, and the user's
# own items where repeats may be answered
SLOW, ERROR_MEMORY, ACTIVATION = "slow", "error-memory", "activation"


def last_entries(history: History, count: int) -> ContextEntries:
    """Return the item rows and times of the last ``count`` events of a history."""
    return history.items[-count:], history.times_ms[-count:]


class Caches:
    """The caches behind one fair lock: writers change them in slices of a few milliseconds, queries read in between."""

    def __init__(self, store: Reader, config: Config, metrics: Metrics) -> None:
        self.lock = FairLock()
        self.fast = FastMemory(config.fast)
        errors = (ERROR_MEMORY,) if config.fast.error_events else ()
        own = () if config.retrieval.exclude_seen else (ACTIVATION,)
        self.mix = Mix((*self.fast.names, *errors, *own, SLOW))
        self.serving: ServedVersion | None = None
        self.shadow: Shadow | None = None
        self._store = store
        self._config = config
        self._metrics = metrics
        self._saved_seq = 0

    def recover(self) -> None:
        """Fold the fast memory from its snapshot and the log after it; take the mixture as it was committed."""
        if (state := self._store.mix()) is not None and not self.mix.restore(state):
            _log.warning("the stored mixture belongs to other settings; it is learnt again from the start")
        first = self._load_snapshot()
        if chunks := list(self._store.log(first)):
            self._learn(LogChunk.joined(chunks))
        self._saved_seq = first
        failpoint("engine.recovered")

    def contexts_before(self, users: list[int | None]) -> dict[int, ContextEntries]:
        """Return the contexts that the fast memory will ask for, as they are before the events of these users."""
        missing = {user for user in users if user is not None and not self.fast.holds(user)}
        return {user: last_entries(self._store.history(user), self._config.fast.context) for user in missing}

    def advance(self, applied: Applied, contexts: dict[int, ContextEntries]) -> None:
        """Take in one committed batch. A state that cannot be advanced is dropped, and folded again when touched."""
        for user in applied.forgotten:
            self._forget(user)
        changed = np.flatnonzero(applied.status <= LATE)
        for start in range(0, changed.size, _SLICE_EVENTS):
            part = changed[start : start + _SLICE_EVENTS]
            with self.lock:
                self.fast.learn(
                    applied.user_rows[part],
                    applied.item_rows[part],
                    applied.times_ms[part],
                    lambda user: contexts.get(user, _NOTHING),
                )
        moves = _moves(applied, changed)
        if self.serving is not None:
            self._advance(self.serving, moves, applied)
        if self.shadow is not None:
            # it is not asked about others
            held = self.shadow.serving.residency
            self._advance(self.shadow.serving, [move for move in moves if move.user in held], applied)

    def end_shadow(self) -> None:
        """Drop the shadow."""
        with self.lock:
            self.shadow = None

    def _advance(self, serving: ServedVersion, moves: list[Move], applied: Applied) -> None:
        if applied.new_items or applied.catalogue:
            with self.lock:
                serving.items.add(applied.new_items.stop)
                serving.items.update(applied.catalogue)
        try:
            serving.advance(moves, self._store.history, self.lock)
        except Exception:
            # the events are committed: only the states of these users are in doubt
            _log.exception("states could not be advanced; they are folded again when touched")
            self._metrics.failures.labels("advance").inc()
            with self.lock:
                for move in moves:
                    serving.drop(move.user)

    def due(self) -> bool:
        """Whether enough was learnt since the last snapshot."""
        return self._store.next_seq - self._saved_seq >= self._config.fast.snapshot_events

    def save(self, store: Store) -> None:
        """Write a snapshot of the fast memory; the caller keeps writers out."""
        # a snapshot must never hold events that a power loss takes from the store
        store.sync()
        with self.lock:
            blob = self.fast.snapshot()
        try:
            store.put_blob(_SNAPSHOT, blob)
        except (OSError, StoreError) as error:
            _log.warning("no snapshot of the fast memory: %s; the next start reads more of the log", error)
            self._metrics.failures.labels("snapshot").inc()
            return
        self._saved_seq = self._store.next_seq

    def _learn(self, suffix: LogChunk) -> None:
        step = self._config.store.batch_events
        for start in range(0, suffix.seqs.size, step):
            part, rest = suffix.part(start, start + step), suffix.part(start, None)
            self.fast.learn(
                part.user_rows, part.item_rows, part.times_ms, partial(self._context_before, remaining=rest)
            )

    def _forget(self, user: int) -> None:
        with self.lock:
            self.fast.forget(user)
            if self.serving is not None:
                self.serving.forget(user)
            if self.shadow is not None:
                self.shadow.serving.forget(user)

    def _load_snapshot(self) -> int:
        """Return the first event of the log that the fast memory does not hold yet."""
        found = self._store.get_blob(_SNAPSHOT)
        if found is None:
            return 0
        blob, seq = found
        if self.fast.restore(blob):
            return seq
        _log.warning("the snapshot of the fast memory was made under other settings; the whole log is read")
        return 0

    def _context_before(self, user: int, *, remaining: LogChunk) -> ContextEntries:
        """Return the end of a user's history as it was before the events of the log that are not learnt yet."""
        history = self._store.history(user)
        own = remaining.user_rows == user
        later = set(zip(*(column[own].tolist() for column in _identity(remaining)), strict=True))
        entries = zip(*(column.tolist() for column in _identity(history)), strict=True)
        kept = np.array([entry not in later for entry in entries], np.bool_)
        count = self._config.fast.context
        return history.items[kept][-count:], history.times_ms[kept][-count:]


def _identity(entries: History | LogChunk) -> tuple[npt.NDArray[np.integer], ...]:
    """Return the columns by which the store distinguishes events of one user."""
    items = entries.items if isinstance(entries, History) else entries.item_rows
    return items, entries.times_ms, entries.types, entries.hashes


def _moves(applied: Applied, changed: npt.NDArray[np.int64]) -> list[Move]:
    """Group the events that changed a history by user, in order."""
    if not changed.size:
        return []
    by_user = changed[np.argsort(applied.touch[changed], kind="stable")]
    touch = applied.touch[by_user]
    starts = np.flatnonzero(np.r_[True, touch[1:] != touch[:-1]])
    return [
        Move(
            int(applied.touched[touch[start]]),
            int(applied.n_before[touch[start]]),
            int(applied.n_after[touch[start]]),
            bool(applied.late[touch[start]]),
            applied.item_rows[events],
            applied.times_ms[events],
            applied.seq[events],
        )
        for start, events in zip(starts.tolist(), np.split(by_user, starts[1:]), strict=True)
    ]
