"""The lists of ten, against sorting."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recurra.simulations.lists import Counts, Lists, top_items, top_listed

_SCORES = st.lists(st.sampled_from([0.0, 1.0, 2.5, -1.0, 3.5, math.nan, math.inf, -math.inf]), max_size=40)


@given(_SCORES, st.data())
@settings(deadline=None, max_examples=150)
def test_the_best_ten_are_those_of_sorting(scores: list[float], data: st.DataObject) -> None:
    able = data.draw(st.lists(st.booleans(), min_size=len(scores), max_size=len(scores)))
    values = np.array(scores, np.float64)
    # equal scores come in the order of the items
    chosen = [item for item in range(len(scores)) if able[item] and math.isfinite(scores[item])]
    expected = sorted(chosen, key=lambda item: (-scores[item], item))[:10]
    excluded = np.flatnonzero(~np.array(able, np.bool_)).astype(np.int32)
    assert top_items(values, excluded).tolist() == expected
    # the same when they are listed under other row numbers
    allowed = np.ones(100, np.bool_)
    rows = np.arange(len(scores), dtype=np.int32) + 50
    allowed[rows[excluded]] = False
    assert top_listed(rows, values, allowed).tolist() == [item + 50 for item in expected]


def test_coverage_and_novelty_by_hand() -> None:
    counts, lists = Counts(), Lists()
    for item in (0, 0, 0, 1, 2, 2_000, 2_000, 2):
        counts.add(item)
    lists.add(np.array([0, 1], np.int32), counts)
    lists.add(np.array([2_000], np.int32), counts)
    lists.add(np.zeros(0, np.int32), counts)
    surprise = ((math.log2(8 / 3) + math.log2(8)) / 2 + math.log2(4)) / 2
    figures = lists.figures(counts)
    assert figures["novelty@10"] == pytest.approx(surprise, abs=1e-4)
    # codes run from 0, so 2,001 items are known
    assert figures["coverage@10"] == pytest.approx(3 / 2_001, abs=1e-6)


def test_no_list_is_no_coverage() -> None:
    assert Lists().figures(Counts()) == {"coverage@10": 0.0, "novelty@10": 0.0}
