"""Cross entropy of one true row against many negatives, without ever holding all logits.

    loss_t = log(exp(h_t . p_t) + sum_s w_ts exp(h_t . r_s + bias_s)) - h_t . p_t

Letters: t positions, s negatives, d width. The weights w are 1 but for some pairs. Over a whole catalogue all items are
negatives, and the weight of each position's true item, which stands in p, is 0. Over drawn items the bias is minus the
logarithm of how often each is expected to be drawn (the logQ correction; Bengio and Senecal 2008), and the weight of a
drawn item that is the true one is 0 as well.
"""

from typing import NamedTuple

import torch

from .chunk import CrossEntropyByBlocks
from .naive import cross_entropy_naive

__all__ = ["BACKENDS", "PRECISIONS", "Weighted", "cross_entropy"]

BACKENDS = ("naive", "chunk", "numba", "auto")
PRECISIONS = ("float32", "bfloat16")


class Weighted(NamedTuple):
    """Pairs of another weight than 1: negative ``columns[i]`` for position ``positions[i]``, no pair twice.

    ``positions`` (int64, ascending), ``columns`` (int64), ``log_weights`` (float32; -inf: no negative), each (pairs).
    """

    positions: torch.Tensor
    columns: torch.Tensor
    log_weights: torch.Tensor


def cross_entropy(
    hidden: torch.Tensor,
    true: torch.Tensor,
    negatives: torch.Tensor,
    weighted: Weighted,
    *,
    bias: torch.Tensor | None = None,
    precision: str = "float32",
    backend: str = "auto",
) -> torch.Tensor:
    """Return the mean loss over all positions, 0 if there are none; gradients go to the three vectors.

    Shapes: ``hidden`` and ``true`` (t, d), ``negatives`` (s, d), ``bias`` (s), None for zeros. ``precision`` is that of
    the products with the negatives; sums are float32. Backends: ``naive`` (the truth, any dtype, all logits at once),
    ``chunk`` (a block of positions at a time, any device), ``numba`` (the same with one pass over the logits, CPU and
    float32), ``auto`` (numba where it works). Raises ``ValueError`` for shapes that do not fit, an unknown backend or
    precision.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    if hidden.shape != true.shape or hidden.shape[1:] != negatives.shape[1:] or hidden.dim() != 2:
        raise ValueError(
            f"hidden and true must be (t, d) and negatives (s, d), got {tuple(hidden.shape)}, {tuple(true.shape)} and "
            f"{tuple(negatives.shape)}"
        )
    if bias is not None and bias.shape != negatives.shape[:1]:
        raise ValueError(f"bias must be ({len(negatives)},), got {tuple(bias.shape)}")
    if backend == "naive":
        return cross_entropy_naive(hidden, true, negatives, *weighted, bias)
    compiled = hidden.device.type == "cpu" and hidden.dtype == torch.float32
    if backend == "numba" and not compiled:
        raise ValueError(f"the numba backend needs float32 on the CPU, got {hidden.dtype} on {hidden.device}")
    half = precision == "bfloat16"
    loss: torch.Tensor = CrossEntropyByBlocks.apply(
        hidden, true, negatives, *weighted, bias, half, compiled and backend != "chunk"
    )
    return loss
