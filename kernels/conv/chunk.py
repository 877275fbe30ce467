"""The convolution of whole sequences as a sum of shifted products (torch, with gradients)."""

import torch
from torch.nn import functional as F

__all__ = ["conv_chunk", "conv_chunk_packed"]


def conv_chunk(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    window: torch.Tensor,
    lengths: torch.Tensor | None,
    *,
    silu: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ``y`` and the final windows; shapes and arguments as in ``conv``."""
    length, past = x.shape[1], window.shape[1]
    seen = torch.cat([window, x], dim=1)  # (b, K - 1 + l, w)
    y = torch.addcmul(bias, seen[:, :length], weight[:, 0])
    for k in range(1, past + 1):
        y = torch.addcmul(y, seen[:, k : k + length], weight[:, k])
    if lengths is None:
        final = seen[:, length:]
    else:
        index = lengths.to(x.device)[:, None] + torch.arange(past, device=x.device)  # (b, K - 1)
        final = torch.take_along_dim(seen, index[..., None], dim=1)
    return (F.silu(y) if silu else y), final


def conv_chunk_packed(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    window: torch.Tensor,
    cu_seqlens: torch.Tensor,
    *,
    silu: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same for sequences one after another in a single row; windows are (s, K - 1, w)."""
    s, past = window.shape[:2]
    bounds = cu_seqlens.to(x.device, non_blocking=True)
    lengths = bounds.diff()
    # every sequence is put behind its own window; after that a plain convolution never looks across a border
    gap = torch.repeat_interleave(torch.arange(1, s + 1, device=x.device) * past, lengths, output_size=x.shape[1])
    place = torch.arange(x.shape[1], device=x.device) + gap
    head = (bounds[:-1] + torch.arange(s, device=x.device) * past)[:, None] + torch.arange(past, device=x.device)
    seen = x.new_zeros(x.shape[1] + s * past, x.shape[2])
    seen = seen.index_copy(0, place, x[0]).index_copy(0, head.flatten(), window.flatten(0, 1))
    y = torch.addcmul(bias, seen.index_select(0, place - past), weight[:, 0])
    for k in range(1, past + 1):
        y = torch.addcmul(y, seen.index_select(0, place - past + k), weight[:, k])
    final = seen.index_select(0, (head + lengths[:, None]).flatten()).view(s, past, -1)
    return (F.silu(y) if silu else y)[None], final
