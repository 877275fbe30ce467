"""The contest of preq-v1: recurra, its components and the baselines ranked on the same events."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..engine.results import Scores
from .baselines import SAMPLED, Baseline
from .baselines.arrays import grown
from .datasets import Stream
from .lists import Counts, Lists, top_items, top_listed
from .prequential import (
    MISS,
    NOT_RANKED,
    Owned,
    Ranks,
    cohorts,
    metrics,
    over_time,
    rank_among_known,
    rank_dense,
    rank_listed,
)
from .synthetic import SyntheticStream

__all__ = ["RECURRA", "TRUTH", "Contest", "ranks_alone"]

RECURRA = "recurra"
# what ranks by the distribution that the event was drawn from, where a generated stream knows it
TRUTH = "truth"
# points of the curves over the stream, at most, and the ranked events of one, so that it is no noise
_WINDOWS, _WINDOW_EVENTS = 40, 150
# events about which the baselines that are sampled are asked, and the seed of their choice
_SAMPLE, _SAMPLE_SEED = 2_000, 0


class Contest:
    """Keeps the ranks of every competitor.

    ``judged`` are the positions of the events to rank, ascending: ``judge`` is called for each of them in order, and
    ``learn`` for every event of the stream in order, for an event after it was judged.

    Items that did not occur in the events learnt so far are no candidates for any user, and an event of one is a miss.
    The baselines exclude the user's own items unless ``repeats``; recurra and its components go by the engine's
    exclusion. Baselines that rank slowly are asked about a sample of the events.
    """

    def __init__(
        self, stream: Stream, baselines: Sequence[Baseline], judged: NDArray[np.int64], *, repeats: bool = False
    ) -> None:
        self._stream = stream
        self._baselines = baselines
        self._judged = judged
        self._repeats = repeats
        chosen = np.random.default_rng(_SAMPLE_SEED).permutation(len(judged))[:_SAMPLE]
        self._sample = frozenset(judged[chosen].tolist())
        self._truth = stream.truth if isinstance(stream, SyntheticStream) else None
        self._owned = Owned()
        self._counts = Counts()
        self._ranks = Ranks(len(judged))
        self._lists = {name: Lists() for name in [RECURRA, *(each.name for each in baselines if not _sampled(each))]}
        self._components: dict[str, None] = {}
        self._in_union = 0
        # the item code of every row of the engine, -1 where it is not known
        self._item_of_row: NDArray[np.int32] = np.full(1024, -1, dtype=np.int32)

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
        known = item < self._counts.items
        ranks = {baseline.name: self._baseline_rank(baseline, position, user, item) for baseline in self._baselines}
        if self._truth is not None:
            likely = self._truth.probabilities(position)[: self._counts.items]
            ranks[TRUTH] = self._rank(likely, user, item)
        if scores is not None:
            ranks |= self._engine_ranks(scores, row if known else None)
        self._ranks.add(ranks)

    def learn(self, position: int, row: int | None = None) -> None:
        """Let the baselines learn the event at ``position``; ``row`` is the item's row in the engine, if it has one."""
        stream = self._stream
        user, item, weight = int(stream.users[position]), int(stream.items[position]), float(stream.weights[position])
        for baseline in self._baselines:
            baseline.learn(user, item, 1.0 if np.isnan(weight) else weight)
        self._counts.add(item)
        if not self._repeats:
            self._owned.add(user, item)
        if row is not None:
            self._item_of_row = grown(self._item_of_row, row, -1)
            self._item_of_row[row] = item

    def recent(self, name: str = RECURRA, events: int = 2_000) -> dict[str, float]:
        """Return the metrics of a competitor over the last events judged."""
        return metrics(self._of(name)[-events:])

    def result(self) -> dict[str, Any]:
        """Return the parts of a replay's JSON that the contest knows."""
        positions = self._judged[: self.evaluated]
        names = [name for name in self._ranks if name not in SAMPLED]
        result = {
            "evaluated": self.evaluated,
            RECURRA: self._figures(RECURRA),
            "components": {name: metrics(self._of(_component(name))) for name in self._components},
            "baselines": {each.name: self._figures(each.name) for each in self._baselines} if self.evaluated else {},
            "recall_union": round(self._in_union / max(1, self.evaluated), 6),
            "cohorts": self._cohorts(names, positions),
            "timeline": self._timeline(names, positions),
        }
        if isinstance(self._stream, SyntheticStream):
            result[TRUTH] = self._figures(TRUTH) | {"drifts": [list(drift) for drift in self._stream.drifts]}
        return result

    def _of(self, name: str) -> NDArray[np.int32]:
        return self._ranks.of(name) if name in self._ranks else np.zeros(0, dtype=np.int32)

    def _figures(self, name: str) -> dict[str, float]:
        ranks = self._of(name)
        if name in SAMPLED:
            return metrics(ranks) | {"n": int(np.count_nonzero(ranks != NOT_RANKED))}
        return metrics(ranks) | (self._lists[name].figures(self._counts) if name in self._lists else {})

    def _cohorts(self, names: Sequence[str], positions: NDArray[np.int64]) -> dict[str, Any]:
        stream = self._stream
        groups = cohorts(stream.users, stream.items, stream.time_ms)
        judged = {cohort: members[positions] for cohort, members in groups.items()}
        return {
            cohort: {"n": int(np.count_nonzero(members)), **{name: metrics(self._of(name)[members]) for name in names}}
            for cohort, members in judged.items()
        }

    def _timeline(self, names: Sequence[str], positions: NDArray[np.int64]) -> dict[str, Any]:
        first = int(positions[0]) if len(positions) else len(self._stream)
        windows = min(_WINDOWS, max(2, len(positions) // _WINDOW_EVENTS))
        edges = np.linspace(first, len(self._stream), windows + 1).astype(np.int64)
        return {
            "positions": edges.tolist(),
            "series": {name: over_time(self._of(name), positions, edges) for name in names},
        }

    def _baseline_rank(self, baseline: Baseline, position: int, user: int, item: int) -> int:
        if _sampled(baseline) and position not in self._sample:
            return NOT_RANKED
        scores = baseline.scores(user)
        if baseline.name in self._lists:
            self._lists[baseline.name].add(top_items(scores, self._owned.of(user)), self._counts)
        return self._rank(scores, user, item)

    def _rank(self, scores: NDArray[np.float64], user: int, item: int) -> int:
        if item >= self._counts.items or self._owned.has(user, item):
            return MISS
        return rank_among_known(scores, item, self._owned.of(user))

    def _engine_ranks(self, scores: Scores, row: int | None) -> dict[str, int]:
        place = -1 if row is None else row
        mixed = rank_listed(scores.rows, scores.mix, scores.allowed, place)
        self._in_union += mixed != MISS and bool(np.any(scores.rows == place))
        shown = self._item_of_row[top_listed(scores.rows, scores.mix, scores.allowed)]
        self._lists[RECURRA].add(shown[shown >= 0], self._counts)
        ranks = {RECURRA: mixed}
        for name, part in scores.parts.items():
            self._components[name] = None
            ranks[_component(name)] = rank_dense(part, scores.allowed, place)
        return ranks


def ranks_alone(baseline: Baseline, stream: Stream, first: int) -> NDArray[np.int32]:
    """Return the ranks, by one baseline that learns all events, of those from position ``first`` on."""
    owned, known = Owned(), 0
    ranks = np.zeros(len(stream) - first, np.int32)
    for position, (user, item) in enumerate(zip(stream.users.tolist(), stream.items.tolist(), strict=True)):
        if position >= first and item < known:
            ranks[position - first] = rank_among_known(baseline.scores(user), item, owned.of(user))
        elif position >= first:
            ranks[position - first] = MISS
        baseline.learn(user, item)
        owned.add(user, item)
        known = max(known, item + 1)
    return ranks


def _sampled(baseline: Baseline) -> bool:
    return baseline.name in SAMPLED


def _component(name: str) -> str:
    """Return the name under which a component competes: a baseline may be called the same."""
    return f"component {name}"
