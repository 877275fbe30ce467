from importlib.util import find_spec
from typing import Any

import pytest
import torch

from recurra.kernels import ssd

LENGTHS = [1, 2, 63, 64, 65, 200]
H, P, N = 3, 4, 5
MAMBA = find_spec("mamba_ssm") is not None


def case(b: int, length: int, states: int, seed: int = 0) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    return {
        "x": normal(b, length, H, P),
        "dt": normal(b, length, H).exp() * 0.3,
        "A": -normal(H).exp(),
        "B": normal(b, length, N),
        "C": normal(b, length, N),
        "D": normal(H),
        "initial_state": normal(states, H, P, N),
    }


def run(inputs: dict[str, Any], backend: str, **layout: torch.Tensor) -> dict[str, torch.Tensor]:
    """Outputs, final states and the gradients of a sum that touches every one of them."""
    leaves: dict[str, Any] = {name: tensor.clone().requires_grad_() for name, tensor in inputs.items()}
    y, final = ssd(**leaves, **layout, backend=backend)
    weights = torch.Generator().manual_seed(1)
    weigh_y = torch.randn(y.shape, generator=weights, dtype=torch.float64)
    weigh_final = torch.randn(final.shape, generator=weights, dtype=torch.float64)
    ((y * weigh_y).sum() + (final * weigh_final).sum()).backward()  # type: ignore[no-untyped-call]
    results = {"y": y.detach(), "final": final.detach()}
    for name, leaf in leaves.items():
        assert leaf.grad is not None
        results[f"grad {name}"] = leaf.grad
    return results


def assert_same(got: dict[str, torch.Tensor], want: dict[str, torch.Tensor], tolerance: float) -> None:
    for name, tensor in want.items():
        worst = float((got[name] - tensor).abs().max() / tensor.abs().max().clamp_min(1.0)) if tensor.numel() else 0.0
        assert worst <= tolerance, f"{name}: {worst:.2g}"


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("with_state", [True, False])
def test_chunk_equals_naive_on_full_rows(length: int, with_state: bool) -> None:
    inputs = case(2, length, 2)
    if not with_state:
        del inputs["initial_state"]
    assert_same(run(inputs, "chunk"), run(inputs, "naive"), 1e-11)


@pytest.mark.parametrize("length", LENGTHS)
def test_chunk_equals_naive_on_padded_rows(length: int) -> None:
    lengths = torch.tensor([length, (length + 1) // 2, 0])
    inputs = case(3, length, 3)
    assert_same(run(inputs, "chunk", lengths=lengths), run(inputs, "naive", lengths=lengths), 1e-11)


def test_chunk_equals_naive_on_packed_rows() -> None:
    bounds = torch.tensor([0, *LENGTHS, 0]).cumsum(0)
    inputs = case(1, int(bounds[-1]), len(bounds) - 1)
    assert_same(run(inputs, "chunk", cu_seqlens=bounds), run(inputs, "naive", cu_seqlens=bounds), 1e-11)


def test_padded_rows_equal_the_rows_alone() -> None:
    inputs = case(3, 70, 3)
    lengths = torch.tensor([70, 13, 0])
    y, final = ssd(**inputs, lengths=lengths)
    for row, length in enumerate(lengths.tolist()):
        cut = {name: t[row : row + 1, :length] if name in ("x", "dt", "B", "C") else t for name, t in inputs.items()}
        cut["initial_state"] = inputs["initial_state"][row : row + 1]
        alone, alone_final = ssd(**cut)
        torch.testing.assert_close(y[row : row + 1, :length], alone, rtol=1e-11, atol=1e-11)
        assert not y[row, length:].any()
        torch.testing.assert_close(final[row : row + 1], alone_final, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("backend", ["chunk", "numba"])
def test_single_precision_stays_close_to_the_truth(length: int, backend: str) -> None:
    inputs = case(2, length, 2)
    y, final = ssd(**inputs, backend="naive")
    got_y, got_final = ssd(**{name: tensor.float() for name, tensor in inputs.items()}, backend=backend)
    for got, want in ((got_y, y), (got_final, final)):
        assert float((got - want).abs().max() / want.abs().max().clamp_min(1.0)) <= 1e-5


def test_numba_equals_naive_on_packed_rows() -> None:
    bounds = torch.tensor([0, 1, 1, 66, 80])
    inputs = {name: tensor.float() for name, tensor in case(1, 80, 4).items()}
    want_y, want_final = ssd(**inputs, cu_seqlens=bounds, backend="naive")
    y, final = ssd(**inputs, cu_seqlens=bounds, backend="numba")
    torch.testing.assert_close(y, want_y, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(final, want_final, rtol=1e-4, atol=1e-5)


def test_mamba_says_what_is_missing() -> None:
    inputs = {name: tensor.float() for name, tensor in case(1, 4, 1).items()}
    missing = "needs a GPU" if MAMBA else "needs the package mamba-ssm"
    with pytest.raises(ValueError, match=missing):
        ssd(**inputs, backend="mamba")
    with pytest.raises(ValueError, match="padded rows"):
        ssd(**inputs, cu_seqlens=torch.tensor([0, 4]), backend="mamba")


@pytest.mark.skipif(not (MAMBA and torch.cuda.is_available()), reason="mamba-ssm with a GPU is not there")
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("with_state", [True, False])
def test_mamba_equals_naive_on_padded_rows(length: int, with_state: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    h, p, n = 4, 32, 32
    shapes = {"x": (3, length, h, p), "dt": (3, length, h), "A": (h,), "B": (3, length, n), "C": (3, length, n)}
    inputs: dict[str, Any] = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    inputs |= {"dt": inputs["dt"].exp() * 0.1, "A": -inputs["A"].exp(), "D": torch.randn(h, generator=generator)}
    if with_state:
        inputs["initial_state"] = torch.randn(3, h, p, n, generator=generator)
    lengths = torch.tensor([length, (length + 1) // 2, 0])
    want = ssd(**{name: v.double() for name, v in inputs.items()}, lengths=lengths, backend="naive")
    got = ssd(**{name: v.cuda() for name, v in inputs.items()}, lengths=lengths.cuda(), backend="mamba")
    # its products are tf32
    for one, other in zip(got, want, strict=True):
        assert float((one.cpu() - other).abs().max() / other.abs().max().clamp_min(1.0)) < 5e-3


def test_state_carries_over_a_cut() -> None:
    inputs = case(2, 100, 2)
    y, final = ssd(**inputs)
    parts = []
    state = inputs["initial_state"]
    for cut in (slice(0, 37), slice(37, 100)):
        part = {name: t[:, cut] if name in ("x", "dt", "B", "C") else t for name, t in inputs.items()}
        part["initial_state"] = state
        out, state = ssd(**part)
        parts.append(out)
    torch.testing.assert_close(torch.cat(parts, dim=1), y, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(state, final, rtol=1e-11, atol=1e-11)


def test_gradients_are_those_of_the_function() -> None:
    inputs = case(1, 5, 1)

    def scan(*tensors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        named: dict[str, Any] = dict(zip(inputs, tensors, strict=True))
        return ssd(**named)

    leaves = tuple(tensor.requires_grad_() for tensor in inputs.values())
    assert torch.autograd.gradcheck(scan, leaves)


def test_wrong_arguments_are_named() -> None:
    inputs = case(2, 4, 2)
    with pytest.raises(ValueError, match="backend must be one of"):
        ssd(**inputs, backend="fast")
    with pytest.raises(ValueError, match="B must have shape"):
        ssd(**{**inputs, "B": inputs["B"][:, :3]})
    with pytest.raises(ValueError, match="initial_state must have shape"):
        ssd(**{**inputs, "initial_state": inputs["initial_state"][:1]})
    with pytest.raises(ValueError, match="not both"):
        ssd(**inputs, lengths=torch.tensor([1, 2]), cu_seqlens=torch.tensor([0, 2, 4]))
    with pytest.raises(ValueError, match="packed rows need b = 1"):
        ssd(**inputs, cu_seqlens=torch.tensor([0, 2, 4]))
    with pytest.raises(ValueError, match="float32 on cpu"):
        ssd(**inputs, backend="numba")
