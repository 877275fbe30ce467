"""Streams whose truth is known: the distribution that every event was drawn from, and where it changed.

An event of a person is drawn from p(i) = .55 follows(i | last item) + .25 tastes(i | group) + .2 popular(i), without
the items that the person had and without those that are not released yet. A *concept* is one choice of all three
tables. Where a stream drifts, p is (1 - blend) times one concept plus blend times the next.
"""

from bisect import bisect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...engine.errors import InputError
from ...kernels.arrays import Float64s
from ..datasets import Stream

__all__ = ["KINDS", "Drift", "SyntheticStream", "Truth", "kind_of", "stream"]

KINDS = ("stationary", "abrupt", "gradual", "seasonal", "new-items", "bots")
_PREFIX = "synthetic:"

_ITEMS = 500
_GROUPS = 10
# people at any time; one who leaves is replaced by a new one
_PEOPLE = 300
_MEAN_EVENTS, _MOST_EVENTS = 50, 200
_START_MS = 1_735_689_600_000
_MEAN_GAP_MS = 20_000
# shares of the three tables
_FOLLOWS, _TASTES, _POPULAR = 0.55, 0.25, 0.2
# how likely each follower of an item is; unequal, so that the best order is unique
_FOLLOWERS = np.array([0.35, 0.22, 0.15, 0.12, 0.09, 0.07])
_TASTE_ITEMS = 40
# new-items: so many are there at the beginning, and the newest ones are what is popular, each less than the next
_FIRST_ITEMS = 250
_TREND = 0.12 * 0.88 ** np.arange(40)
# bots: their share of the events, the items that all of them push, and the events of one account
_BOT_SHARE = 0.15
_PUSHED = 30
_BOT_EVENTS = 20
_BOT = -1


class Drift(NamedTuple):
    """A change of the distribution: the event where it begins and the first one after its end (equal if at once)."""

    start: int
    end: int


class _Concept(NamedTuple):
    # (items, followers)
    followers: NDArray[np.int64]
    # (groups, items), rows sum to one
    tastes: Float64s
    # (items,), sums to one
    popular: Float64s


class _Plan(NamedTuple):
    """How a stream changes; ``phase`` and ``blend`` have an entry per event."""

    concepts: list[_Concept]
    # the concept that blend leads away from; the next one in the list is the one that it leads to
    phase: NDArray[np.int64]
    blend: Float64s
    # per item, the position from which it may occur, ascending
    released: NDArray[np.int64]
    trends: bool
    bots: Float64s | None
    drifts: tuple[Drift, ...]


class Truth:
    """The distribution that every event of a stream was drawn from."""

    def __init__(self, plan: _Plan, users: NDArray[np.int32], items: NDArray[np.int64], groups: NDArray[np.int64]):
        self._plan = plan
        self._groups = groups
        self._items = items
        _, first = np.unique(items, return_index=True)
        # the stream numbers items by their first event
        self._numbered = items[np.sort(first)]
        # events by user, in their order: what a person had before is a slice
        self._by_user = np.argsort(users, kind="stable")
        self._place = np.empty(len(users), dtype=np.int64)
        self._place[self._by_user] = np.arange(len(users))
        starts = np.flatnonzero(np.diff(users[self._by_user], prepend=-1))
        self._first = np.repeat(starts, np.diff(starts, append=len(users)))[self._place]

    def probabilities(self, position: int) -> Float64s:
        """Return p of the event at ``position``, float64 by the stream's item code: known before the event comes.

        Items that never occur in the stream have no code; the sum falls short of one by what is theirs.
        """
        had = self._items[self._by_user[self._first[position] : self._place[position]]]
        last = int(had[-1]) if len(had) else None
        weights = _weights(self._plan, position, last, int(self._groups[position]))
        weights[had] = 0.0
        weights /= weights.sum()
        numbered: Float64s = weights[self._numbered]
        return numbered


@dataclass(frozen=True, kw_only=True)
class SyntheticStream(Stream):
    """A stream with the ``truth`` it was drawn from and its ``drifts``."""

    truth: Truth
    drifts: tuple[Drift, ...]


def kind_of(path: str) -> str | None:
    """Return KIND when ``path`` reads ``synthetic:KIND``, None for any other path; raises ``InputError``."""
    if not path.startswith(_PREFIX):
        return None
    kind = path.removeprefix(_PREFIX)
    if kind not in KINDS:
        raise InputError(f"no synthetic stream is called {kind!r}; there are {', '.join(KINDS)}")
    return kind


def stream(kind: str, events: int, seed: int = 0) -> SyntheticStream:
    """Generate ``events`` events of one of ``KINDS``; the same for the same arguments.

    ``stationary``: nothing changes. ``abrupt``: a new concept at 40 % and at 70 % of the stream. ``gradual``: from one
    concept to another between 40 % and 60 %. ``seasonal``: to another concept and back, twice. ``new-items``: half of
    the items appear on the way and are popular at first. ``bots``: accounts that push the same few items make 15 % of
    the events. No user has an item twice. Raises ``InputError``.
    """
    kind_of(_PREFIX + kind)
    if events < 1:
        raise InputError(f"expected a synthetic stream of at least 1 event, got {events}")
    rng = np.random.default_rng((seed, KINDS.index(kind)))
    plan = _plan(kind, events, rng)
    drawn = np.array(list(_draw(plan, events, rng)), dtype=np.int64)
    users, items = (_numbered(drawn[:, column]) for column in (0, 1))
    names = ("bot" if group == _BOT else "user" for group in drawn[np.unique(users, return_index=True)[1], 2])
    numbers = np.unique(drawn[:, 1], return_index=True)[1]
    return SyntheticStream(
        name=f"{_PREFIX}{kind}",
        users=users,
        items=items,
        time_ms=_START_MS + np.cumsum(1 + rng.exponential(_MEAN_GAP_MS, events).astype(np.int64)),
        types=np.full(events, -1, dtype=np.int16),
        weights=np.full(events, np.nan, dtype=np.float32),
        order=np.arange(events, dtype=np.int64),
        user_ids=[f"{name}-{code:05d}" for code, name in enumerate(names)],
        item_ids=[f"item-{drawn[place, 1]:04d}" for place in np.sort(numbers)],
        type_names=[],
        truth=Truth(plan, users, drawn[:, 1], drawn[:, 2]),
        drifts=plan.drifts,
    )


def _plan(kind: str, events: int, rng: np.random.Generator) -> _Plan:
    at = np.arange(events)
    phase, blend = np.zeros(events, dtype=np.int64), np.zeros(events)
    released = np.zeros(_ITEMS, dtype=np.int64)
    drifts: tuple[Drift, ...] = ()
    if kind == "abrupt":
        drifts = tuple(Drift(start, start) for start in (events * 4 // 10, events * 7 // 10))
        phase = np.searchsorted([drift.start for drift in drifts], at, side="right")
    elif kind == "gradual":
        drifts = (Drift(events * 4 // 10, events * 6 // 10),)
        blend = np.clip((at - drifts[0].start) / max(1, drifts[0].end - drifts[0].start), 0.0, 1.0)
    elif kind == "seasonal":
        turns = [events * quarter // 4 for quarter in range(5)]
        drifts = tuple(Drift(start, end) for start, end in pairwise(turns))
        blend = (1 - np.cos(4 * np.pi * at / events)) / 2
    elif kind == "new-items":
        released[_FIRST_ITEMS:] = np.linspace(0, events, _ITEMS - _FIRST_ITEMS, endpoint=False).astype(np.int64)
    bots = None
    if kind == "bots":
        bots = np.zeros(_ITEMS)
        pushed = np.arange(1, _PUSHED + 1) ** -0.5
        bots[rng.permutation(_ITEMS)[:_PUSHED]] = pushed / pushed.sum()
    concepts = [_concept(rng) for _ in range(int(phase.max()) + 2)]
    return _Plan(concepts, phase, blend, released, kind == "new-items", bots, drifts)


def _concept(rng: np.random.Generator) -> _Concept:
    ranks = rng.permutation(_ITEMS)
    popular = (ranks + 4.0) ** -1.2
    tastes = np.zeros((_GROUPS, _ITEMS))
    for group in range(_GROUPS):
        liked = rng.permutation(_ITEMS)[:_TASTE_ITEMS]
        tastes[group, liked] = (np.arange(_TASTE_ITEMS) + 5.0) ** -1
    tastes /= tastes.sum(1, keepdims=True)
    followers = np.stack([rng.permutation(_ITEMS)[: len(_FOLLOWERS)] for _ in range(_ITEMS)])
    return _Concept(followers, tastes, popular / popular.sum())


def _weights(plan: _Plan, position: int, last: int | None, group: int) -> Float64s:
    """Return p before the items that the person had are left out, as a new array that need not sum to one."""
    if group == _BOT:
        assert plan.bots is not None
        return plan.bots.copy()
    blend, phase = plan.blend[position], plan.phase[position]
    weights = np.zeros(_ITEMS)
    for share, concept in ((1 - blend, plan.concepts[phase]), (blend, plan.concepts[phase + 1])):
        if share == 0:
            continue
        weights += share * _TASTES * concept.tastes[group]
        if not plan.trends:
            weights += share * _POPULAR * concept.popular
        if last is not None:
            # followers of an item differ, so no index occurs twice
            weights[concept.followers[last]] += share * _FOLLOWS * _FOLLOWERS
    known = int(np.searchsorted(plan.released, position, side="right"))
    if plan.trends:
        weights[known - len(_TREND) : known] += _POPULAR * _TREND[::-1] / _TREND.sum()
    weights[known:] = 0.0
    return weights


def _draw(plan: _Plan, events: int, rng: np.random.Generator) -> Iterator[tuple[int, int, int]]:
    """Yield (person, item, group) of every event; a person's number is never used again."""
    people = _People(rng, bots=plan.bots is not None)
    for position in range(events):
        person = people.next()
        weights = _weights(plan, position, person.had[-1] if person.had else None, person.group)
        weights[person.had] = 0.0
        totals = np.cumsum(weights)
        item = int(np.searchsorted(totals, rng.random() * totals[-1], side="right"))
        person.had.append(item)
        yield person.number, item, person.group


class _Person:
    __slots__ = ("events", "group", "had", "number")

    def __init__(self, number: int, group: int, events: int) -> None:
        self.number = number
        self.group = group
        # how many events there will be
        self.events = events
        self.had: list[int] = []


class _People:
    """Draw who acts next: some are busier than others, and all leave some day."""

    def __init__(self, rng: np.random.Generator, *, bots: bool) -> None:
        self._rng = rng
        self._joined = 0
        self._activity = np.cumsum((np.arange(_PEOPLE) + 20.0) ** -0.7).tolist()
        self._people = [self._join(int(rng.integers(_GROUPS))) for _ in range(_PEOPLE)]
        self._bots = [self._join(_BOT) for _ in range(5 if bots else 0)]

    def next(self) -> _Person:
        rng = self._rng
        if self._bots and rng.random() < _BOT_SHARE:
            return self._next_of(self._bots, int(rng.integers(len(self._bots))), lambda: _BOT)
        place = bisect(self._activity, rng.random() * self._activity[-1], hi=_PEOPLE - 1)
        return self._next_of(self._people, place, lambda: int(rng.integers(_GROUPS)))

    def _next_of(self, people: list[_Person], place: int, group: Callable[[], int]) -> _Person:
        if len(people[place].had) >= people[place].events:
            people[place] = self._join(group())
        return people[place]

    def _join(self, group: int) -> _Person:
        self._joined += 1
        events = _BOT_EVENTS if group == _BOT else min(int(self._rng.geometric(1 / _MEAN_EVENTS)), _MOST_EVENTS)
        return _Person(self._joined, group, events)


def _numbered(values: NDArray[np.int64]) -> NDArray[np.int32]:
    """Number ``values`` in the order of their first occurrence."""
    _, first, codes = np.unique(values, return_index=True, return_inverse=True)
    ranks = np.empty(len(first), dtype=np.int32)
    ranks[np.argsort(first)] = np.arange(len(first))
    numbered: NDArray[np.int32] = ranks[codes]
    return numbered
