"""A contest on a stream small enough to be ranked by hand."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from recurra.engine.events import Event
from recurra.engine.results import Scores
from recurra.simulations import synthetic
from recurra.simulations.baselines import chosen
from recurra.simulations.contest import Contest
from recurra.simulations.datasets import Stream

StreamOf = Callable[[Sequence[tuple[int, int]]], Stream]


# items in the order of their first event: 0, 1, 2, 3
_TINY = [(0, 0), (1, 0), (0, 1), (1, 1), (2, 0), (2, 2), (0, 0), (0, 2), (2, 3)]


def _play(stream: Stream, *, repeats: bool = False, warm: int = 0) -> list[int]:
    contest = Contest(stream, chosen("popularity"), np.arange(warm, len(stream)), repeats=repeats)
    ranks = []
    for position in range(len(stream)):
        if position >= warm:
            contest.judge(position, None, None)
            ranks.append(contest._ranks.of("popularity")[-1])
        contest.learn(position)
    return [int(rank) for rank in ranks]


def test_popularity_is_ranked_as_by_hand(stream_of: StreamOf) -> None:
    expected = {
        "item 0 was never seen: a miss": 0,
        "item 0 is the only candidate": 1,
        "item 1 was never seen": 0,
        "item 1 is the only one that user 1 did not have": 1,
        "items 0 and 1 have two events each, those of item 1 are newer": 2,
        "item 2 was never seen": 0,
        "user 0 had item 0 already: a miss": 0,
        "item 2 is the only one that user 0 did not have": 1,
        "item 3 was never seen": 0,
    }
    assert _play(stream_of(_TINY)) == list(expected.values())


def test_with_repeats_own_items_are_candidates(stream_of: StreamOf) -> None:
    ranks = _play(stream_of(_TINY), repeats=True)
    # user 0 has item 0 again: 3 events against 2 and 1
    assert ranks[6] == 1
    # item 2 has 1 event, items 0 and 1 have 4 and 2
    assert ranks[7] == 3


def test_the_engine_is_judged_by_its_own_exclusion_and_union(stream_of: StreamOf) -> None:
    stream = stream_of([(0, 0), (1, 1), (2, 2), (0, 1), (1, 0), (2, 2)])
    contest = Contest(stream, [], np.arange(3, 6))
    for position in range(3):
        contest.learn(position)
    allowed = np.array([False, True, True])
    slow = np.array([9.0, 1.0, 2.0], np.float32)
    # the true item is row 1: last of two in the union, and last of two for the model
    contest.judge(3, Scores(np.array([1, 2], np.int32), np.array([0.5, 0.5]), {"slow": slow}, allowed, 1), 1)
    # the true item, row 0, is allowed but not in the union: below the two that are
    everything = np.ones(3, np.bool_)
    contest.judge(4, Scores(np.array([1, 2], np.int32), np.array([0.5, 0.1]), {"slow": slow}, everything, 1), 0)
    # the engine excludes row 2: a miss
    excluded = np.array([True, True, False])
    contest.judge(5, Scores(np.array([0, 1], np.int32), np.array([0.5, 0.1]), {"slow": slow}, excluded, 1), 2)
    result = contest.result()
    assert result["evaluated"] == 3
    assert result["recurra"]["mrr"] == pytest.approx((1 / 2 + 1 / 3 + 0) / 3, abs=1e-6)
    assert result["components"]["slow"]["mrr"] == pytest.approx((1 / 2 + 1 + 0) / 3, abs=1e-6)
    assert result["recall_union"] == pytest.approx(1 / 3, abs=1e-6)


def test_an_item_that_the_stream_has_not_shown_is_a_miss_even_if_a_catalogue_has(stream_of: StreamOf) -> None:
    contest = Contest(stream_of([(0, 0), (0, 1)]), [], np.array([1]))
    contest.learn(0)
    known = np.ones(2, np.bool_)
    contest.judge(1, Scores(np.array([0, 1], np.int32), np.array([0.0, 1.0]), {}, known, 0), 1)
    assert contest.result()["recurra"]["mrr"] == 0


def test_events_are_told_as_the_engine_takes_them(stream_of: StreamOf) -> None:
    assert stream_of(_TINY).event(5) == Event("u2", "i2", 1_000_000_005_000)


def test_slow_baselines_are_asked_about_a_sample(stream_of: StreamOf) -> None:
    rng = np.random.default_rng(0)
    stream = stream_of(_coded(rng.integers(0, [300, 40], (6_000, 2)).tolist()))
    contest = Contest(stream, chosen("popularity,river-funk-mf"), np.arange(1_000, 6_000, 2), repeats=True)
    for position in range(len(stream)):
        if position >= 1_000 and position % 2 == 0:
            contest.judge(position, None, None)
        contest.learn(position)
    result = contest.result()
    assert result["evaluated"] == 2_500
    slow = result["baselines"]["river-funk-mf"]
    assert slow["n"] == 2_000
    # random events: the sample is as good as all would be
    assert slow["hr@10"] == pytest.approx(10 / 40, abs=0.04)
    assert "n" not in result["baselines"]["popularity"]
    # a sample is too thin for parts of the stream
    assert list(result["timeline"]["series"]) == ["popularity"]
    assert set(result["cohorts"]["head"]) == {"n", "popularity"}


def _coded(pairs: list[list[int]]) -> list[tuple[int, int]]:
    """Number users and items in the order of their first event."""
    users: dict[int, int] = {}
    items: dict[int, int] = {}
    return [(users.setdefault(user, len(users)), items.setdefault(item, len(items))) for user, item in pairs]


def test_lists_tell_how_much_of_the_catalogue_is_shown_and_how_well_known_it_is(stream_of: StreamOf) -> None:
    # item 0 has four events, items 1 .. 11 one each; user 4 had nothing before
    pairs = [(user, 0) for user in range(4)] + [(0, item) for item in range(1, 12)] + [(4, 0)]
    stream = stream_of(pairs)
    contest = Contest(stream, chosen("popularity"), np.array([len(pairs) - 1]))
    for position in range(len(pairs) - 1):
        # the engine numbers its rows in another way
        contest.learn(position, 20 - pairs[position][1])
    rows = np.array([20, 18, 16], np.int32)
    allowed = np.ones(21, np.bool_)
    allowed[18] = False
    contest.judge(len(pairs) - 1, Scores(rows, np.array([1.0, 3.0, 2.0]), {}, allowed, 0), 20)
    result = contest.result()
    # items 4 and 0 are shown
    assert result["recurra"]["coverage@10"] == pytest.approx(2 / 12, abs=1e-6)
    assert result["recurra"]["novelty@10"] == pytest.approx((np.log2(15 / 4) + np.log2(15)) / 2, abs=1e-4)
    # the most popular item and the nine newest of the others
    assert result["baselines"]["popularity"]["coverage@10"] == pytest.approx(10 / 12, abs=1e-6)
    expected = (np.log2(15 / 4) + 9 * np.log2(15)) / 10
    assert result["baselines"]["popularity"]["novelty@10"] == pytest.approx(expected, abs=1e-4)


def test_a_generated_stream_is_ranked_by_its_truth_too() -> None:
    stream = synthetic.stream("abrupt", 3_000, seed=2)
    contest = Contest(stream, chosen("markov"), np.arange(600, 3_000))
    for position in range(3_000):
        if position >= 600:
            contest.judge(position, None, None)
        contest.learn(position)
    result = contest.result()
    assert result["truth"]["drifts"] == [[1_200, 1_200], [2_100, 2_100]]
    assert result["truth"]["ndcg@10"] > 2 * result["baselines"]["markov"]["ndcg@10"] > 0
    assert "truth" in result["timeline"]["series"]
    # whom a script takes for the best baseline is not the truth
    assert list(result["baselines"]) == ["markov"]
