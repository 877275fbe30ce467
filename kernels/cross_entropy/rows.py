"""The softmax of a block of logits in place (numba): each row is read once and written once."""

from typing import Any

import numpy as np
import torch

from ..jit import fast_jit, inline_jit
from ..scalar import exp, narrow, widen

__all__ = ["softmax_rows"]

_NOTHING = np.float32(-1e30)


def softmax_rows(
    logits: torch.Tensor,
    own: torch.Tensor,
    bias: torch.Tensor,
    positions: torch.Tensor,
    columns: torch.Tensor,
    log_weights: torch.Tensor,
    loss: torch.Tensor,
    excess: torch.Tensor,
) -> None:
    """Turn ``logits`` (t, s), float32 or bfloat16, into probabilities; ``excess`` gets that of the true row less 1.

    ``positions`` ascend and count from the block's first row.
    """
    bits = logits.view(torch.uint16) if logits.dtype == torch.bfloat16 else logits
    bounds = torch.searchsorted(positions, torch.arange(len(logits) + 1))
    _rows(*(part.numpy() for part in (bits, own, bias, bounds, columns, log_weights, loss, excess)))


@fast_jit
def _rows(
    logits: Any, own: Any, bias: Any, bounds: Any, columns: Any, log_weights: Any, loss: Any, excess: Any
) -> None:
    size = logits.shape[1]
    wide = np.empty(size, np.float32)
    for t in range(logits.shape[0]):
        row, mine = logits[t], own[t]
        for s in range(size):
            wide[s] = widen(row[s]) + bias[s]
        for i in range(bounds[t], bounds[t + 1]):
            # low enough to weigh nothing, and finite, as fast arithmetic wants it
            wide[columns[i]] += max(log_weights[i], _NOTHING)
        top = max(mine, _highest(wide))
        total = np.float32(0.0)
        for s in range(size):
            weight = exp(wide[s] - top)
            wide[s] = weight
            total += weight
        for i in range(bounds[t], bounds[t + 1]):
            # the exponent is clamped: what has no weight must be nothing at all
            if log_weights[i] <= _NOTHING:
                total -= wide[columns[i]]
                wide[columns[i]] = np.float32(0.0)
        mine = exp(mine - top)
        total += mine
        share = np.float32(1.0) / total
        for s in range(size):
            row[s] = narrow(wide[s] * share, row[s])
        loss[t] = np.log(total) + top - own[t]
        excess[t] = mine * share - np.float32(1.0)


@inline_jit
def _highest(values: Any) -> Any:
    # sixteen running maxima: a single one is not turned into vector instructions
    lanes = np.full(16, np.float32(-3e38), np.float32)
    whole = values.shape[0] - values.shape[0] % 16
    for s in range(0, whole, 16):
        for j in range(16):
            value, highest = values[s + j], lanes[j]
            lanes[j] = value if value > highest else highest
    top = np.float32(-3e38)
    for j in range(16):
        top = max(top, lanes[j])
    for s in range(whole, values.shape[0]):
        top = max(top, values[s])
    return top
