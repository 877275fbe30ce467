"""The causal depthwise convolution: one short filter per channel, looking back only.

    y_t = bias + sum_k weight_k x_{t-K+1+k}            (then SiLU, if asked for)

Letters: b rows, l positions, w channels, K filter width, s packed sequences.
"""

import torch

from .chunk import conv_chunk, conv_chunk_packed
from .naive import conv_naive

__all__ = ["BACKENDS", "conv"]

# a triton backend joins here as one module beside the others
BACKENDS = ("naive", "chunk", "auto")


def conv(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    *,
    initial_window: torch.Tensor | None = None,
    lengths: torch.Tensor | None = None,
    cu_seqlens: torch.Tensor | None = None,
    silu: bool = True,
    backend: str = "auto",
) -> tuple[torch.Tensor, torch.Tensor]:
    """Convolve whole sequences; returns ``(y, final_window)``.

    Shapes: ``x`` (b, l, w); ``weight`` (w, K), its last column meets the newest position; ``bias`` (w); windows
    (b, K - 1, w), the last K - 1 inputs, oldest first; None means zeros. ``y`` has the shape of ``x``.

    ``lengths`` (b): positions from there on are padding (``y`` is undefined there, the window ends before them).
    ``cu_seqlens`` (s + 1): b = 1 and s sequences lie one after another; windows are then (s, K - 1, w).
    Backends: ``naive`` (the truth), ``chunk`` (whole sequences, gradients to every tensor argument), ``auto`` (chunk).
    Raises ``ValueError`` for shapes that do not fit and for an unknown backend.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
    rows = x.shape[0] if cu_seqlens is None else len(cu_seqlens) - 1
    window = x.new_zeros(rows, weight.shape[1] - 1, x.shape[2]) if initial_window is None else initial_window
    if tuple(window.shape) != (rows, weight.shape[1] - 1, x.shape[2]) or weight.shape[0] != x.shape[2]:
        raise ValueError(
            f"x {tuple(x.shape)} needs weight ({x.shape[2]}, K) and windows ({rows}, K - 1, {x.shape[2]}), "
            f"got {tuple(weight.shape)} and {tuple(window.shape)}"
        )
    if cu_seqlens is not None and lengths is not None:
        raise ValueError("give lengths (padded rows) or cu_seqlens (packed rows), not both")
    if backend == "naive":
        return conv_naive(x, weight, bias, window, lengths, cu_seqlens, silu=silu)
    if cu_seqlens is not None:
        return conv_chunk_packed(x, weight, bias, window, cu_seqlens, silu=silu)
    return conv_chunk(x, weight, bias, window, lengths, silu=silu)
