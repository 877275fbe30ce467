"""Drift, found where it is and nowhere else."""

import numpy as np
import pytest

from recurra.simulations import synthetic
from recurra.simulations.baselines import SequentialRules
from recurra.simulations.drift import falls
from recurra.simulations.prequential import MISS, Owned, rank_among_known


def _found(kind: str, events: int, seed: int) -> tuple[synthetic.SyntheticStream, list[int]]:
    """Rank the events after the first fifth by rules, and look for drift in that."""
    stream = synthetic.stream(kind, events, seed)
    rules, owned, known = SequentialRules(), Owned(), 0
    warm = events // 5
    ranks = np.zeros(events - warm, np.int32)
    for position, (user, item) in enumerate(zip(stream.users.tolist(), stream.items.tolist(), strict=True)):
        if position >= warm:
            seen = item < known
            ranks[position - warm] = rank_among_known(rules.scores(user), item, owned.of(user)) if seen else MISS
        rules.learn(user, item)
        owned.add(user, item)
        known = max(known, item + 1)
    return stream, falls(ranks, np.arange(warm, events))


def test_a_long_stationary_stream_raises_no_alarm() -> None:
    assert _found("stationary", 100_000, 0)[1] == []


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_an_abrupt_change_is_found_soon(seed: int) -> None:
    stream, found = _found("abrupt", 20_000, seed)
    assert len(found) == len(stream.drifts) == 2
    for position, drift in zip(found, stream.drifts, strict=True):
        assert drift.start < position < drift.start + 1_500


def test_a_gradual_change_is_found_while_it_goes_on() -> None:
    stream, found = _found("gradual", 20_000, 0)
    assert found
    assert all(stream.drifts[0].start < position < stream.drifts[0].end for position in found)


def test_learning_is_no_drift_and_forgetting_is() -> None:
    positions = np.arange(5_000, 9_000)
    good, bad = np.tile([1, 2], 1_000).astype(np.int32), np.full(2_000, 30, np.int32)
    assert falls(np.concatenate((bad, good)), positions) == []
    (found,) = falls(np.concatenate((good, bad)), positions)
    assert 7_000 < found < 7_100


def test_events_that_are_few_say_nothing() -> None:
    assert falls(np.zeros(0, np.int32), np.zeros(0, np.int64)) == []
