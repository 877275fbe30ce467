"""The protocol's arithmetic, against figures worked out by hand and against slow definitions."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recurra.simulations.prequential import (
    MISS,
    NOT_RANKED,
    Owned,
    Ranks,
    Tally,
    cohorts,
    metrics,
    over_time,
    rank_among_known,
    rank_dense,
    rank_listed,
)

_SCORES = st.lists(st.sampled_from([0.0, 1.0, 2.5, -1.0, math.nan, math.inf, -math.inf]), min_size=1, max_size=12)


def test_metrics_by_hand() -> None:
    ranks = np.array([1, 3, 10, 11, 20, 21, MISS, MISS], dtype=np.int32)
    gained = 1 + 1 / math.log2(4) + 1 / math.log2(11)
    reciprocal = 1 + 1 / 3 + 1 / 10 + 1 / 11 + 1 / 20 + 1 / 21
    assert metrics(ranks) == pytest.approx(
        {"hr@10": 3 / 8, "hr@20": 5 / 8, "ndcg@10": gained / 8, "mrr": reciprocal / 8}, abs=1e-6
    )


def test_metrics_of_nothing_are_zero() -> None:
    nothing = {"hr@10": 0.0, "hr@20": 0.0, "ndcg@10": 0.0, "mrr": 0.0}
    assert metrics(np.zeros(0, np.int32)) == nothing
    assert metrics(np.full(3, NOT_RANKED, np.int32)) == nothing


def test_events_that_a_competitor_was_not_asked_about_count_nowhere() -> None:
    asked = np.array([1, 12, MISS], np.int32)
    assert metrics(np.insert(asked, [0, 2, 3], NOT_RANKED)) == metrics(asked)


@given(st.lists(st.integers(0, 40), max_size=60))
@settings(deadline=None, max_examples=50)
def test_a_tally_agrees_with_the_metrics_of_all_and_of_the_last(ranks: list[int]) -> None:
    tally = Tally(window=7)
    for rank in ranks:
        tally.add(rank)
    assert tally.metrics() == pytest.approx(metrics(np.array(ranks, np.int32)), abs=2e-6)
    assert tally.recent() == pytest.approx(metrics(np.array(ranks[-7:], np.int32)), abs=2e-6)


def test_over_time_cuts_by_stream_position() -> None:
    ranks = np.array([1, 100, 1], np.int32)
    points = over_time(ranks, np.array([10, 14, 20]), np.array([10, 15, 20, 25]))
    assert [point["hr@10"] for point in points] == [0.5, 0.0, 1.0]


def test_ties_count_against_the_true_item() -> None:
    scores = np.array([2.0, 1.0, 1.0, 1.0, 0.0])
    nobody = np.zeros(0, np.int32)
    assert rank_among_known(scores, 0, nobody) == 1
    assert rank_among_known(scores, 2, nobody) == 4
    assert rank_among_known(scores, 2, np.array([0, 3], np.int32)) == 2
    assert rank_among_known(scores, 4, nobody) == 5


def _slow_rank(scores: list[float], allowed: list[bool], true: int) -> int:
    """The definition: one plus the other candidates that score at least as much; not finite is below everything."""

    def value(score: float) -> float:
        return score if math.isfinite(score) else -math.inf

    others = [value(score) for at, score in enumerate(scores) if at != true and allowed[at]]
    return 1 + sum(other >= value(scores[true]) for other in others)


@given(_SCORES, st.data())
@settings(deadline=None, max_examples=150)
def test_every_ranking_follows_the_definition(scores: list[float], data: st.DataObject) -> None:
    true = data.draw(st.integers(0, len(scores) - 1))
    allowed = data.draw(st.lists(st.booleans(), min_size=len(scores), max_size=len(scores)))
    allowed[true] = True
    expected = _slow_rank(scores, allowed, true)
    mask = np.array(allowed)
    excluded = np.flatnonzero(~mask).astype(np.int32)
    assert rank_among_known(np.array(scores), true, excluded) == expected
    assert rank_dense(np.array(scores, np.float32), mask, true) == expected
    # listed in any order, some of the items left out: those have no score at all
    listed = data.draw(st.permutations(range(len(scores))))[: data.draw(st.integers(0, len(scores)))]
    partly = [score if at in listed else math.nan for at, score in enumerate(scores)]
    rows = np.array(listed, np.int32)
    assert rank_listed(rows, np.array(scores)[rows], mask, true) == _slow_rank(partly, allowed, true)


def test_an_item_that_may_not_be_recommended_is_a_miss() -> None:
    allowed = np.array([True, False])
    assert rank_dense(np.ones(2, np.float32), allowed, 1) == MISS
    assert rank_dense(np.ones(2, np.float32), allowed, -1) == MISS
    assert rank_dense(np.ones(2, np.float32), allowed, 2) == MISS
    assert rank_listed(np.array([0, 1], np.int32), np.ones(2), allowed, 1) == MISS
    assert rank_listed(np.array([0, 1], np.int32), np.ones(2), allowed, -1) == MISS


def test_a_competitor_that_comes_later_has_missed_what_was_before() -> None:
    ranks = Ranks(3)
    ranks.add({"a": 1})
    ranks.add({"a": 2, "b": 5})
    assert list(ranks) == ["a", "b"]
    assert ranks.of("a").tolist() == [1, 2]
    assert ranks.of("b").tolist() == [MISS, 5]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 20)), max_size=80))
@settings(deadline=None, max_examples=50)
def test_owned_items_are_kept_once_per_user(events: list[tuple[int, int]]) -> None:
    owned = Owned()
    truth: dict[int, set[int]] = {}
    for user, item in events:
        assert owned.has(user, item) == (item in truth.get(user, set()))
        owned.add(user, item)
        truth.setdefault(user, set()).add(item)
        assert sorted(owned.of(user).tolist()) == sorted(truth[user])
    assert owned.of(99).tolist() == []


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(0, 2)), min_size=1, max_size=60))
@settings(deadline=None, max_examples=60)
def test_cohorts_look_only_at_what_came_before(steps: list[tuple[int, int, int]]) -> None:
    users, items = (np.array([step[place] for step in steps], np.int32) for place in (0, 1))
    times = np.cumsum([step[2] for step in steps]).astype(np.int64)
    groups = cohorts(users, items, times)
    for at in range(len(steps)):
        before = slice(0, at)
        own = np.flatnonzero(users[before] == users[at])
        counts = Counter(items[before].tolist())
        of_item = counts[int(items[at])]
        more = sum(count > of_item for count in counts.values())
        assert groups["new_user"][at] == (len(own) < 5)
        assert groups["new_item"][at] == (of_item < 5)
        assert groups["head"][at] == (of_item > 0 and more < 0.2 * len(counts))
        assert groups["with_gap"][at] == (len(own) > 0 and times[own[-1]] < times[at])
    for one, other in (
        ("new_user", "old_user"),
        ("new_item", "old_item"),
        ("head", "tail"),
        ("with_gap", "without_gap"),
    ):
        assert (groups[one] ^ groups[other]).all()
