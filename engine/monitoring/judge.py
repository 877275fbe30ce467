"""Quality monitor: scores answers and versions on events before they are learnt, for drift alarms and rollback."""

from typing import NamedTuple

import numpy as np

from ..config import Config
from ..events import Event
from ..metrics import Metrics
from ..query import Queries, Ranked
from ..ranking import DEPTH, ndcg, rank
from ..serving.caches import SLOW, Caches
from ..serving.shadow import Shadow
from ..store import LATE, Applied
from .drift import Drift

__all__ = ["Judged", "QualityMonitor"]


class Judged(NamedTuple):
    """NDCG@10 of an event by the answers and by the model.

    ``shadow_ndcg`` is its NDCG by the serving version and by ``shadow``.
    """

    answers: float
    model: float | None
    shadow: Shadow | None
    shadow_ndcg: tuple[float, float]


class QualityMonitor:
    """Scores sampled events, and records them once they were applied; the writer calls it."""

    def __init__(self, caches: Caches, queries: Queries, config: Config, metrics: Metrics) -> None:
        self.drift = Drift(config.drift, metrics)
        self._caches = caches
        self._queries = queries

    def score(self, event: Event, ranked: Ranked, item_row: int | None) -> Judged:
        """Score an event that is about to be applied; ``item_row`` None: its item is new."""
        places = [] if item_row is None else np.flatnonzero(ranked.rows == item_row).tolist()
        answers, model = 0.0, None if ranked.version == 0 else 0.0
        if places:
            answers = ndcg(rank(ranked.mix[places[0]], ranked.mix), DEPTH)
            if model is not None:
                slow = ranked.parts[SLOW]
                model = ndcg(rank(slow[places[0]], slow), DEPTH)
        with self._caches.lock:
            serving, shadow = self._caches.serving, self._caches.shadow
        if serving is None or shadow is None or shadow.over or item_row is None:
            return Judged(answers, model, None, (0.0, 0.0))
        now, before = self._queries.gains(event, item_row, (serving, shadow.serving))
        return Judged(answers, model, shadow, (now, before))

    def record(self, judged: Judged | None, applied: Applied) -> None:
        """Record a committed batch; ``judged`` is its first event, if that was sampled."""
        serving = self._caches.serving
        self.drift.set_version(0 if serving is None else serving.number)
        if judged is not None and applied.status[0] <= LATE:
            self.drift.observe_quality(int(applied.seq[0]), int(applied.times_ms[0]), judged.answers, judged.model)
            if judged.shadow is not None:
                judged.shadow.record(*judged.shadow_ndcg)
                if judged.shadow.over and not judged.shadow.beaten and judged.shadow is self._caches.shadow:
                    self._caches.end_shadow()
        self.drift.observe_batch(applied)
