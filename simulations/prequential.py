"""Test, then learn: ranks, metrics and cohorts of the protocol preq-v1."""

import itertools
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from ..kernels.arrays import Bools, Int32s
from ..kernels.jit import jit

__all__ = [
    "MISS",
    "NOT_RANKED",
    "Owned",
    "Ranks",
    "Tally",
    "cohorts",
    "gains",
    "metrics",
    "over_time",
    "rank_among_known",
    "rank_dense",
    "rank_listed",
]

# the rank of an event that cannot be ranked: an item never seen before, or one excluded by rule
MISS = 0
# the rank of an event that a competitor was not asked about: it counts nowhere
NOT_RANKED = -1
# users and items with fewer events than this are new
_NEW_EVENTS = 5
# the head of the catalogue; all other items are the tail
_HEAD_SHARE = 0.2
_NAMES = ("hr@10", "hr@20", "ndcg@10", "mrr")


_NONE: Int32s = np.zeros(0, dtype=np.int32)


def metrics(ranks: Int32s) -> dict[str, float]:
    """Return HR@10, HR@20, NDCG@10 and MRR over ``ranks``.

    A rank of 1 is the best, ``MISS`` counts in the denominator only, ``NOT_RANKED`` nowhere.
    """
    asked = int(np.count_nonzero(ranks != NOT_RANKED))
    if asked == 0:
        return dict.fromkeys(_NAMES, 0.0)
    hit = ranks[ranks > 0].astype(np.float64)
    sums = np.array([np.count_nonzero(hit <= 10), np.count_nonzero(hit <= 20), np.sum(gains(ranks)), np.sum(1 / hit)])
    return {name: round(float(mean), 6) for name, mean in zip(_NAMES, sums / asked, strict=True)}


def gains(ranks: Int32s) -> NDArray[np.float64]:
    """Return what every rank adds to NDCG@10: 1 / log2(rank + 1) up to rank 10, else 0."""
    gained = np.zeros(len(ranks))
    top10 = (ranks > 0) & (ranks <= 10)
    gained[top10] = 1 / np.log2(ranks[top10] + 1)
    return gained


def over_time(ranks: Int32s, positions: NDArray[np.int64], edges: NDArray[np.int64]) -> list[dict[str, float]]:
    """Return the metrics of the events whose stream position lies between consecutive ``edges``."""
    cuts = np.searchsorted(positions, edges)
    return [metrics(ranks[start:end]) for start, end in itertools.pairwise(cuts.tolist())]


class Tally:
    """Running metrics of a stream without end; keeps sums and the last ``window`` ranks, nothing else."""

    def __init__(self, window: int = 2_000) -> None:
        self._sums = np.zeros(4)
        self._last: Int32s = np.zeros(window, dtype=np.int32)
        self.events = 0

    def add(self, rank: int) -> None:
        """Count one evaluated event."""
        self._last[self.events % len(self._last)] = rank
        self.events += 1
        if rank > 0:
            top10 = rank <= 10
            self._sums += (top10, rank <= 20, 1 / np.log2(rank + 1) if top10 else 0, 1 / rank)

    def metrics(self) -> dict[str, float]:
        """Return the metrics over all events so far."""
        means = self._sums / max(1, self.events)
        return {name: round(float(mean), 6) for name, mean in zip(_NAMES, means, strict=True)}

    def recent(self) -> dict[str, float]:
        """Return the metrics over the last ``window`` events."""
        return metrics(self._last[: min(self.events, len(self._last))])


class Ranks:
    """The ranks of several competitors over the same evaluated events."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._ranks: dict[str, Int32s] = {}
        self.count = 0

    def add(self, ranks: Mapping[str, int]) -> None:
        """Keep the ranks of one event; a competitor that was not there before has missed all events until now."""
        for name, rank in ranks.items():
            if name not in self._ranks:
                self._ranks[name] = np.full(self._capacity, MISS, dtype=np.int32)
            self._ranks[name][self.count] = rank
        self.count += 1

    def of(self, name: str) -> Int32s:
        """Return the ranks of one competitor."""
        return self._ranks[name][: self.count]

    def __iter__(self) -> Iterator[str]:
        return iter(self._ranks)


class Owned:
    """The items that every user had so far, as codes."""

    def __init__(self) -> None:
        self._items: dict[int, Int32s] = {}
        self._sets: dict[int, set[int]] = {}

    def of(self, user: int) -> Int32s:
        """Return the items of ``user``, each once."""
        return self._items.get(user, _NONE)[: len(self._sets.get(user, ()))]

    def has(self, user: int, item: int) -> bool:
        """Return whether ``user`` had ``item``."""
        return item in self._sets.get(user, ())

    def add(self, user: int, item: int) -> None:
        """Record that ``user`` had ``item``."""
        owned = self._sets.setdefault(user, set())
        if item in owned:
            return
        items = self._items.get(user, _NONE)
        if len(owned) == len(items):
            items = np.concatenate((items, np.zeros(max(8, len(items)), dtype=np.int32)))
            self._items[user] = items
        items[len(owned)] = item
        owned.add(item)


def cohorts(users: Int32s, items: Int32s, times_ms: NDArray[np.int64]) -> dict[str, Bools]:
    """Return, for every event of a stream, which cohorts it belongs to; they come in pairs of which it is in one.

    ``new_user`` and ``new_item``: fewer than 5 events of the user (of the item) came before; ``old_user`` and
    ``old_item`` otherwise. ``head``: fewer than a fifth of the items so far have more events than the item; ``tail``
    otherwise. ``with_gap``: the user's previous event has an earlier time; ``without_gap``: the same, or there is none.
    """
    item_before = _count_before(items)
    order = np.argsort(users, kind="stable")
    gap = np.zeros(len(users), dtype=np.bool_)
    follows = users[order][1:] == users[order][:-1]
    gap[order[1:]] = follows & (times_ms[order][1:] > times_ms[order][:-1])
    pairs = {
        ("new_user", "old_user"): _count_before(users) < _NEW_EVENTS,
        ("new_item", "old_item"): item_before < _NEW_EVENTS,
        ("tail", "head"): _more_popular(item_before) >= _HEAD_SHARE,
        ("with_gap", "without_gap"): gap,
    }
    return {
        name: members for (one, other), is_one in pairs.items() for name, members in ((one, is_one), (other, ~is_one))
    }


def _count_before(codes: Int32s) -> NDArray[np.int64]:
    """Return how often every entry's code occurred before it."""
    order = np.argsort(codes, kind="stable")
    starts = np.flatnonzero(np.diff(codes[order], prepend=-1))
    lengths = np.diff(starts, append=len(codes))
    before = np.empty(len(codes), dtype=np.int64)
    before[order] = np.arange(len(codes)) - np.repeat(starts, lengths)
    return before


@jit
def _more_popular(item_before: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the share of the items so far that have more events than the event's item, which had ``item_before``."""
    shares = np.ones(len(item_before))
    # at [c]: items with more than c events
    above = np.zeros(len(item_before) + 1)
    for place in range(len(item_before)):
        before = item_before[place]
        if above[0] > 0 and before > 0:
            shares[place] = above[before] / above[0]
        above[before] += 1
    return shares


@jit
def rank_among_known(scores: NDArray[np.float64], item: int, excluded: Int32s) -> int:
    """Return the rank of ``item`` among the items 0 .. len(scores) - 1 without those ``excluded`` (each named once)."""
    score = scores[item]
    if not np.isfinite(score):
        return len(scores) - len(excluded)
    rank = 0
    for other in range(len(scores)):
        rank += scores[other] >= score and scores[other] < np.inf
    for place in range(len(excluded)):
        other_score = scores[excluded[place]]
        rank -= other_score >= score and other_score < np.inf
    return rank


@jit
def rank_dense(scores: NDArray[np.float32], allowed: Bools, row: int) -> int:
    """Return the rank of ``row`` among the ``allowed`` rows; ``MISS`` when it is not one of them."""
    if row < 0 or row >= len(allowed) or not allowed[row]:
        return MISS
    score = scores[row]
    rank = 0
    if not np.isfinite(score):
        for other in range(len(allowed)):
            rank += allowed[other]
        return rank
    for other in range(len(allowed)):
        rank += allowed[other] and scores[other] >= score and scores[other] < np.inf
    return rank


@jit
def rank_listed(rows: Int32s, scores: NDArray[np.float64], allowed: Bools, row: int) -> int:
    """Return the rank of ``row`` when only ``rows`` have ``scores``: all that are not listed are below all that are."""
    if row < 0 or row >= len(allowed) or not allowed[row]:
        return MISS
    score = -np.inf
    for place in range(len(rows)):
        if rows[place] == row:
            score = scores[place]
    rank = 0
    if not np.isfinite(score):
        for other in range(len(allowed)):
            rank += allowed[other]
        return rank
    for place in range(len(rows)):
        rank += allowed[rows[place]] and scores[place] >= score and scores[place] < np.inf
    return rank
