"""The models that ours is measured against: same width, plain torch."""

import torch
from torch import nn
from torch.nn import functional as F

__all__ = ["SASRecEncoder"]


class SASRecEncoder(nn.Module):
    """SASRec (Kang and McAuley, ICDM 2018) as an encoder: a user's last items in, one user vector out.

    Post-norm blocks with GELU and a feed-forward width of 4 d, as RecBole has them; attention by torch's
    ``scaled_dot_product_attention``. The vector of the last position is all that is asked for, so the last block makes
    its query, its feed-forward and its norms for that position alone; ``every_position`` computes what training would.
    """

    def __init__(self, items: int, *, d: int = 64, layers: int = 2, heads: int = 2, length: int = 200) -> None:
        super().__init__()
        self.items = nn.Embedding(items, d)
        self.positions = nn.Embedding(length, d)
        self.norm = nn.LayerNorm(d, eps=1e-12)
        self.blocks = nn.ModuleList(_Block(d, heads) for _ in range(layers))

    def forward(self, items: torch.Tensor, *, every_position: bool = False) -> torch.Tensor:
        """Map ``items`` (b, l) to the vectors (b, d) of the last positions."""
        a: torch.Tensor = self.norm(self.items(items) + self.positions.weight[: items.shape[1]])
        for place, block in enumerate(self.blocks):
            a = block(a, last_only=not every_position and place == len(self.blocks) - 1)
        return a[:, -1]


class _Block(nn.Module):
    def __init__(self, d: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(d, d)
        self.key_value = nn.Linear(d, 2 * d)
        self.out = nn.Linear(d, d)
        self.norm = nn.LayerNorm(d, eps=1e-12)
        self.ffn_in = nn.Linear(d, 4 * d)
        self.ffn_out = nn.Linear(4 * d, d)
        self.ffn_norm = nn.LayerNorm(d, eps=1e-12)

    def forward(self, a: torch.Tensor, *, last_only: bool) -> torch.Tensor:
        b, _, d = a.shape
        key, value = torch.chunk(self.key_value(a), 2, dim=-1)
        if last_only:
            a = a[:, -1:]
        query = self.query(a)
        query, key, value = (v.view(b, -1, self.heads, d // self.heads).transpose(1, 2) for v in (query, key, value))
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=not last_only)
        a = self.norm(self.out(mixed.transpose(1, 2).reshape(b, -1, d)) + a)
        out: torch.Tensor = self.ffn_norm(self.ffn_out(F.gelu(self.ffn_in(a))) + a)
        return out
