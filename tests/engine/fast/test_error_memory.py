"""The error memory against sums over all its entries."""

import numpy as np
import numpy.typing as npt
import pytest

from recurra.engine.fast import ErrorMemory

EVENTS, D = 50, 6
Scores = npt.NDArray[np.float32]


def learnt(count: int, *, events: int = EVENTS) -> tuple[ErrorMemory, npt.NDArray[np.int32], Scores]:
    rng = np.random.default_rng(5)
    items, vectors = rng.integers(0, 9, count).astype(np.int32), rng.normal(size=(count, D)).astype(np.float32)
    memory = ErrorMemory(events, D)
    memory.learn(np.arange(count), np.arange(count, dtype=np.int32) % 7, items, vectors)
    return memory, items, vectors


def sums(memory: ErrorMemory, vector: Scores, expected: list[int]) -> dict[int, float]:
    total: dict[int, float] = {}
    for item, vote in zip(*memory.vote(vector, np.array(expected, np.int32)), strict=True):
        total[int(item)] = total.get(int(item), 0.0) + float(vote)
    return total


def naive(items: npt.NDArray[np.int32], vectors: Scores, vector: Scores, expected: list[int]) -> dict[int, float]:
    total: dict[int, float] = {}
    for item, other in zip(items.tolist(), vectors, strict=True):
        cosine = float(vector @ other / np.linalg.norm(vector) / np.linalg.norm(other))
        if cosine > 0:
            total[item] = total.get(item, 0.0) + cosine * (0.2 if item in expected else 1.0)
    return total


@pytest.mark.parametrize("count", [0, 1, 30, EVENTS, 2 * EVENTS + 3])
def test_the_last_events_vote_by_cosine_and_what_the_model_expects_counts_less(count: int) -> None:
    memory, items, vectors = learnt(count)
    vector = np.linspace(-1, 2, D, dtype=np.float32)
    for expected in ([], [3, 4]):
        assert sums(memory, vector, expected) == pytest.approx(
            naive(items[-EVENTS:], vectors[-EVENTS:], vector, expected), rel=1e-4
        )


def test_the_nearest_come_first() -> None:
    memory, _, _ = learnt(EVENTS)
    _, votes = memory.vote(np.ones(D, np.float32), np.empty(0, np.int32))
    assert (np.diff(votes) <= 0).all()


def test_to_learn_an_event_again_changes_nothing() -> None:
    memory, items, vectors = learnt(EVENTS)
    vector = np.ones(D, np.float32)
    before = sums(memory, vector, [])
    memory.learn(np.arange(10, 20), np.arange(10, 20, dtype=np.int32) % 7, items[10:20], vectors[10:20])
    assert sums(memory, vector, []) == before


def test_a_forgotten_user_has_no_vote() -> None:
    memory, items, vectors = learnt(EVENTS)
    memory.forget(3)
    assert memory.users.tolist() == [0, 1, 2, 4, 5, 6]
    kept = np.arange(EVENTS) % 7 != 3
    vector = np.ones(D, np.float32)
    assert sums(memory, vector, []) == pytest.approx(naive(items[kept], vectors[kept], vector, []), rel=1e-4)


def test_bytes_do_not_depend_on_what_was_learnt() -> None:
    assert learnt(0)[0].nbytes == learnt(3 * EVENTS)[0].nbytes == EVENTS * (4 * D + 16)
