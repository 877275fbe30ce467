"""Laws of the mixture on synthetic scores with known truth."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recurra.engine.mix import Mix, Situation

# [parts, candidates], in the order of NAMES
Parts = npt.NDArray[np.float32]
Case = tuple[Parts, int, Situation]

NAMES = ("slow", "counts", "pairs")
COUNT = 60


def stream(size: int, seed: int, strength: Callable[[int], tuple[float, float, float]]) -> list[Case]:
    """Candidates whose true one is lifted in every part by ``strength(k)``; some scores are missing."""
    generator = np.random.default_rng(seed)
    cases: list[Case] = []
    for k in range(size):
        position = int(generator.integers(COUNT))
        noise = generator.standard_normal((3, COUNT))
        noise[:, position] += strength(k)
        parts = np.stack([noise[0], np.exp(noise[1]), np.exp(noise[2])]).astype(np.float32)
        parts[2, generator.random(COUNT) < 0.2] = np.nan
        cases.append((parts, position, Situation(int(generator.integers(80)), int(generator.integers(2)) * 3_600_000)))
    return cases


def gain(scores: npt.NDArray[np.floating], position: int) -> float:
    rank = int((scores >= scores[position]).sum())
    return 1.0 / float(np.log2(rank + 1)) if 0 < rank <= 10 else 0.0


def prequential(mix: Mix, cases: list[Case], skip: int) -> tuple[float, float]:
    """Return the NDCG@10 of the mixture and of its best part over the cases after the first ``skip``."""
    mixed, alone = [], []
    for parts, position, situation in cases:
        mixed.append(gain(mix.score(parts, situation), position))
        alone.append([gain(scores, position) for scores in parts])
        mix.learn(parts, position, situation)
    return float(np.mean(mixed[skip:])), float(np.mean(alone[skip:], axis=0).max())


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("strengths", [(2.0, 0.0, 0.0), (0.0, 2.5, 0.0), (0.0, 0.0, 2.0)])
def test_it_follows_the_only_part_that_knows_anything(strengths: tuple[float, float, float], seed: int) -> None:
    mixed, alone = prequential(Mix(NAMES), stream(1_500, seed, lambda _: strengths), 500)
    assert mixed >= 0.97 * alone


def test_it_beats_every_part_when_they_know_different_things() -> None:
    mixed, alone = prequential(Mix(NAMES), stream(1_500, 4, lambda _: (1.5, 1.5, 1.5)), 500)
    assert mixed >= 1.2 * alone


def test_it_follows_a_change_of_the_best_part() -> None:
    def strength(k: int) -> tuple[float, float, float]:
        return (2.5, 0.0, 0.0) if k < 1_500 else (0.0, 2.5, 0.0)

    mix = Mix(NAMES)
    cases = stream(4_500, 5, strength)
    prequential(mix, cases[:1_500], 500)
    mixed, alone = prequential(mix, cases[1_500:], 1_500)
    assert mixed >= 0.95 * alone


def test_situations_have_their_own_weights() -> None:
    generator = np.random.default_rng(6)
    mix = Mix(("a", "b"), logits=("a", "b"))
    young, old = Situation(1, 0), Situation(100, 0)
    for k in range(2_000):
        noise = generator.standard_normal((2, COUNT)).astype(np.float32)
        noise[k % 2, 7] += 3.0
        mix.learn(noise, 7, young if k % 2 == 0 else old)
    probe = np.eye(2, dtype=np.float32)
    assert np.argmax(mix.score(probe, young)) == 0
    assert np.argmax(mix.score(probe, old)) == 1


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 1_000), stop=st.integers(0, 60))
def test_a_restored_mixture_goes_on_as_if_nothing_had_happened(seed: int, stop: int) -> None:
    cases = stream(60, seed, lambda _: (1.0, 1.0, 0.5))
    whole, before, after = Mix(NAMES), Mix(NAMES), Mix(NAMES)
    for k, (parts, position, situation) in enumerate(cases):
        whole.learn(parts, position, situation)
        if k < stop:
            before.learn(parts, position, situation)
    assert after.restore(before.state())
    for parts, position, situation in cases[stop:]:
        after.learn(parts, position, situation)
    assert after.state() == whole.state()
    assert np.array_equal(after.score(cases[0][0], cases[0][2]), whole.score(cases[0][0], cases[0][2]))
    assert len(whole.state()) < 4_096


def test_a_state_of_other_parts_or_a_damaged_one_is_refused() -> None:
    mix = Mix(NAMES)
    for parts, position, situation in stream(20, 7, lambda _: (1.0, 1.0, 1.0)):
        mix.learn(parts, position, situation)
    before = mix.state()
    for blob in (b"", before[:-1], before + b"x", Mix((*NAMES, "more")).state()):
        assert not mix.restore(blob)
    assert mix.state() == before


def test_an_item_outside_the_candidates_teaches_nothing() -> None:
    mix = Mix(NAMES)
    before = mix.state()
    mix.learn(stream(1, 8, lambda _: (0.0, 0.0, 0.0))[0][0], -1, Situation(1, 0))
    assert mix.state() == before


@settings(deadline=None, max_examples=50)
@given(
    values=st.lists(
        st.lists(st.one_of(st.just(float("nan")), st.floats(2.0**-90, 2.0**90, width=32)), min_size=5, max_size=5),
        min_size=3,
        max_size=3,
    ),
    position=st.integers(0, 4),
    events=st.integers(0, 200),
)
def test_scores_stay_finite_whatever_comes(values: list[list[float]], position: int, events: int) -> None:
    mix = Mix(NAMES)
    parts = np.array(values, np.float32)
    for _ in range(5):
        mix.learn(parts, position, Situation(events, 0))
        assert np.isfinite(mix.score(parts, Situation(events, 0))).all()


def test_parts_may_be_silent_and_candidates_none() -> None:
    mix = Mix(NAMES)
    only = np.full((3, 3), np.nan, np.float32)
    only[1] = [1.0, 3.0, 2.0]
    assert np.argsort(-mix.score(only, Situation(0, 0))).tolist() == [1, 2, 0]
    assert mix.score(only[:, :0], Situation(0, 0)).size == 0


def test_the_weights_name_every_member() -> None:
    mix = Mix(NAMES)
    for parts, position, situation in stream(300, 9, lambda _: (0.0, 3.0, 0.0)):
        mix.learn(parts, position, situation)
    shown = mix.weights()
    assert set(shown.evidence) == {*NAMES, "combination"}
    assert set(shown.shared) == set(NAMES)
    assert shown.evidence["counts"] > shown.evidence["slow"]
    assert mix.chosen(Situation(5, 0)) in {"counts", "combination"}
