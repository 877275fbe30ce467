from typing import Any

import pytest
import torch

from recurra.kernels import conv

LENGTHS = [1, 2, 63, 64, 65, 200]
W, K = 5, 4


def case(b: int, length: int, windows: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    shapes = {"x": (b, length, W), "weight": (W, K), "bias": (W,), "initial_window": (windows, K - 1, W)}
    return {
        name: torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
        for name, shape in shapes.items()
    }


def compare(inputs: dict[str, Any], *, silu: bool, **layout: torch.Tensor) -> None:
    results = []
    for backend in ("naive", "chunk"):
        y, window = conv(**inputs, **layout, silu=silu, backend=backend)
        if "lengths" in layout:
            y = y * (torch.arange(y.shape[1]) < layout["lengths"][:, None])[..., None]
        total = (y * torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape)).sum() + (window * window).sum()
        grads = torch.autograd.grad(total, list(inputs.values()))
        results.append((y, window, *grads))
    for got, want in zip(*results, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("silu", [True, False])
def test_chunk_equals_naive_on_full_rows(length: int, silu: bool) -> None:
    compare(case(2, length, 2), silu=silu)


@pytest.mark.parametrize("length", LENGTHS)
def test_chunk_equals_naive_on_padded_rows(length: int) -> None:
    compare(case(3, length, 3), silu=True, lengths=torch.tensor([length, (length + 1) // 2, 0]))


def test_chunk_equals_naive_on_packed_rows() -> None:
    bounds = torch.tensor([0, *LENGTHS, 0]).cumsum(0)
    compare(case(1, int(bounds[-1]), len(bounds) - 1), silu=True, cu_seqlens=bounds)


def test_no_window_means_zeros() -> None:
    inputs = case(2, 7, 2)
    inputs["initial_window"] = torch.zeros_like(inputs["initial_window"])
    y, window = conv(**inputs)
    del inputs["initial_window"]
    other, other_window = conv(**inputs)
    assert torch.equal(y, other)
    assert torch.equal(window, other_window)


def test_window_carries_over_a_cut() -> None:
    inputs = case(2, 9, 2)
    y, window = conv(**inputs)
    first, middle = conv(**{**inputs, "x": inputs["x"][:, :2]})
    second, last = conv(**{**inputs, "x": inputs["x"][:, 2:], "initial_window": middle})
    torch.testing.assert_close(torch.cat([first, second], dim=1), y)
    torch.testing.assert_close(last, window)


def test_wrong_arguments_are_named() -> None:
    inputs = case(2, 4, 2)
    with pytest.raises(ValueError, match="backend must be one of"):
        conv(**inputs, backend="fast")
    with pytest.raises(ValueError, match="needs weight"):
        conv(**{**inputs, "initial_window": inputs["initial_window"][:1]})
    with pytest.raises(ValueError, match="not both"):
        conv(**inputs, lengths=torch.tensor([1, 2]), cu_seqlens=torch.tensor([0, 2, 4]))
