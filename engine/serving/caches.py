"""Caches folded from the durable truth: the states of the serving version, the fast memory, the mixture."""

import logging
from collections.abc import Callable, Collection, Mapping
from functools import partial
from itertools import groupby
from operator import itemgetter

import numpy as np
import numpy.typing as npt

from ..config import Config
from ..errors import StoreError
from ..events import Item, feature_buckets
from ..failpoints import failpoint
from ..fast import FastMemory
from ..metrics import Metrics
from ..mix import Lessons, Mix
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
        self.lessons = Lessons(config.mix)
        self.serving: ServedVersion | None = None
        self.shadow: Shadow | None = None
        self._store = store
        self._config = config
        self._metrics = metrics
        self._saved_seq = 0
        # the fast memory has events that were not committed
        self._ahead = False

    def recover(self) -> None:
        """Fold the fast memory from its snapshot and the log after it; take the mixture as it was committed."""
        if (state := self._store.mix()) is not None and not self.restore_mix(state):
            _log.warning("the stored mixture belongs to other settings; it is learnt again from the start")
        self._fold()

    def _fold(self) -> None:
        fast = FastMemory(self._config.fast)
        first = self._load_snapshot(fast)
        self._learn(fast, first, list(self._store.log(first)))
        with self.lock:
            self.fast = fast
        self._saved_seq = first
        failpoint("engine.recovered")

    def mix_state(self) -> bytes:
        """Return what the mixture knows and what it learns from, to be committed."""
        return self.mix.state() + self.lessons.state()

    def restore_mix(self, state: bytes) -> bool:
        """Take over what `mix_state` returned; False, and nothing changes, if it belongs to other settings."""
        size = self.mix.state_bytes
        if not self.mix.restore(state[:size]):
            return False
        self.lessons.restore(state[size:])
        return True

    def contexts_before(self, users: list[int | None]) -> dict[int, ContextEntries]:
        """Return the contexts that the fast memory will ask for, as they are before the events of these users."""
        missing = {user for user in users if user is not None and not self.fast.holds(user)}
        return {user: last_entries(self._store.history(user), self._config.fast.context) for user in missing}

    def learn(
        self,
        planned: Applied,
        contexts: dict[int, ContextEntries],
        lessons: Collection[int],
        teach: Callable[[int], None],
        records: Mapping[int, Item],
    ) -> None:
        """Take a batch into the fast memory, right before its commit: its events, then ``records`` by item rows.

        ``teach(event)`` is called for those in ``lessons`` when all before them were learnt. Without a commit call
        `undo`.
        """
        self._ahead = True
        for user in planned.forgotten:
            self._forget(user)
        changed = np.flatnonzero(planned.status <= LATE)
        for start in range(0, changed.size, _SLICE_EVENTS):
            part = changed[start : start + _SLICE_EVENTS]
            columns = (planned.user_rows[part], planned.item_rows[part], planned.times_ms[part])
            with self.lock:
                learn = self.fast.begin(*columns, lambda user: contexts.get(user, _NOTHING))
            for place in [place for place, event in enumerate(part.tolist()) if event in lessons]:
                with self.lock:
                    learn(place)
                teach(int(part[place]))
            with self.lock:
                learn(part.size)
        for row, record in records.items():
            with self.lock:
                self._describe(self.fast, row, record)

    def _describe(self, fast: FastMemory, row: int, record: Item | None) -> None:
        if self._config.fast.attributes:
            fast.describe(row, np.array(feature_buckets(record, self._config.fast.attributes), np.int32))

    def undo(self, mix: bytes) -> None:
        """Forget what was learnt from a batch that was not committed; ``mix`` is what the mixture knew before it.

        The fast memory is folded again before the next batch: answers have the lost events until then.
        """
        self.restore_mix(mix)

    def catch_up(self) -> None:
        """Fold the fast memory again if the batch before was not committed."""
        if self._ahead:
            self._fold()
            self._ahead = False

    def advance(self, applied: Applied) -> None:
        """Take one committed batch into the states. One that cannot be advanced is dropped, and folded when touched."""
        self._ahead = False
        moves = _moves(applied, np.flatnonzero(applied.status <= LATE))
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

    def _learn(self, fast: FastMemory, first: int, chunks: list[LogChunk]) -> None:
        """Learn the log from event ``first`` on, and the catalogue records that came since, each at its place."""
        items, start = self._store.items, 0
        suffix = LogChunk.joined(chunks)
        for seq, rows in groupby(items.described_since(first), key=itemgetter(0)):
            stop = int(np.searchsorted(suffix.seqs, seq))
            self._learn_events(fast, suffix, start, stop)
            start = stop
            for _, row in rows:
                self._describe(fast, row, items.record(row))
        self._learn_events(fast, suffix, start, suffix.seqs.size)

    def _learn_events(self, fast: FastMemory, suffix: LogChunk, first: int, end: int) -> None:
        step = self._config.store.batch_events
        for start in range(first, end, step):
            part, rest = suffix.part(start, min(end, start + step)), suffix.part(start, None)
            fast.learn(part.user_rows, part.item_rows, part.times_ms, partial(self._context_before, remaining=rest))

    def _forget(self, user: int) -> None:
        with self.lock:
            self.fast.forget(user)
            if self.serving is not None:
                self.serving.forget(user)
            if self.shadow is not None:
                self.shadow.serving.forget(user)

    def _load_snapshot(self, fast: FastMemory) -> int:
        """Return the first event of the log that the fast memory does not hold then."""
        found = self._store.get_blob(_SNAPSHOT)
        if found is None:
            return 0
        blob, seq = found
        if fast.restore(blob):
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
