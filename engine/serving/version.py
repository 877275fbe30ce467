"""One version being served: its weights, the states of hot users under it, and the index of its item vectors."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from ...kernels.arrays import Float32s
from ..config import Config
from ..fast import ErrorMemory, Moment
from ..model import StepWeights
from ..states import Residency, anchor, create_slab
from ..store import History, ItemTable, LogChunk
from .items import ServedItems
from .locks import FairLock

__all__ = ["Move", "ServedVersion"]


# a state step costs some microseconds: slices of this many tokens keep a waiting query under a few milliseconds
_SLICE_TOKENS = 512
# a user that is not hot is still stepped at once if its fold is this short
_SHORT_FOLD = 16
# users whose vectors before past events are made together
_TOGETHER = 64
_NONE = np.empty(0, np.int64)


class Move(NamedTuple):
    """What a micro-batch did to one user: counters before and after, and its new events in order."""

    user: int
    before: int
    after: int
    late: bool
    items: npt.NDArray[np.int32]
    times_ms: npt.NDArray[np.int64]
    # numbers of the events in the log
    seqs: npt.NDArray[np.int64]


class _Run(NamedTuple):
    user: int
    slot: int
    n: int
    reset: bool
    items: npt.NDArray[np.int32]
    times_ms: npt.NDArray[np.int64]
    # which of the events are new to the error memory, ascending, and their numbers in the log
    places: npt.NDArray[np.int64]
    seqs: npt.NDArray[np.int64]


class ServedVersion:
    """The caches of one version: states of hot users, items, error memory.

    A state is kept with the counter ``n`` that it covers and is never used for another. ``items`` returns the store's
    items, whatever version serves.
    """

    def __init__(
        self,
        number: int,
        weights: StepWeights,
        vocabulary: Sequence[str],
        items: Callable[[], ItemTable],
        config: Config,
    ) -> None:
        self.number = number
        self.weights = weights
        self._config = config
        self._anchor = config.store.anchor
        # two versions are in memory while one replaces the other: the bound covers both
        slots = max(2, config.states.hot_users // 2)
        self.slab = create_slab(weights, slots, config.states, threads=config.threads)
        self.residency = Residency(slots)
        # the users' vectors before the last events, each with the item that came
        events = config.fast.error_events
        self.error_memory = ErrorMemory(events, weights.item_table.shape[1]) if events else None
        # the vector of users without events
        self.slab.advance([0], [0], [0], [True], _NONE, _NONE)
        self.start_vector: Float32s = self.slab.vectors[0].copy()
        self._n = np.full(slots, -1, np.int64)
        self.items = ServedItems(weights, vocabulary, items, config.retrieval, self.slab.add_items)

    def advance(self, moves: Iterable[Move], read: Callable[[int], History], lock: FairLock) -> None:
        """Bring the states of the moved users up to their new counters.

        A hot user whose events came in order and passed no anchor is stepped; one with a late event or a new anchor is
        folded again from its history; one that is not hot is folded if there is room or little to fold.
        """
        pending = iter(moves)
        more = True
        while more:
            with lock:
                runs, more = self._slice(pending, read)
                self._fill(runs)

    def rebuild_error_memory(self, events: LogChunk, read: Callable[[int], History]) -> None:
        """Let the error memory learn events of the log again; for a version that does not serve yet.

        The vectors are folded from the histories as they are now, each from the user's present anchor.
        """
        order = np.argsort(events.user_rows, kind="stable")
        by_user = LogChunk._make(column[order] for column in events)
        starts = np.flatnonzero(np.diff(by_user.user_rows, prepend=-1))
        runs = []
        for start, end in zip(starts.tolist(), [*starts[1:].tolist(), order.size], strict=True):
            own = by_user.part(start, end)
            user = int(own.user_rows[0])
            history = read(user)
            move = Move(user, history.n - own.seqs.size, history.n, False, own.item_rows, own.times_ms, own.seqs)
            runs.append(self._refold(move, history))
            # a run must not evict another one
            if len(runs) == min(_TOGETHER, len(self._n) // 2):
                self._fill(runs)
                runs = []
        self._fill(runs)

    def encode(self, users: Sequence[int], read: Callable[[int], History]) -> None:
        """Fold the states of the given users from their histories; for a version that does not serve yet."""
        for start in range(0, len(users), 8):
            self._fill([self._fold(user, read(user)) for user in users[start : start + 8]])

    def covers(self, user: int, n: int) -> bool:
        """Whether the state of a user is hot and covers at least ``n`` events."""
        slot = self.residency.find(user)
        return slot is not None and int(self._n[slot]) >= n

    def vector(self, user: int, history: History, now_ms: int) -> Float32s:
        """Return the vector [d] of a user as of ``now_ms``; folds the state first if it is not hot."""
        if not self.covers(user, history.n):
            self._fill([self._fold(user, history)])
        slot = self.residency.find(user)
        assert slot is not None
        if not self._config.retrieval.query_time:
            vector: Float32s = self.slab.vectors[slot].copy()
            return vector
        modulated: Float32s = self.slab.query([slot], max(now_ms, int(history.times_ms[-1])))[0]
        return modulated

    def with_room_for(self, users: int) -> "ServedVersion":
        """Return the same version with room for the states of ``users`` users, none folded yet, to be scored only."""
        change = msgspec.structs.replace
        config = change(
            self._config,
            states=change(self._config.states, hot_users=2 * users),
            retrieval=change(self._config.retrieval, exact_items=2**31 - 1),
            fast=change(self._config.fast, error_events=0),
        )
        return ServedVersion(self.number, self.weights, list(self.items.vocabulary), self.items.table, config)

    def vote_errors(
        self, user: int, expected: npt.NDArray[np.int32], at: Moment
    ) -> tuple[npt.NDArray[np.int32], Float32s]:
        """Return the error memory's votes for a user whose state is hot; see ``ErrorMemory.vote``."""
        slot = self.residency.find(user)
        if self.error_memory is None or slot is None:
            return np.empty(0, np.int32), np.empty(0, np.float32)
        return self.error_memory.vote(self.slab.vectors[slot], expected, at)

    def error_memory_users(self) -> list[int]:
        """Return the users whose vectors the error memory has."""
        return [] if self.error_memory is None else self.error_memory.users.tolist()

    def drop(self, user: int) -> None:
        """Drop the state of a user; it is folded again when touched."""
        self.residency.drop(user)

    def forget(self, user: int) -> None:
        """Erase everything that is kept of a user."""
        self.drop(user)
        if self.error_memory is not None:
            self.error_memory.forget(user)

    def _slice(self, moves: Iterator[Move], read: Callable[[int], History]) -> tuple[list[_Run], bool]:
        """Take runs until there is a slice of work; also return whether moves may be left."""
        runs: list[_Run] = []
        tokens = 0
        for move in moves:
            run = self._run_of(move, read)
            if run is not None:
                runs.append(run)
                tokens += run.items.size
            # a run must not evict another one of its slice
            if tokens >= _SLICE_TOKENS or len(runs) >= len(self._n) // 2:
                return runs, True
        return runs, False

    def _run_of(self, move: Move, read: Callable[[int], History]) -> _Run | None:
        slot = self.residency.find(move.user)
        same_anchor = anchor(move.before, self._anchor) == anchor(move.after, self._anchor)
        if slot is not None and same_anchor and not move.late and self._n[slot] == move.before:
            places = np.arange(move.items.size)
            return _Run(move.user, slot, move.after, False, move.items, move.times_ms, places, move.seqs)
        if slot is None and self.residency.full and move.after > _SHORT_FOLD:
            return None
        return self._refold(move, read(move.user))

    def _refold(self, move: Move, history: History) -> _Run:
        """Return the fold of a user, with the places of the events of a move whose vectors belong to its anchor."""
        run = self._fold(move.user, history)
        if not run.items.size:
            return run
        first = anchor(move.after, self._anchor)
        if anchor(move.before, self._anchor) != first and self.error_memory is not None:
            self.error_memory.forget(move.user)
        # the events before belonged to another anchor
        least = self._anchor - 1 if first else 0
        same = (run.items == move.items[:, None]) & (run.times_ms == move.times_ms[:, None])
        same[:, :least] = False
        chosen = np.flatnonzero(same.any(axis=1))
        places, firsts = np.unique(run.items.size - 1 - np.argmax(same[chosen, ::-1], axis=1), return_index=True)
        return run._replace(places=places, seqs=move.seqs[chosen[firsts]])

    def _fold(self, user: int, history: History) -> _Run:
        slot = self.residency.find(user)
        if slot is None:
            slot = self.residency.admit(user)
        first = anchor(history.n, self._anchor) - (history.n - history.items.size)
        return _Run(user, slot, history.n, True, history.items[first:], history.times_ms[first:], _NONE, _NONE)

    def _fill(self, runs: list[_Run]) -> None:
        if not runs:
            return
        slots = np.array([run.slot for run in runs], np.int64)
        resets = np.array([run.reset for run in runs], np.bool_)
        lengths = np.array([run.items.size for run in runs], np.int64)
        starts = np.cumsum(lengths) - lengths
        rows = np.concatenate([run.items for run in runs])
        items, times_ms = self.items.version_rows(rows), np.concatenate([run.times_ms for run in runs])
        # until the step is complete nothing may take these states for any counter
        self._n[slots] = -1
        done = np.zeros(len(runs), np.int64)
        for turn in range(self._turns(runs)):
            # to the next event that the error memory learns, and in the end to that of the run
            chosen = [i for i, run in enumerate(runs) if turn < run.places.size and self.error_memory is not None]
            stops = lengths.copy()
            stops[chosen] = [runs[i].places[turn] for i in chosen]
            busy = (stops > done) | resets
            if busy.any():
                begins = (starts + done)[busy]
                self.slab.advance(slots[busy], begins, (stops - done)[busy], resets[busy], items, times_ms)
            resets[busy] = False
            done = stops
            if chosen and self.error_memory is not None:
                seqs = np.array([runs[i].seqs[turn] for i in chosen], np.int64)
                users = np.array([runs[i].user for i in chosen], np.int32)
                self.error_memory.learn(seqs, users, rows[(starts + done)[chosen]], self.slab.vectors[slots[chosen]])
        self._n[slots] = [run.n for run in runs]

    def _turns(self, runs: list[_Run]) -> int:
        return 1 if self.error_memory is None else 1 + max(run.places.size for run in runs)
