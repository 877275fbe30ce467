import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recurra.engine.model import gap_features
from recurra.engine.model.time import gap_step

times = st.lists(st.integers(0, 100_000_000_000_000), min_size=1, max_size=60)


@settings(deadline=None, max_examples=60)
@given(times)
def test_whole_rows_equal_steps_and_the_definition(row: list[int]) -> None:
    phi = gap_features(torch.tensor([row]))[0].numpy()
    mean, m2 = 0.0, 0.0
    seen: list[float] = []
    for t, now in enumerate(row):
        *step, mean, m2 = gap_step(now - (row[t - 1] if t else 0), t, mean, m2)
        np.testing.assert_allclose(phi[t], step, rtol=1e-9, atol=1e-9)
        seen.append(np.log1p(max(0, now - row[t - 1]) / 1000) / 10 if t else 0.0)
        u, m, v = seen[-1], np.mean(seen), np.var(seen)
        np.testing.assert_allclose(phi[t], [u, (u - m) / np.sqrt(v + 1e-4), m], rtol=1e-7, atol=1e-7)


def test_first_event_and_backward_times_have_no_gap() -> None:
    phi = gap_features(torch.tensor([[5_000, 3_000, 3_000]]))
    assert not phi.any()
