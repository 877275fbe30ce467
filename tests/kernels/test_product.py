import numpy as np
import pytest

from recurra.kernels.block.product import LANES, Panels, aligned, product


@pytest.mark.parametrize("rows", [1, 3, 4, 11, 12, 29])
@pytest.mark.parametrize("columns", [1, 16, 37, 120])
def test_product_equals_the_matrix_product(rows: int, columns: int) -> None:
    rng = np.random.default_rng(0)
    a = rng.standard_normal((rows, 9)).astype(np.float32)
    weight = rng.standard_normal((2, 9, columns)).astype(np.float32)
    bias = rng.standard_normal((2, columns)).astype(np.float32)
    panels = Panels.of(weight, bias)
    out = np.full((rows, panels.outputs), np.nan, np.float32)
    product(a, panels.weight[1], panels.bias[1], 0, panels.outputs // LANES, out)
    np.testing.assert_allclose(out[:, :columns], a @ weight[1] + bias[1], rtol=1e-5, atol=1e-5)
    assert not out[:, columns:].any()


def test_only_the_panels_asked_for_are_written_and_inputs_may_be_wider() -> None:
    rng = np.random.default_rng(1)
    weight, bias = rng.standard_normal((1, 5, 70)).astype(np.float32), np.zeros((1, 70), np.float32)
    panels = Panels.of(weight, bias, inputs=16)
    a = rng.standard_normal((13, 16)).astype(np.float32)
    out = np.full((13, panels.outputs), np.nan, np.float32)
    product(a, panels.weight[0], panels.bias[0], 1, 4, out)
    np.testing.assert_allclose(out[:, 16:64], (a[:, :5] @ weight[0])[:, 16:64], rtol=1e-5, atol=1e-5)
    assert np.isnan(out[:, :16]).all()
    assert np.isnan(out[:, 64:]).all()


def test_a_row_has_the_same_bits_beside_any_others() -> None:
    rng = np.random.default_rng(2)
    a = rng.standard_normal((40, 64)).astype(np.float32)
    panels = Panels.of(rng.standard_normal((1, 64, 100)).astype(np.float32), np.ones((1, 100), np.float32))
    together, alone = (np.empty((40, panels.outputs), np.float32) for _ in range(2))
    product(a, panels.weight[0], panels.bias[0], 0, 7, together)
    for row in range(40):
        product(a[row : row + 1], panels.weight[0], panels.bias[0], 0, 7, alone[row : row + 1])
    assert np.array_equal(together, alone)


def test_aligned_arrays_begin_at_a_page_and_hold_zeros() -> None:
    for dtype in (np.float32, np.uint16):
        array = aligned((3, 5), dtype)
        assert array.ctypes.data % 4096 == 0
        assert array.shape == (3, 5)
        assert array.dtype == dtype
        assert not array.any()
