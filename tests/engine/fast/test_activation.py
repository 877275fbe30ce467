import math

import numpy as np
import pytest

from recurra.engine.fast import activation, spread


def test_activation_is_the_logarithm_of_the_sum_over_an_items_events() -> None:
    items, times_ms = np.array([4, 2, 4, 9], np.int32), np.array([0, 50_000, 96_000, 99_900])
    sums = spread(items, activation(times_ms, 100_000), np.array([1, 2, 4, 9], np.int32))
    # the last event is a tenth of a second ago and counts as a second
    expected = [math.log(50**-0.5), math.log(100**-0.5 + 4**-0.5), 0.0]
    assert np.isnan(sums[0])
    assert np.log(sums[1:]) == pytest.approx(expected, rel=1e-5)


def test_an_event_of_the_future_counts_as_one_of_now() -> None:
    assert activation(np.array([5_000]), 1_000).tolist() == [1.0]
