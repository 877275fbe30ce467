from typing import Any

import numpy as np
import pytest
from numba import njit

from recurra.kernels.scalar import exp, sigmoid, softplus


@njit
def each(x: Any) -> Any:
    out = np.empty((3, x.size), np.float32)
    for i in range(x.size):
        out[0, i] = exp(x[i])
        out[1, i] = sigmoid(x[i])
        out[2, i] = softplus(x[i])
    return out


def test_close_to_double_precision_everywhere() -> None:
    x = np.concatenate([np.linspace(-86, 86, 20_001), np.linspace(-0.5, 0.5, 20_001)]).astype(np.float32)
    wide = x.astype(np.float64)
    want = np.stack([np.exp(wide), 1 / (1 + np.exp(-wide)), np.logaddexp(0, wide)])
    assert np.abs(each(x) / want - 1).max() < 5e-7


@pytest.mark.parametrize(("x", "want"), [(-1e30, (0, 0, 0)), (1e30, (np.exp(87), 1, 1e30))])
def test_clamped_beyond_the_range(x: float, want: tuple[float, float, float]) -> None:
    got = each(np.array([x], np.float32))[:, 0]
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-36)
