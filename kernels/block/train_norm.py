"""Norm of the first layer's input in training: dropout and LN in one compiled pass over the rows, with gradients."""

from typing import Any

import numpy as np
import torch
from torch.autograd.function import once_differentiable

from .buffers import as_array
from .train_rows import add_norm, add_norm_grad, dropout_keys, threshold

__all__ = ["drop_norm"]


def drop_norm(
    a: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, *, eps: float, dropout: float = 0.0, seed: int = 0
) -> torch.Tensor:
    """Return LN(dropout(``a``)), (T, d) float32 on the CPU; the mask is the first of `train.layer_masks`."""
    settings = (np.float32(eps), dropout_keys(seed)[0], threshold(dropout), np.float32(1 / (1 - dropout)))
    out: torch.Tensor = _DropNorm.apply(settings, a, weight, bias)
    return out


class _DropNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, settings: tuple[Any, ...], a: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor
    ) -> torch.Tensor:
        eps, key, below, scale = settings
        centred, spread, out = torch.empty(a.shape), torch.empty(len(a)), torch.empty(a.shape)
        v = as_array(a)
        nothing = np.zeros(a.shape[1], np.float32)
        add_norm(
            v,
            nothing,
            v,
            False,
            key,
            below,
            scale,
            as_array(weight),
            as_array(bias),
            eps,
            centred.numpy(),
            spread.numpy(),
            out.numpy(),
        )
        ctx.dropout, ctx.kept = (key, below, scale), (centred, spread)
        ctx.save_for_backward(weight)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (weight,) = ctx.saved_tensors
        centred, spread = ctx.kept
        key, below, scale = ctx.dropout
        a_grad, sums = torch.empty(centred.shape), torch.empty(3, centred.shape[1])
        add_norm_grad(
            as_array(grads[0]),
            centred.numpy(),
            spread.numpy(),
            as_array(weight),
            key,
            below,
            scale,
            torch.empty(centred.shape).numpy(),
            a_grad.numpy(),
            sums.numpy(),
        )
        return None, a_grad, sums[0], sums[1]
