"""The error memory against sums over all its entries."""

import numpy as np
import numpy.typing as npt
import pytest

from recurra.engine.fast import BLOCK, ErrorMemory, Moment

EVENTS, D = 64, 6
NOBODY = np.empty(0, np.int32)
Scores = npt.NDArray[np.float32]


def learnt(count: int, *, events: int = EVENTS) -> tuple[ErrorMemory, npt.NDArray[np.int32], Scores]:
    rng = np.random.default_rng(5)
    items, vectors = rng.integers(0, 9, count).astype(np.int32), rng.normal(size=(count, D)).astype(np.float32)
    memory = ErrorMemory(events, D)
    memory.learn(np.arange(count), np.arange(count, dtype=np.int32) % 7, items, vectors)
    return memory, items, vectors


def sums(memory: ErrorMemory, vector: Scores, expected: list[int], seq: int) -> dict[int, float]:
    total: dict[int, float] = {}
    for item, vote in zip(*memory.vote(vector, np.array(expected, np.int32), Moment(seq, NOBODY)), strict=True):
        total[int(item)] = total.get(int(item), 0.0) + float(vote)
    return total


def naive(items: npt.NDArray[np.int32], vectors: Scores, vector: Scores, expected: list[int]) -> dict[int, float]:
    total: dict[int, float] = {}
    for item, other in zip(items.tolist(), vectors, strict=True):
        cosine = float(vector @ other / np.linalg.norm(vector) / np.linalg.norm(other))
        if cosine > 0:
            total[item] = total.get(item, 0.0) + cosine * (0.2 if item in expected else 1.0)
    return total


def window(count: int) -> slice:
    """Return which of the events learnt vote before the next one: whole blocks that are not about to go."""
    stop = count - count % BLOCK
    return slice(max(0, stop + BLOCK - EVENTS), stop)


@pytest.mark.parametrize("count", [0, 1, 30, 32, EVENTS, 2 * EVENTS + 3])
def test_the_last_events_vote_by_cosine_and_what_the_model_expects_counts_less(count: int) -> None:
    memory, items, vectors = learnt(count)
    vector = np.linspace(-1, 2, D, dtype=np.float32)
    part = window(count)
    for expected in ([], [3, 4]):
        assert sums(memory, vector, expected, count) == pytest.approx(
            naive(items[part], vectors[part], vector, expected), rel=1e-4
        )


def test_the_nearest_come_first() -> None:
    memory, _, _ = learnt(EVENTS)
    _, votes = memory.vote(np.ones(D, np.float32), NOBODY, Moment(EVENTS, NOBODY))
    assert (np.diff(votes) <= 0).all()


@pytest.mark.parametrize("ahead", range(BLOCK))
def test_a_vote_does_not_depend_on_how_much_of_its_block_was_learnt(ahead: int) -> None:
    # many equal vectors, and more events than vote: which of the equal ones do must not be left to chance
    events, seq = 512, 1_008
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(3, D)).astype(np.float32)[rng.integers(0, 3, 2 * events)]
    items = np.arange(2 * events, dtype=np.int32)
    found = []
    for learnt_events in (seq, seq + ahead):
        memory = ErrorMemory(events, D)
        part = slice(0, learnt_events)
        memory.learn(np.arange(learnt_events), items[part], items[part], vectors[part])
        found.append(memory.vote(np.ones(D, np.float32), NOBODY, Moment(seq + ahead, NOBODY)))
    (items_one, votes_one), (items_two, votes_two) = found
    assert items_one.size == 200
    np.testing.assert_array_equal(items_one, items_two)
    np.testing.assert_array_equal(votes_one, votes_two)


def test_to_learn_an_event_again_changes_nothing() -> None:
    memory, items, vectors = learnt(EVENTS)
    vector = np.ones(D, np.float32)
    before = sums(memory, vector, [], EVENTS)
    memory.learn(np.arange(20, 30), np.arange(20, 30, dtype=np.int32) % 7, items[20:30], vectors[20:30])
    assert sums(memory, vector, [], EVENTS) == before


def test_a_forgotten_user_has_no_vote() -> None:
    memory, items, vectors = learnt(EVENTS)
    memory.forget(3)
    assert memory.users.tolist() == [0, 1, 2, 4, 5, 6]
    kept = np.flatnonzero(np.arange(EVENTS) % 7 != 3)
    kept = kept[kept >= BLOCK]
    vector = np.ones(D, np.float32)
    assert sums(memory, vector, [], EVENTS) == pytest.approx(naive(items[kept], vectors[kept], vector, []), rel=1e-4)


def test_bytes_do_not_depend_on_what_was_learnt() -> None:
    assert learnt(0)[0].nbytes == learnt(3 * EVENTS)[0].nbytes == EVENTS * (4 * D + 16)
