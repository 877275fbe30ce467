"""A layer's training on the CPU (float32): matrix products by torch, one compiled pass over the rows between them.

The truth is the model's own layer with the naive scan. Sequences lie one after another, without padding. Nothing is
kept for the backward pass that is cheaper to make again: neither dropout's masks, which are a hash, nor states.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.autograd.function import once_differentiable

from .buffers import BufferPool, as_array, parts
from .train_rows import add_norm, add_norm_grad, dropout_keys, dropout_mask, hardswish, hardswish_grad, threshold
from .train_scan import Scan, scan, steps, steps_grad

__all__ = ["LayerParameters", "layer", "layer_masks", "supported"]

# what layers work in, from one step to the next
BUFFERS = BufferPool()

_TAPS = 4


class LayerParameters(NamedTuple):
    """The parameters of a layer as modules keep them; letters as in ``LayerWeights``."""

    in_weight: torch.Tensor  # (r, d)
    in_bias: torch.Tensor  # (r)
    conv_weight: torch.Tensor  # (w, K)
    conv_bias: torch.Tensor  # (w)
    dt_bias: torch.Tensor  # (h)
    A_log: torch.Tensor  # (h)
    D: torch.Tensor  # (h)
    gate_norm: torch.Tensor  # (e)
    out_weight: torch.Tensor  # (d, e)
    out_bias: torch.Tensor  # (d)
    norm_weight: torch.Tensor  # (d)
    norm_bias: torch.Tensor  # (d)
    ffn_in: torch.Tensor  # (4 d, d)
    ffn_in_bias: torch.Tensor  # (4 d)
    ffn_out: torch.Tensor  # (d, 4 d)
    ffn_out_bias: torch.Tensor  # (d)
    ffn_norm_weight: torch.Tensor  # (d)
    ffn_norm_bias: torch.Tensor  # (d)


class _Settings(NamedTuple):
    bounds: NDArray[np.int64]
    residual: bool
    norm_eps: np.float32
    ffn_eps: np.float32
    keys: tuple[np.uint32, ...]
    below: np.uint32
    scale: np.float32
    saves: bool


def supported(a: torch.Tensor, d_conv: int, d_state: int) -> bool:
    """Say whether `layer` can do this: float32 on the CPU, a filter of four taps, a state of a multiple of four."""
    return a.dtype == torch.float32 and a.device.type == "cpu" and d_conv == _TAPS and d_state % 4 == 0


def layer(
    a: torch.Tensor,
    modulation: torch.Tensor,
    bounds: torch.Tensor,
    parameters: LayerParameters,
    *,
    residual: bool,
    norm_eps: float,
    ffn_eps: float,
    dropout: float = 0.0,
    seed: int = 0,
) -> torch.Tensor:
    """Map ``a`` (T, d) to the next layer's input (T, d), with gradients to all tensors but ``bounds``.

    ``modulation`` (T, 2 h): gamma and beta of the step sizes; ``bounds`` (s + 1) int64: where sequences begin and end.
    Dropout at the rate ``dropout`` falls on the same values whenever ``seed`` is the same; see `layer_masks`. Raises
    ``ValueError`` for what is not `supported`.
    """
    n = (parameters.conv_weight.shape[0] - parameters.gate_norm.shape[0]) // 2
    taps = parameters.conv_weight.shape[1]
    if not supported(a, taps, n):
        raise ValueError(
            f"backend 'numba' needs float32 on cpu, d_conv = {_TAPS} and d_state a multiple of 4, got {a.dtype} on "
            f"{a.device}, d_conv = {taps} and d_state = {n}; use 'chunk'"
        )
    settings = _Settings(
        bounds.numpy(),
        residual,
        np.float32(norm_eps),
        np.float32(ffn_eps),
        dropout_keys(seed),
        threshold(dropout),
        np.float32(1 / (1 - dropout)),
        torch.is_grad_enabled(),
    )
    out: torch.Tensor = _Layer.apply(settings, a, modulation, *parameters)
    return out


def layer_masks(seed: int, rows: int, d: int, rate: float) -> tuple[torch.Tensor, ...]:
    """Return what `layer` multiplies by for dropout, in its order: (rows, d), (rows, 4 d), (rows, d)."""
    columns = (d, 4 * d, d)
    masks = zip(dropout_keys(seed), columns, strict=True)
    return tuple(torch.from_numpy(dropout_mask(key, rows, size, rate)) for key, size in masks)


class _Layer(torch.autograd.Function):
    """Intermediate results are kept as arrays beside the context: none of them is an argument or a result."""

    @staticmethod
    def forward(
        ctx: Any, settings: _Settings, a: torch.Tensor, modulation: torch.Tensor, *tensors: torch.Tensor
    ) -> torch.Tensor:
        at = LayerParameters(*tensors)
        ctx.save_for_backward(a, modulation, *tensors)
        ctx.settings, ctx.kept = settings, {}
        rows, d = a.shape
        keys, below, scale = settings.keys, settings.below, settings.scale
        kept = ctx.kept
        columns = _kept_columns(at)
        ctx.block = BUFFERS.acquire(rows * sum(columns.values()))
        kept.update(zip(columns, parts(ctx.block, rows, *columns.values()), strict=True))
        product, middle = kept["product"], kept["middle"]
        _mix(ctx, a, modulation, at)
        torch.mm(kept["mixed"], at.out_weight.T, out=product)
        add_norm(
            product.numpy(),
            as_array(at.out_bias),
            as_array(a),
            settings.residual,
            keys[0],
            below,
            scale,
            as_array(at.norm_weight),
            as_array(at.norm_bias),
            settings.norm_eps,
            kept["centred"].numpy(),
            kept["spread"].view(rows).numpy(),
            middle.numpy(),
        )
        inner, active = kept["inner"], kept["active"]
        torch.mm(middle, at.ffn_in.T, out=inner)
        hardswish(inner.numpy(), as_array(at.ffn_in_bias), keys[1], below, scale, active.numpy())
        torch.mm(active, at.ffn_out.T, out=product)
        out = torch.empty(rows, d)
        add_norm(
            product.numpy(),
            as_array(at.ffn_out_bias),
            middle.numpy(),
            True,
            keys[2],
            below,
            scale,
            as_array(at.ffn_norm_weight),
            as_array(at.ffn_norm_bias),
            settings.ffn_eps,
            kept["ffn_centred"].numpy(),
            kept["ffn_spread"].view(rows).numpy(),
            out.numpy(),
        )
        if not settings.saves:
            _release(ctx)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        a, modulation, *tensors = ctx.saved_tensors
        at, settings, kept = LayerParameters(*tensors), ctx.settings, ctx.kept
        if not kept:
            raise RuntimeError("what the backward pass needs is gone: it can be done once only")
        rows, d = a.shape
        keys, below, scale = settings.keys, settings.below, settings.scale
        result = {}
        sizes = (4 * d, len(at.gate_norm), d, d, len(at.in_bias))
        block = BUFFERS.acquire(rows * sum(sizes))
        inner_grad, mixed_grad, product_grad, middle_grad, projected_grad = parts(block, rows, *sizes)
        sums = torch.empty(3, d)
        add_norm_grad(
            as_array(grads[0]),
            kept["ffn_centred"].numpy(),
            kept["ffn_spread"].view(rows).numpy(),
            as_array(at.ffn_norm_weight),
            keys[2],
            below,
            scale,
            middle_grad.numpy(),
            product_grad.numpy(),
            sums.numpy(),
        )
        result["ffn_norm_weight"], result["ffn_norm_bias"], result["ffn_out_bias"] = sums.unbind()
        result["ffn_out"] = product_grad.T @ kept["active"]
        torch.mm(product_grad, at.ffn_out, out=inner_grad)
        result["ffn_in_bias"] = torch.empty(4 * d)
        hardswish_grad(inner_grad.numpy(), kept["inner"].numpy(), keys[1], below, scale, result["ffn_in_bias"].numpy())
        result["ffn_in"] = inner_grad.T @ kept["middle"]
        middle_grad.addmm_(inner_grad, at.ffn_in)
        a_grad = torch.empty(rows, d)
        sums = torch.empty(3, d)
        add_norm_grad(
            middle_grad.numpy(),
            kept["centred"].numpy(),
            kept["spread"].view(rows).numpy(),
            as_array(at.norm_weight),
            keys[0],
            below,
            scale,
            a_grad.numpy(),
            product_grad.numpy(),
            sums.numpy(),
        )
        result["norm_weight"], result["norm_bias"], result["out_bias"] = sums.unbind()
        result["out_weight"] = product_grad.T @ kept["mixed"]
        torch.mm(product_grad, at.out_weight, out=mixed_grad)
        modulation_grad = _mix_grad(ctx, mixed_grad, modulation, at, projected_grad, result)
        result["in_weight"] = projected_grad.T @ a
        result["in_bias"] = projected_grad.sum(0)
        a_grad = a_grad.addmm_(projected_grad, at.in_weight, beta=1.0 if settings.residual else 0.0)
        BUFFERS.release(block)
        _release(ctx)
        return None, a_grad, modulation_grad, *(result[name] for name in LayerParameters._fields)


def _kept_columns(at: LayerParameters) -> dict[str, int]:
    """The matrices that the forward pass fills, and their columns."""
    d, e, h = len(at.norm_bias), len(at.gate_norm), len(at.D)
    wide = {"inner": 4 * d, "active": 4 * d, "mixed": e, "y": e}
    narrow = {"product": d, "middle": d, "centred": d, "ffn_centred": d}
    # those whose rows are no whole cache lines come last, so that the others stay aligned
    return wide | narrow | {"projected": len(at.in_bias), "raw": h, "step": h, "keep": h, "spread": 1, "ffn_spread": 1}


def _release(ctx: Any) -> None:
    ctx.kept.clear()
    BUFFERS.release(ctx.block)
    ctx.block = None


def _mix(ctx: Any, a: torch.Tensor, modulation: torch.Tensor, at: LayerParameters) -> None:
    """The first half of a layer, up to the output projection."""
    settings, kept = ctx.settings, ctx.kept
    passes = _passes(at)
    projected = kept["projected"]
    torch.mm(a, at.in_weight.T, out=projected)
    kept["filters"] = torch.cat([at.conv_weight.T.flatten(), at.conv_bias])
    kept["A"] = -torch.exp(at.A_log)
    steps(
        projected.numpy(),
        as_array(at.in_bias),
        as_array(modulation),
        as_array(at.dt_bias),
        kept["A"].numpy(),
        kept["raw"].numpy(),
        kept["step"].numpy(),
        kept["keep"].numpy(),
    )
    passes.forward(
        projected.numpy(),
        as_array(at.in_bias),
        kept["step"].numpy(),
        kept["keep"].numpy(),
        settings.bounds,
        kept["filters"].numpy(),
        as_array(at.D),
        as_array(at.gate_norm),
        settings.norm_eps,
        kept["y"].numpy(),
        kept["mixed"].numpy(),
    )


def _mix_grad(
    ctx: Any,
    grad: torch.Tensor,
    modulation: torch.Tensor,
    at: LayerParameters,
    projected_grad: torch.Tensor,
    result: dict[str, torch.Tensor],
) -> torch.Tensor:
    """Fill ``projected_grad`` and return the gradient of the modulation; those of parameters go to ``result``."""
    settings, kept = ctx.settings, ctx.kept
    projected = kept["projected"]
    step_grad, log_grad = torch.empty(kept["step"].shape), torch.empty(kept["keep"].shape)
    filter_grad = torch.empty(kept["filters"].shape)
    modulation_grad = torch.empty(modulation.shape)
    A_grad = torch.empty(len(at.D))
    for name in ("D", "gate_norm", "dt_bias"):
        result[name] = torch.empty(getattr(at, name).shape)
    _passes(at).backward(
        grad.numpy(),
        projected.numpy(),
        kept["step"].numpy(),
        kept["keep"].numpy(),
        settings.bounds,
        kept["filters"].numpy(),
        as_array(at.D),
        as_array(at.gate_norm),
        settings.norm_eps,
        kept["y"].numpy(),
        projected_grad.numpy(),
        step_grad.numpy(),
        log_grad.numpy(),
        filter_grad.numpy(),
        result["D"].numpy(),
        result["gate_norm"].numpy(),
    )
    steps_grad(
        projected.numpy(),
        as_array(modulation),
        kept["A"].numpy(),
        kept["raw"].numpy(),
        kept["step"].numpy(),
        step_grad.numpy(),
        log_grad.numpy(),
        projected_grad.numpy(),
        modulation_grad.numpy(),
        result["dt_bias"].numpy(),
        A_grad.numpy(),
    )
    w = len(at.conv_bias)
    result["conv_weight"], result["conv_bias"] = filter_grad[: _TAPS * w].view(_TAPS, w).T, filter_grad[_TAPS * w :]
    result["A_log"] = A_grad * kept["A"]
    return modulation_grad


def _passes(at: LayerParameters) -> Scan:
    e = len(at.gate_norm)
    return scan(e, (len(at.conv_bias) - e) // 2, len(at.D))
