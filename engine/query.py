"""Queries, the read path: candidates of every source, mixed and ranked, without the user's own items."""

import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from ..kernels.arrays import Bools, Float32s, Int32s
from .clock import Clock
from .config import Config
from .errors import InputError, UnknownItemError, UnknownUserError
from .events import MAX_TIME_MS, Event, check_id
from .fast import Context, Few, Moment, activation, spread
from .filters import Masks, Selection
from .metrics import Metrics
from .mix import Situation
from .ranked import Ranked
from .results import HistoryEntry, MixWeights, Recommendation, Scores
from .retrieval import top
from .section import shown
from .serving.caches import ACTIVATION, ERROR_MEMORY, SLOW, Caches, ContextEntries, last_entries
from .serving.version import ServedVersion
from .store import History, Reader

__all__ = ["MAX_K", "Queries"]

_log = logging.getLogger(__name__)

MAX_K = 10_000
# the items of which the model itself has a say: what the error memory has of them counts less
_EXPECTED = 10
# share of the candidates that the error memory brings
_MINOR = 4


_NO_ROWS: Int32s = np.empty(0, np.int32)
_NO_VALUES: Float32s = np.empty(0, np.float32)


class _User(NamedTuple):
    """What a query knows of its user: nothing at all where ``row`` is None."""

    row: int | None
    history: History | None
    seen: Int32s

    @property
    def n(self) -> int:
        return 0 if self.history is None else self.history.n


class _Found(NamedTuple):
    """What the model finds for a user: its vector, and the rows nearest to it."""

    serving: ServedVersion
    vector: npt.NDArray[np.float32]
    rows: Int32s


class Queries:
    """Read path: reads store and caches, and lets the mixture learn; every method may be called from any thread."""

    def __init__(self, store: Reader, caches: Caches, clock: Clock, config: Config, metrics: Metrics) -> None:
        self._store = store
        self._caches = caches
        self._clock = clock
        self._config = config
        self._metrics = metrics
        self._masks = Masks(lambda: store.items, config.retrieval.filter_ms / 1000)
        # the mixture learns from an event that a replay has just asked about: one scoring serves both
        self._last: tuple[tuple[object, ...], Ranked] | None = None

    def recommend(
        self,
        user: str,
        k: int,
        *,
        at_ms: int | None,
        where: str | None,
        explain: bool,
        gone: Callable[[], bool] | None = None,
    ) -> Recommendation:
        """Return the best ``k`` items for a user; see ``Engine.recommend``."""
        _check(user, "user", k)
        if at_ms is not None and (
            isinstance(at_ms, bool) or not isinstance(at_ms, int) or not 0 <= at_ms <= MAX_TIME_MS
        ):
            raise InputError(f"at must be an integer from 0 to {MAX_TIME_MS} (milliseconds), got {shown(at_ms)}")
        # before the user is read: a filter may have to wait for its turn
        selection = None if where is None else self._masks.select(where, gone)
        who = self._user(user)
        ranked = self._answer(who, self._now(at_ms), self._allowed(who, selection), k)
        best = top(ranked.mix, k)
        rows = ranked.rows[best]
        return Recommendation(
            items=self._ids(rows),
            scores=ranked.mix[best].tolist(),
            version=ranked.version,
            source=ranked.source,
            titles=[self._title(row) for row in rows.tolist()],
            explain=ranked.explained(self._caches.mix.names, best) if explain else None,
            weights=self._weights(ranked.situation) if explain else None,
            notes=[] if selection is None else selection.notes,
        )

    def _weights(self, situation: Situation) -> MixWeights:
        with self._caches.lock:
            mix = self._caches.mix
            return msgspec.structs.replace(mix.weights(), answered=mix.chosen(situation))

    def similar(
        self, item: str, k: int, *, where: str | None = None, gone: Callable[[], bool] | None = None
    ) -> Recommendation:
        """Return the ``k`` items nearest to an item: by the model if it knows the item, else by co-occurrence."""
        _check(item, "item", k)
        row = self._store.items.row(item)
        if row is None:
            raise UnknownItemError(f"item {item!r} is not known: no event and no catalogue record of it was applied")
        selection = None if where is None else self._masks.select(where, gone)
        allowed = self._selected(selection)
        allowed[row : row + 1] = False
        with self._caches.lock:
            serving = self._caches.serving
            if serving is not None and row < serving.items.known.size and serving.items.known[row]:
                rows, scores = serving.items.similar(row, k, _searchable(allowed, serving.items.known))
                found = self._list(rows, scores, serving.number, "model")
            else:
                rows, scores = self._caches.fast.similar(row, k if selection is None else allowed.size)
                kept = np.flatnonzero(_of(allowed, rows))[:k]
                found = self._list(rows[kept], scores[kept], 0, "memory")
        return found if selection is None else msgspec.structs.replace(found, notes=selection.notes)

    def history(self, user: str) -> list[HistoryEntry]:
        """Return the kept events of a user, oldest first."""
        _check(user, "user", 1)
        who = self._user(user)
        if who.history is None:
            raise UnknownUserError(
                f"user {user!r} is not known: no event of this user was applied, or it was forgotten"
            )
        history = who.history
        types = self._store.types
        return [
            HistoryEntry(
                item,
                time_ms,
                types.id(kind - 1) if kind else None,
                None if weight != weight else weight,
                self._title(row),
            )
            for row, item, time_ms, kind, weight in zip(
                history.items.tolist(),
                self._ids(history.items),
                history.times_ms.tolist(),
                history.types.tolist(),
                history.weights.tolist(),
                strict=True,
            )
        ]

    def scores(self, user: str, at_ms: int) -> Scores:
        """Return the scores of all items by every part, and the mixture's over its candidates."""
        who = self._user(user)
        allowed = self._allowed(who, None)
        ranked = self._answer(who, at_ms, allowed, 1)
        self._last = (self._key(user, at_ms), ranked)
        with self._caches.lock:
            who = self._still_known(who)
            parts = self._caches.fast.parts(self._context(who), allowed.size)
            if (serving := self._caches.serving) is not None:
                vector = self._vector(serving, who, at_ms)
                slow = np.full(allowed.size, np.nan, np.float32)
                if vector is not None:
                    size = min(slow.size, serving.items.known.size)
                    slow[:size] = np.where(
                        serving.items.known[:size], serving.items.index.scores(vector)[:size], np.nan
                    )
                parts[SLOW] = slow
        every = np.arange(allowed.size, dtype=np.int32)
        parts |= {name: spread(*known, every) for name, known in ranked.few.items()}
        return Scores(ranked.rows, ranked.mix, parts, allowed, ranked.version)

    def before(self, event: Event) -> Callable[[Moment], Ranked]:
        """Read what is known of a user whose event is about to be applied, and return a function that ranks for it.

        The function takes the moment of the event in the log. It is called when all events before it are in the
        fast memory; of the user, and of items, nothing may have been applied in between.
        """
        key = self._key(event.user, event.time_ms)
        if self._last is not None and self._last[0] == key:
            ranked = self._last[1]
            return lambda _: ranked
        who = self._user(event.user)
        allowed = self._allowed(who, None)
        with self._caches.lock:
            found = self._by_model(self._still_known(who), event.time_ms, allowed, self._config.retrieval.candidates)

        def rank(moment: Moment) -> Ranked:
            with self._caches.lock:
                return self._rank(self._still_known(who), event.time_ms, allowed, 1, found, moment)

        return rank

    def gains(self, event: Event, item_row: int, versions: Sequence[ServedVersion]) -> list[float]:
        """Return the NDCG of an event that is about to be applied, as each of the versions ranks all items.

        For a user without events, and where a state cannot be folded, a version knows nothing: 0.
        """
        who = self._user(event.user)
        if not who.n:
            return [0.0] * len(versions)
        allowed = self._allowed(who, None)
        with self._caches.lock:
            who = self._still_known(who)
            vectors = [self._vector(version, who, event.time_ms) for version in versions]
            return [
                0.0 if vector is None else version.items.ndcg(vector, item_row, allowed)
                for version, vector in zip(versions, vectors, strict=True)
            ]

    def learn(self, ranked: Ranked, place: int) -> None:
        """Let the mixture learn that candidate ``place`` came; -1 if none of them did."""
        with self._caches.lock:
            self._caches.mix.learn(ranked.scores, place, ranked.situation)

    def _key(self, user: str, at_ms: int) -> tuple[object, ...]:
        serving = self._caches.serving
        return user, at_ms, self._store.next_seq, 0 if serving is None else serving.number

    def _answer(self, who: _User, now_ms: int, allowed: Bools, k: int) -> Ranked:
        with self._caches.lock:
            who = self._still_known(who)
            # the search reads all vectors: before the memories' scores, which are then still in the processor's cache
            found = self._by_model(who, now_ms, allowed, max(self._config.retrieval.candidates, k))
            return self._rank(who, now_ms, allowed, k, found, Moment(self._store.next_seq, _NO_ROWS))

    def _by_model(self, who: _User, now_ms: int, allowed: Bools, wanted: int) -> _Found | None:
        """Search by the user's vector; None where the model has no say. The caller holds the caches' lock."""
        serving = self._caches.serving
        # the start token's vector knows no more of a user than popularity does, and is slower to follow trends
        vector = self._vector(serving, who, now_ms) if serving is not None and who.n else None
        if serving is None or vector is None:
            return None
        rows = serving.items.index.search(vector, wanted, _searchable(allowed, serving.items.known))[0]
        return _Found(serving, vector, rows)

    def _rank(self, who: _User, now_ms: int, allowed: Bools, k: int, found: _Found | None, moment: Moment) -> Ranked:
        """Rank the candidates of all sources; the caller holds the caches' lock."""
        wanted = max(self._config.retrieval.candidates, k)
        gap_ms = 0 if who.history is None else max(0, now_ms - int(who.history.times_ms[-1]))
        fast, mix = self._caches.fast, self._caches.mix
        rows: list[Int32s] = []
        few: dict[str, tuple[Int32s, npt.NDArray[np.float32]]] = {}
        if found is not None:
            rows.append(found.rows)
            if who.row is not None and found.serving.error_memory is not None:
                few[ERROR_MEMORY] = found.serving.vote_errors(who.row, found.rows[:_EXPECTED], moment)
                rows.append(few[ERROR_MEMORY][0][: wanted // _MINOR])
        if who.history is not None and not self._config.retrieval.exclude_seen:
            few[ACTIVATION] = who.history.items, activation(who.history.times_ms, now_ms)
            rows.append(who.history.items)
        # a place among the candidates is not spent on what is left out of the answer anyway
        excluded = who.seen if self._config.retrieval.exclude_seen else _NO_ROWS
        candidates, scores = fast.assemble(
            self._context(who),
            allowed,
            excluded,
            np.concatenate((_NO_ROWS, *rows)),
            self._few(few),
            wanted=wanted,
            least=k,
            parts=len(mix.names),
        )
        if found is not None:
            scores[-1] = found.serving.items.scores(found.vector, candidates)
        situation = Situation(who.n, gap_ms)
        version = 0 if found is None else found.serving.number
        said = {*fast.names, *few, *(() if found is None else (SLOW,))}
        silent = frozenset(mix.names).difference(said)
        mixed = mix.score(scores, situation)
        return Ranked(candidates, mixed, scores, silent, few, situation, version, self._rung(who, version))

    def _few(self, few: dict[str, tuple[Int32s, npt.NDArray[np.float32]]]) -> Few:
        """Join the parts that know a few items only, with their rows among all parts."""
        names = self._caches.mix.names
        return Few(
            np.concatenate((_NO_ROWS, *(keys for keys, _ in few.values()))),
            np.concatenate((_NO_VALUES, *(values for _, values in few.values()))),
            np.cumsum([keys.size for keys, _ in few.values()], dtype=np.int64),
            np.array([names.index(name) for name in few], np.int64),
        )

    def _rung(self, who: _User, version: int) -> str:
        if version:
            return "mix"
        if who.n:
            return "memory"
        return "popular" if self._caches.fast.events else "catalogue"

    def _user(self, user: str) -> _User:
        row = self._store.users.row(user)
        if row is None:
            return _User(None, None, _NO_ROWS)
        # the same user is likely to ask again, and the second read is then one of memory already
        history = self._store.history(row, warm=True)
        # forgotten since its row was found
        return _User(row, history, self._store.seen(row)) if history.n else _User(None, None, _NO_ROWS)

    def _still_known(self, who: _User) -> _User:
        """Return the user, or an unknown one if it was forgotten since it was read; the caller holds the caches' lock.

        A commit that forgets retires the row first and drops it from the caches then, under the same lock. So nothing
        of a forgotten user comes back into them by a query that was under way.
        """
        known = who.row is None or self._store.users.id(who.row) is not None
        return who if known else _User(None, None, _NO_ROWS)

    def _context(self, who: _User) -> Context:
        if who.row is None or who.history is None:
            return Context(_NO_ROWS, np.empty(0, np.int64))
        history = who.history

        def load(_: int) -> ContextEntries:
            return last_entries(history, self._config.fast.context)

        return self._caches.fast.context(who.row, load)

    def _vector(self, serving: ServedVersion, who: _User, now_ms: int) -> npt.NDArray[np.float32] | None:
        """Return the user's vector; None if its state cannot be folded: then the memories answer alone."""
        if who.row is None or who.history is None:
            return serving.start_vector
        try:
            return serving.vector(who.row, who.history, now_ms)
        except Exception:
            _log.exception("the state of user row %d could not be folded", who.row)
            self._metrics.failures.labels("fold").inc()
            serving.drop(who.row)
            return None

    def _allowed(self, who: _User, selection: Selection | None) -> Bools:
        """Return a fresh mask over all items: available, matching the filter, not the user's own."""
        allowed = self._selected(selection)
        if self._config.retrieval.exclude_seen:
            allowed[who.seen[who.seen < allowed.size]] = False
        return allowed

    def _selected(self, selection: Selection | None) -> Bools:
        """Return a fresh mask over all items: available, matching the filter."""
        allowed = self._store.items.available.copy()
        if selection is not None:
            # items that came in since the mask was made match no filter yet
            mask = selection.mask[: allowed.size]
            allowed[: mask.size] &= mask
            allowed[mask.size :] = False
        return allowed

    def _now(self, at_ms: int | None) -> int:
        return self._clock.now_ms() if at_ms is None else at_ms

    def _ids(self, rows: Int32s) -> list[str]:
        return [item or "" for item in self._store.items.ids(rows.tolist())]

    def _title(self, row: int) -> str | None:
        record = self._store.items.record(row)
        return None if record is None else record.title

    def _list(self, rows: Int32s, scores: npt.NDArray[np.float32], version: int, source: str) -> Recommendation:
        titles = [self._title(row) for row in rows.tolist()]
        return Recommendation(self._ids(rows), scores.tolist(), version, source, titles)


def _searchable(allowed: Bools, known: Bools) -> Bools:
    """Limit a mask over all items to those that the index has and the version knows; either may be of earlier."""
    size = min(allowed.size, known.size)
    return allowed[:size] & known[:size]


def _of(allowed: Bools, rows: Int32s) -> Bools:
    """Return which rows are allowed; one that came in since the mask was made is not."""
    return np.array(allowed[np.minimum(rows, allowed.size - 1)] & (rows < allowed.size), np.bool_)


def _check(name: object, what: str, k: object) -> None:
    check_id(name, what)
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= MAX_K:
        raise InputError(f"k must be an integer from 1 to {MAX_K}, got {shown(k)}")
