"""The contest of preq-v1: recurra, its components and the baselines ranked on the same events."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..engine.results import Scores
from .baselines import Baseline
from .datasets import Stream
from .prequential import (
    MISS,
    Owned,
    Ranks,
    cohorts,
    metrics,
    over_time,
    rank_among_known,
    rank_dense,
    rank_listed,
)

__all__ = ["RECURRA", "Contest"]

RECURRA = "recurra"
# points of the curves over the stream
_WINDOWS = 40


class Contest:
    """Keeps the ranks of every competitor; ``judge`` comes before ``learn`` for every event, in the stream's order.

    Items that did not occur in the stream yet are no candidates for anybody, and an event of one is a miss. The
    baselines exclude the user's own items unless ``repeats``; recurra and its components go by the engine's exclusion.
    """

    def __init__(self, stream: Stream, baselines: Sequence[Baseline], *, repeats: bool = False) -> None:
        self._stream = stream
        self._baselines = baselines
        self._repeats = repeats
        self._owned = Owned()
        self._known_items = 0
        self._ranks = Ranks(len(stream))
        self._components: dict[str, None] = {}
        self._positions: list[int] = []
        self._in_union = 0
        self._nothing: NDArray[np.int32] = np.zeros(0, dtype=np.int32)

    @property
    def evaluated(self) -> int:
        """Events judged so far."""
        return self._ranks.count

    def judge(self, position: int, scores: Scores | None, row: int | None) -> None:
        """Rank the event at ``position``.

        ``scores`` are the engine's for this user at this time, None to judge the baselines only; ``row`` is the item's
        row in them, None when the engine does not know the item.
        """
        user, item = int(self._stream.users[position]), int(self._stream.items[position])
        known = item < self._known_items
        ranks = {baseline.name: self._baseline_rank(baseline, user, item, known) for baseline in self._baselines}
        if scores is not None:
            ranks |= self._engine_ranks(scores, row if known else None)
        self._ranks.add(ranks)
        self._positions.append(position)

    def learn(self, position: int) -> None:
        """Let the baselines learn the event at ``position``."""
        user, item = int(self._stream.users[position]), int(self._stream.items[position])
        for baseline in self._baselines:
            baseline.learn(user, item)
        self._known_items = max(self._known_items, item + 1)
        if not self._repeats:
            self._owned.add(user, item)

    def recent(self, name: str = RECURRA, events: int = 2_000) -> dict[str, float]:
        """Return the metrics of a competitor over the last events judged."""
        return metrics(self._ranks.of(name)[-events:]) if name in self._ranks else metrics(self._nothing)

    def result(self) -> dict[str, Any]:
        """Return the parts of a replay's JSON that the contest knows."""
        stream = self._stream
        positions = np.array(self._positions, dtype=np.int64)
        groups = cohorts(stream.users, stream.items, stream.time_ms)
        first = int(positions[0]) if len(positions) else len(stream)
        edges = np.linspace(first, len(stream), _WINDOWS + 1).astype(np.int64)
        names = list(self._ranks)
        return {
            "evaluated": self.evaluated,
            RECURRA: metrics(self._ranks.of(RECURRA)) if RECURRA in self._ranks else metrics(self._nothing),
            "components": {name: metrics(self._ranks.of(_component(name))) for name in self._components},
            "baselines": {baseline.name: metrics(self._ranks.of(baseline.name)) for baseline in self._baselines}
            if self.evaluated
            else {},
            "recall_union": round(self._in_union / max(1, self.evaluated), 6),
            "cohorts": {
                cohort: {
                    "n": int(np.count_nonzero(members[positions])),
                    **{name: metrics(self._ranks.of(name)[members[positions]]) for name in names},
                }
                for cohort, members in groups.items()
            },
            "timeline": {
                "positions": edges.tolist(),
                "series": {name: over_time(self._ranks.of(name), positions, edges) for name in names},
            },
        }

    def _baseline_rank(self, baseline: Baseline, user: int, item: int, known: bool) -> int:
        if not known or self._owned.has(user, item):
            return MISS
        return rank_among_known(baseline.scores(user), item, self._owned.of(user))

    def _engine_ranks(self, scores: Scores, row: int | None) -> dict[str, int]:
        place = -1 if row is None else row
        mixed = rank_listed(scores.rows, scores.mix, scores.allowed, place)
        self._in_union += mixed != MISS and bool(np.any(scores.rows == place))
        ranks = {RECURRA: mixed}
        for name, part in scores.parts.items():
            self._components[name] = None
            ranks[_component(name)] = rank_dense(part, scores.allowed, place)
        return ranks


def _component(name: str) -> str:
    """Return the name under which a component competes: a baseline may be called the same."""
    return f"component {name}"
