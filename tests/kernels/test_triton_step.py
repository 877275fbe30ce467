"""The Triton step of whole layers against the numba one: a GPU where there is one, else Triton's interpreter."""

from typing import Any

import numpy as np
import pytest
import torch

from recurra.kernels.block import LayerWeights, PackedWeights, Scratch, layers_step

pytest.importorskip("triton", reason="the optional extra gpu is not installed")

from recurra.kernels.block.triton import layers_step_triton, mix_triton, weights_to

pytestmark = pytest.mark.gpu
GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"
EPS: Any = {"residual": True, "norm_eps": 1e-5, "ffn_eps": 1e-12}


def draw(rng: np.random.Generator, *shape: int, scale: float = 0.3) -> Any:
    return (scale * rng.standard_normal(shape)).astype(np.float32)


def make_weights(rng: np.random.Generator, k: int, d: int, h: int, p: int, n: int, m: int = 4) -> LayerWeights:
    e = h * p
    w, r = e + 2 * n, 2 * e + 2 * n + h
    shapes = {
        "in_weight": (k, d, r), "in_bias": (k, r), "conv_weight": (k, 4, w), "conv_bias": (k, w),
        "time_in": (k, 3, m), "time_in_bias": (k, m), "time_out": (k, m, 2 * h), "time_out_bias": (k, 2 * h),
        "dt_bias": (k, h), "A": (k, h), "D": (k, h), "gate_norm": (k, e), "out_weight": (k, e, d), "out_bias": (k, d),
        "norm_weight": (k, d), "norm_bias": (k, d), "ffn_in": (k, d, 4 * d), "ffn_in_bias": (k, 4 * d),
        "ffn_out": (k, 4 * d, d), "ffn_out_bias": (k, d), "ffn_norm_weight": (k, d), "ffn_norm_bias": (k, d),
    }  # fmt: skip
    made = {name: draw(rng, *shape) for name, shape in shapes.items()}
    made["A"] = -np.exp(made["A"])
    return LayerWeights(**made)


def compare(
    offsets: list[int] | None, *, k: int = 2, d: int = 16, h: int = 2, p: int = 8, n: int = 8, slots: tuple[int, ...]
) -> None:
    rng = np.random.default_rng(len(slots))
    weights = make_weights(rng, k, d, h, p, n)
    bounds = np.arange(len(slots) + 1) if offsets is None else np.array(offsets)
    events = int(bounds[-1])
    state = draw(rng, max(slots) + 2, k, n, h * p, scale=1.0)
    window = draw(rng, max(slots) + 2, k, 3, h * p + 2 * n, scale=1.0)
    a, phi = draw(rng, events, d, scale=1.0), draw(rng, events, 3, scale=1.0)
    on_device = [torch.from_numpy(v.copy()).to(DEVICE) for v in (a, phi, state, window)]
    rows = np.array(slots)
    packed = PackedWeights.of(weights)
    eps = np.float32(EPS["norm_eps"]), np.float32(EPS["ffn_eps"])
    scratch = Scratch.of(packed, events)
    kept = layers_step(packed, a, phi, rows, bounds, state, window, scratch, EPS["residual"], *eps)
    last = bounds[1:][np.diff(bounds) > 0] - 1
    assert kept == len(last)
    out = layers_step_triton(
        weights_to(weights, DEVICE), on_device[0], on_device[1], torch.from_numpy(rows).to(DEVICE),
        None if offsets is None else torch.from_numpy(bounds).to(DEVICE), on_device[2], on_device[3], **EPS,
    )  # fmt: skip
    for got, want in zip((out[last], *on_device[2:]), (a[:kept], state, window), strict=True):
        torch.testing.assert_close(got.cpu(), torch.from_numpy(want), rtol=2e-5, atol=2e-5)


@pytest.fixture(autouse=True)
def nan_scratch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that a kernel forgets to write, or reads too early, shows up as NaN."""
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *args, **kwargs: empty(*args, **kwargs).fill_(float("nan")))


def test_one_event_per_slot() -> None:
    compare(None, slots=(4, 0, 2))


def test_several_events_of_a_slot_in_order() -> None:
    compare([0, 2, 2, 5], slots=(1, 5, 3))


def test_sizes_that_do_not_fill_a_tile() -> None:
    compare(None, h=3, p=6, n=10, slots=(0, 1))


def test_the_shape_of_the_default_model() -> None:
    compare([0, 1, 4], d=64, h=4, p=32, n=32, slots=(1, 0))


def test_no_events() -> None:
    weights = weights_to(make_weights(np.random.default_rng(0), 1, 16, 2, 8, 8), DEVICE)
    empty = torch.zeros(0, 36 + 16, device=DEVICE)
    out = mix_triton(
        weights, 0, empty, torch.zeros(0, 4, device=DEVICE), torch.zeros(0, dtype=torch.int64, device=DEVICE), None,
        torch.zeros(1, 1, 8, 16, device=DEVICE), torch.zeros(1, 1, 3, 32, device=DEVICE), 1e-5,
    )  # fmt: skip
    assert out.shape == (0, 16)


def test_bfloat16_storage_rounds_what_is_kept_and_nothing_else() -> None:
    rng = np.random.default_rng(7)
    weights = weights_to(make_weights(rng, 1, 16, 2, 8, 8), DEVICE)
    state, window = draw(rng, 3, 1, 8, 16, scale=1.0), draw(rng, 3, 1, 3, 32, scale=1.0)
    narrow = [torch.from_numpy(v).to(DEVICE, torch.bfloat16) for v in (state, window)]
    wide = [v.float() for v in narrow]
    projected = torch.from_numpy(draw(rng, 2, 50)).to(DEVICE)
    modulation = torch.from_numpy(draw(rng, 2, 4)).to(DEVICE)
    slots = torch.tensor([2, 0], device=DEVICE)
    outs = [mix_triton(weights, 0, projected, modulation, slots, None, s, w, 1e-5) for s, w in (narrow, wide)]
    torch.testing.assert_close(outs[0], outs[1], rtol=0, atol=0)
    for got, want in zip(narrow, wide, strict=True):
        # the interpreter cuts where the hardware rounds
        torch.testing.assert_close(got.float(), want, rtol=2**-8 if GPU else 2**-7, atol=0)
