"""The scan by chunks (arXiv 2405.21060, listing 1): matrix products inside a chunk, a short recurrence between chunks.

Chunks are kept in the order (place in its sequence, sequence), sequences longest first, so that the k-th chunks of all
sequences that have one lie side by side. ``counts[k]`` says how many those are; it never grows with k. Padded rows and
packed sequences are the same thing in this form.
"""

import torch
from torch.nn import functional as F

__all__ = ["CHUNK", "ssd_chunk", "ssd_chunk_packed"]

# longest chunk: the work inside a chunk grows with its length, the work between chunks with their number
CHUNK = 64


def ssd_chunk(
    x: torch.Tensor, dt: torch.Tensor, A: torch.Tensor, B: torch.Tensor, C: torch.Tensor, state: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ``y`` (b, l, h, p), without the D term, and the state after the last position; shapes as in ``ssd``."""
    b, length = x.shape[:2]
    if length == 0 or b == 0:
        return torch.zeros_like(x), state
    chunks = -(-length // CHUNK)
    q = -(-length // chunks)

    def cut(v: torch.Tensor) -> torch.Tensor:
        # (b, l, ...) -> (chunks * b, q, ...); zeros at the end: dt = 0 keeps the state
        padded = F.pad(v, (0, 0) * (v.dim() - 2) + (0, chunks * q - length))
        return padded.view(b, chunks, q, *v.shape[2:]).transpose(0, 1).flatten(0, 1)

    y, final = _scan_chunks(cut(x), cut(dt), A, cut(B), cut(C), state, [b] * chunks)
    return y.view(chunks, b, q, *y.shape[2:]).transpose(0, 1).flatten(1, 2)[:, :length], final


def ssd_chunk_packed(
    x: torch.Tensor,
    dt: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    state: torch.Tensor,
    cu_seqlens: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same for sequences one after another in a single row; ``state`` and the final state are (s, h, p, n)."""
    if x.shape[1] == 0:
        return torch.zeros_like(x), state
    lengths = cu_seqlens.diff().to(x.device)
    order = torch.argsort(lengths, descending=True, stable=True)
    blocks = (lengths[order] + CHUNK - 1) // CHUNK  # chunks per sequence, non-increasing
    counts = [int((blocks > k).sum()) for k in range(int(blocks[0]))]
    ordinal = torch.repeat_interleave(torch.arange(len(counts), device=x.device), torch.tensor(counts, device=x.device))
    sequence = torch.cat([order[:count] for count in counts])
    begin = cu_seqlens.to(x.device)[sequence] + ordinal * CHUNK
    place = begin[:, None] + torch.arange(CHUNK, device=x.device)  # (chunks, q)
    valid = place < cu_seqlens.to(x.device)[sequence + 1][:, None]
    index = torch.where(valid, place, 0).flatten()

    def cut(v: torch.Tensor) -> torch.Tensor:
        return v[0].index_select(0, index).view(*place.shape, *v.shape[2:])

    y, final = _scan_chunks(cut(x), cut(dt) * valid[..., None], A, cut(B), cut(C), state[order], counts)
    # the chunks hold every position exactly once
    home = torch.empty(x.shape[1], dtype=torch.long, device=x.device)
    home[index[valid.flatten()]] = valid.flatten().nonzero()[:, 0]
    return y.flatten(0, 1).index_select(0, home)[None], final[torch.argsort(order)]


def _scan_chunks(
    x: torch.Tensor,
    dt: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    state: torch.Tensor,
    counts: list[int],
) -> tuple[torch.Tensor, torch.Tensor]:
    """``x`` (g, q, h, p), ``dt`` (g, q, h), ``B``, ``C`` (g, q, n), g = sum(counts) chunks; ``state`` (s, h, p, n)."""
    g, q, h, p = x.shape
    n = B.shape[-1]
    total = torch.cumsum(dt * A, dim=1)  # (g, q, h), log of the decay since the chunk's beginning
    xdt = x * dt[..., None]
    # inside a chunk: position i reads from j <= i through exp(total_i - total_j) C_i . B_j
    rows = total.transpose(1, 2)  # (g, h, q)
    upper = torch.ones(q, q, dtype=torch.bool, device=x.device).triu(1)
    decay = (rows[..., :, None] - rows[..., None, :]).masked_fill(upper, -torch.inf).exp()  # (g, h, q, q)
    mixing = decay * torch.bmm(C, B.transpose(1, 2))[:, None]
    y = torch.matmul(mixing, xdt.transpose(1, 2)).transpose(1, 2)  # (g, q, h, p)
    # what a chunk adds to the state, and what it keeps of the one before
    left = (total[:, -1:] - total).exp()[..., None]
    added = torch.bmm((xdt * left).flatten(2).transpose(1, 2), B).view(g, h, p, n)
    kept = total[:, -1].exp()[..., None, None]  # (g, h, 1, 1)
    before = []
    begin = 0
    for count in counts:
        before.append(state[:count])
        part = slice(begin, begin + count)
        after = kept[part] * state[:count] + added[part]
        state = after if count == len(state) else torch.cat([after, state[count:]])
        begin += count
    inflow = torch.cat(before).flatten(1, 2)  # (g, h * p, n)
    y = y + torch.bmm(C, inflow.transpose(1, 2)).view(g, q, h, p) * total.exp()[..., None]
    return y, state
