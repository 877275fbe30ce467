"""Search is exact where it says so, complete wherever enough items are allowed, and its recall is measured."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recurra.engine.config import RetrievalConfig
from recurra.engine.retrieval import ItemIndex, top

ITEMS = 20_000


def _vectors(count: int, seed: int = 0) -> np.ndarray:
    # clustered like a real item table, so that an inverted file has something to find
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(100, 64))
    return (centres[rng.integers(100, size=count)] + 0.5 * rng.normal(size=(count, 64))).astype(np.float32)


@pytest.fixture(scope="module", params=["exact", "ivf"])
def index(request: pytest.FixtureRequest) -> ItemIndex:
    limit = ITEMS if request.param == "exact" else 1_000
    built = ItemIndex(_vectors(ITEMS), RetrievalConfig(exact_items=limit))
    assert built.kind == request.param
    return built


@pytest.mark.parametrize("share", [0.5, 0.05, 0.005, 0.0001])
@pytest.mark.parametrize("k", [1, 10, 500])
def test_filtered_search_gives_every_allowed_item_that_k_asks_for(index: ItemIndex, share: float, k: int) -> None:
    rng = np.random.default_rng(int(share * 1e6) + k)
    mask = np.zeros(ITEMS, bool)
    mask[rng.choice(ITEMS, max(2, int(ITEMS * share)), replace=False)] = True
    query = rng.normal(size=64).astype(np.float32)
    rows, scores = index.search(query, k, mask)
    assert rows.size == min(k, mask.sum())
    assert mask[rows].all()
    assert np.unique(rows).size == rows.size
    assert (np.diff(scores) <= 0).all()
    np.testing.assert_allclose(scores, index.scores(query, rows), rtol=1e-4, atol=1e-4)
    if index.kind == "exact":
        every = np.where(mask, index.scores(query), -np.inf)
        np.testing.assert_allclose(np.sort(every)[::-1][: rows.size], scores, rtol=1e-4, atol=1e-4)


def test_user_who_has_seen_all_but_a_few_gets_those(index: ItemIndex) -> None:
    mask = np.zeros(ITEMS, bool)
    mask[[3, 77, 19_999]] = True
    rows, _ = index.search(np.ones(64, np.float32), 10, mask)
    assert sorted(rows) == [3, 77, 19_999]


def test_approximate_index_states_a_recall_above_its_target() -> None:
    config = RetrievalConfig(exact_items=1_000, recall_target=0.95)
    index = ItemIndex(_vectors(ITEMS), config, queries=_vectors(200, seed=5))
    assert index.recall >= 0.95
    queries = _vectors(50, seed=9)
    exact = ItemIndex(index.vectors.copy(), RetrievalConfig(exact_items=ITEMS))
    hits = [np.intersect1d(index.search(q, 100)[0], exact.search(q, 100)[0]).size for q in queries]
    assert np.mean(hits) / 100 >= 0.9


def test_added_items_are_found_at_once(index: ItemIndex) -> None:
    grown = ItemIndex(index.vectors.copy(), RetrievalConfig(exact_items=1_000 if index.kind == "ivf" else ITEMS * 2))
    query = _vectors(1, seed=3)[0]
    grown.add(query[None] * 10)
    assert grown.search(query, 1)[0][0] == ITEMS
    assert grown.vectors.shape == (ITEMS + 1, 64)


def test_changed_vectors_are_found_where_they_are_now(index: ItemIndex) -> None:
    changed = ItemIndex(index.vectors.copy(), RetrievalConfig(exact_items=1_000 if index.kind == "ivf" else ITEMS * 2))
    query = _vectors(1, seed=3)[0]
    changed.replace(np.array([7, 19_000]), np.stack([query * 10, query * 9]))
    assert changed.search(query, 2)[0].tolist() == [7, 19_000]
    changed.replace(np.array([7]), -query[None])
    assert changed.search(query, 1)[0].tolist() == [19_000]
    # rows that are added afterwards do not take the place of those that were changed
    changed.add(query[None] * 11)
    assert changed.search(query, 2)[0].tolist() == [ITEMS, 19_000]
    np.testing.assert_array_equal(changed.vectors[8], index.vectors[8])


def test_empty_index_answers_nothing() -> None:
    index = ItemIndex(np.empty((0, 8), np.float32), RetrievalConfig())
    assert index.search(np.ones(8, np.float32), 5)[0].size == 0


@settings(deadline=None, max_examples=100)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=40), st.integers(1, 50))
def test_top_is_a_stable_descending_sort(values: list[int], k: int) -> None:
    scores = np.array(values, np.float64)
    assert top(scores, k).tolist() == np.argsort(-scores, kind="stable")[:k].tolist()
