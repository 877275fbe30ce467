"""Quality monitor: scores answers and versions on events before they are learnt, for drift alarms and rollback."""

from collections.abc import Mapping
from typing import NamedTuple

from ..config import Config
from ..events import Event
from ..metrics import Metrics
from ..query import Queries
from ..ranked import Ranked
from ..ranking import DEPTH, ndcg, rank
from ..serving.caches import SLOW, Caches
from ..serving.shadow import Shadow
from ..store import Applied
from .drift import Drift

__all__ = ["Beside", "Judged", "QualityMonitor"]


class Beside(NamedTuple):
    """NDCG of an event by the serving version and by its shadow."""

    shadow: Shadow
    now: float
    before: float


class Judged(NamedTuple):
    """NDCG@10 of an event by the answers and by the model, and what its shadow would have given."""

    answers: float
    model: float | None
    beside: Beside | None


class QualityMonitor:
    """Scores the events that the mixture learns from, and records them once they were applied; the writer calls it."""

    def __init__(self, caches: Caches, queries: Queries, config: Config, metrics: Metrics) -> None:
        self.drift = Drift(config.drift, metrics)
        self._caches = caches
        self._queries = queries

    def before(self, event: Event, item_row: int | None) -> Beside | None:
        """Score an event that is about to be applied by the serving version and its shadow, if there is one."""
        with self._caches.lock:
            serving, shadow = self._caches.serving, self._caches.shadow
        if serving is None or shadow is None or shadow.over or item_row is None:
            return None
        now, before = self._queries.gains(event, item_row, (serving, shadow.serving))
        return Beside(shadow, now, before)

    def score(self, ranked: Ranked, place: int) -> tuple[float, float | None]:
        """Return the NDCG@10 of an event by the answers, and by the model if there is one.

        Its item was candidate ``place``; -1 if it was none of them.
        """
        answers, model = 0.0, None if ranked.version == 0 else 0.0
        if place >= 0:
            answers = ndcg(rank(ranked.mix[place], ranked.mix), DEPTH)
            if model is not None:
                slow = ranked.scores[self._caches.mix.names.index(SLOW)]
                model = ndcg(rank(slow[place], slow), DEPTH)
        return answers, model

    def record(self, judged: Mapping[int, Judged], applied: Applied) -> None:
        """Record a committed batch; ``judged`` are those of its events that were scored, by their places."""
        serving = self._caches.serving
        self.drift.set_version(0 if serving is None else serving.number)
        for event, (answers, model, beside) in judged.items():
            self.drift.observe_quality(int(applied.seq[event]), int(applied.times_ms[event]), answers, model)
            if beside is not None and not beside.shadow.over:
                beside.shadow.record(beside.now, beside.before)
                if beside.shadow.over and not beside.shadow.beaten and beside.shadow is self._caches.shadow:
                    self._caches.end_shadow()
        self.drift.observe_batch(applied)
