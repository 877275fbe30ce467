"""The convolution as its sum reads: one row and one position at a time. The truth of this folder."""

import itertools

import torch
from torch.nn import functional as F

__all__ = ["conv_naive"]


def conv_naive(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    window: torch.Tensor,
    lengths: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    *,
    silu: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ``y`` and the final windows; shapes and arguments as in ``conv``."""
    if cu_seqlens is not None:
        bounds = cu_seqlens.tolist()
        parts = [x[0, begin:end] for begin, end in itertools.pairwise(bounds)]
        ends = [len(part) for part in parts]
    else:
        parts = list(x)
        ends = [x.shape[1]] * len(parts) if lengths is None else lengths.tolist()
    ys, windows = [], []
    for part, end, past in zip(parts, ends, window, strict=True):
        row = []
        for t, new in enumerate(part):
            seen = torch.cat([past, new[None]])  # (K, w)
            row.append(bias + (seen * weight.T).sum(0))
            past = seen[1:] if t < end else past
        ys.append(torch.stack(row) if row else part)
        windows.append(past)
    y = torch.cat(ys)[None] if cu_seqlens is not None else torch.stack(ys)
    return (F.silu(y) if silu else y), torch.stack(windows)
