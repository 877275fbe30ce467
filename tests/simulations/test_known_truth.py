"""Streams whose truth is known: the truth is what the events were drawn from."""

import numpy as np
import pytest

from recurra.engine.errors import InputError
from recurra.simulations.synthetic import KINDS, SyntheticStream, kind_of, stream


@pytest.fixture(scope="module", params=KINDS)
def made(request: pytest.FixtureRequest) -> SyntheticStream:
    return stream(request.param, 6_000, seed=3)


def test_a_seed_gives_one_stream() -> None:
    first, again, other = (stream("gradual", 500, seed) for seed in (1, 1, 2))
    assert first.events(0, 500) == again.events(0, 500)
    assert first.events(0, 500) != other.events(0, 500)
    np.testing.assert_array_equal(first.truth.probabilities(499), again.truth.probabilities(499))


def test_a_stream_is_as_a_file_would_be(made: SyntheticStream) -> None:
    assert len(made) == 6_000
    for codes, names in ((made.users, made.user_ids), (made.items, made.item_ids)):
        # numbered in the order of the first event
        _, first = np.unique(codes, return_index=True)
        assert (np.diff(first) > 0).all()
        assert len(names) == len(set(names)) == len(first)
    assert (np.diff(made.time_ms) > 0).all()
    pairs = set(zip(made.users.tolist(), made.items.tolist(), strict=True))
    assert len(pairs) == len(made)


def test_the_truth_is_a_distribution_over_what_can_come(made: SyntheticStream) -> None:
    for position in (0, 1, 2_399, 2_400, 5_999):
        likely = made.truth.probabilities(position)
        assert len(likely) == len(made.item_ids)
        # items that never come are missing
        assert 0.8 < likely.sum() <= 1 + 1e-9
        assert likely[made.items[position]] > 0
        had = made.items[:position][made.users[:position] == made.users[position]]
        assert (likely[had] == 0).all()


def test_events_follow_the_truth(made: SyntheticStream) -> None:
    positions = np.arange(200, 6_000, 2)
    expected, variance, hits, surprise, entropy = 0.0, 0.0, 0, [], []
    for position in positions.tolist():
        likely = made.truth.probabilities(position)
        top = np.argpartition(-likely, 10)[:10]
        share = float(likely[top].sum())
        expected += share
        variance += share * (1 - share)
        hits += int(made.items[position]) in top
        surprise.append(-np.log(likely[made.items[position]]))
        possible = likely[likely > 0]
        entropy.append(-np.sum(possible * np.log(possible)))
    # hits and surprise are what the distribution promises, within four standard errors
    assert abs(hits - expected) < 4 * np.sqrt(variance)
    difference = np.array(surprise) - np.array(entropy)
    assert abs(difference.mean()) < 4 * difference.std() / np.sqrt(len(difference))


@pytest.mark.parametrize(
    ("kind", "drifts"),
    [
        ("stationary", []),
        ("abrupt", [(400, 400), (700, 700)]),
        ("gradual", [(400, 600)]),
        ("seasonal", [(0, 250), (250, 500), (500, 750), (750, 1_000)]),
        ("new-items", []),
        ("bots", []),
    ],
)
def test_drifts_are_told(kind: str, drifts: list[tuple[int, int]]) -> None:
    assert [tuple(drift) for drift in stream(kind, 1_000).drifts] == drifts


def _agreement(made: SyntheticStream, one: range, other: range) -> float:
    """Return how alike p is for people who come for the first time, in two parts of a stream; 1 is equal."""
    _, first = np.unique(made.users, return_index=True)
    means = [
        np.mean([made.truth.probabilities(at) for at in first.tolist() if at in part], axis=0) for part in (one, other)
    ]
    return float(np.minimum(*means).sum())


def test_the_distribution_changes_where_the_drifts_are() -> None:
    steady, abrupt, gradual = (stream(kind, 8_000, seed=5) for kind in ("stationary", "abrupt", "gradual"))
    parts = range(300, 3_200), range(3_200, 5_600)
    assert _agreement(steady, *parts) > 0.8
    assert _agreement(abrupt, *parts) < 0.6
    assert _agreement(abrupt, range(300, 1_700), range(1_700, 3_200)) > 0.75
    # in the middle of a gradual change both concepts have their share
    before, middle, after = range(300, 3_200), range(3_800, 4_200), range(4_800, 8_000)
    assert _agreement(gradual, before, after) < _agreement(gradual, before, middle) - 0.05


def test_new_items_are_popular_at_first() -> None:
    made = stream("new-items", 20_000, seed=1)
    _, first = np.unique(made.items, return_index=True)
    late = np.flatnonzero((first > 4_000) & (first < 14_000))
    assert len(late) > 100
    soon = sum(int(np.count_nonzero(made.items[first[item] : first[item] + 1_000] == item)) for item in late)
    later = sum(int(np.count_nonzero(made.items[first[item] + 4_000 :][:1_000] == item)) for item in late)
    assert soon > 2 * later > 0


def test_bots_push_a_few_items() -> None:
    made = stream("bots", 5_000, seed=1)
    bots = np.array([name.startswith("bot") for name in made.user_ids])[made.users]
    assert bots.mean() == pytest.approx(0.15, abs=0.02)
    assert len(np.unique(made.items[bots])) <= 30


def test_a_stream_is_found_by_its_name() -> None:
    assert kind_of("synthetic:bots") == "bots"
    assert kind_of("synthetic.csv") is None
    with pytest.raises(InputError, match="no synthetic stream is called 'x'"):
        kind_of("synthetic:x")
    with pytest.raises(InputError, match="no synthetic stream is called 'x'"):
        stream("x", 10)
    with pytest.raises(InputError, match="at least 1 event"):
        stream("bots", 0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_may_be_as_short_as_one_event(kind: str) -> None:
    made = stream(kind, 1)
    assert made.truth.probabilities(0).tolist() == pytest.approx([made.truth.probabilities(0)[0]])
    assert len(made.events(0, 1)) == 1
