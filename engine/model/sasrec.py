"""SASRec (Kang and McAuley, ICDM 2018, arXiv 1808.09781): causal self-attention over a user's last items.

Sizes and order of operations are those of BERT's encoder, as RecBole has them; b, l and d as in `streaming.py`:

    a_0[t] = LN(Emb[item_t] + Pos[t])
    c = LN(attention(a) + a)          a' = LN(W_2 gelu(W_1 c + b_1) + b_2 + c)         feed-forward width 4 d

Position t counts from the first event of the row. Times are not read. Dropout falls on a_0, on the attention's weights,
on its result, and on the feed-forward block's inner and outer result.

Initial values: linear maps, item vectors and positions normal with deviation 0.02, biases 0, norms 1 and 0.
"""

import torch
from torch import nn
from torch.nn import functional as F

from ..config import ModelConfig
from .base import SequenceModel
from .initial import draw_linear
from .rows import check_length, columns

__all__ = ["SASRecModel"]


class SASRecModel(SequenceModel):
    """SASRec over a vocabulary of ``items`` items; rows of at most ``config.max_length`` events.

    ``generator`` draws the initial values; None means a generator with seed 0.
    """

    def __init__(self, config: ModelConfig, items: int, *, generator: torch.Generator | None = None) -> None:
        super().__init__(config, items)
        d = config.d_model
        self.embedding = nn.Parameter(torch.empty(items + 1, d))
        self.positions = nn.Parameter(torch.empty(config.max_length, d))
        self.norm = nn.LayerNorm(d, eps=config.norm_eps)
        self.layers = nn.ModuleList(_Block(config) for _ in range(config.layers))
        self._reset(generator or torch.Generator().manual_seed(0))

    def forward(
        self,
        items: torch.Tensor,
        times_ms: torch.Tensor,
        lengths: torch.Tensor | None = None,
        *,
        backend: str = "auto",
    ) -> torch.Tensor:
        """Hidden vectors (b, l + 1, d), zeros in column 0; see the base class. Raises ``ValueError`` for long rows."""
        del times_ms, backend
        return columns(self.attend(items), lengths)

    def attend(self, items: torch.Tensor, *, last_only: bool = False) -> torch.Tensor:
        """Map full rows ``items`` (b, l) to the vectors (b, l, d) after each event.

        With ``last_only`` the last layer makes its query, its feed-forward block and its norms for the last position
        alone, all that a query needs; the result is (b, 1, d).
        """
        check_length(items, self.config.max_length)
        a: torch.Tensor = self.norm(F.embedding(items, self.embedding) + self.positions[: items.shape[1]])
        a = _dropped(a, self.config.dropout, self.training)
        for place, layer in enumerate(self.layers, 1):
            a = layer(a, last_only=last_only and place == len(self.layers))
        return a

    def item_table(self) -> torch.Tensor:
        """Search vectors (V, d): the score of an item is the inner product with the user's vector."""
        return self.embedding[: self.items]

    def _reset(self, generator: torch.Generator) -> None:
        nn.init.normal_(self.embedding, std=0.02, generator=generator)
        nn.init.normal_(self.positions, std=0.02, generator=generator)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                draw_linear(module, generator)


class _Block(nn.Module):
    """Attention, then the feed-forward block, both post-norm."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        d = config.d_model
        self.heads = config.attention_heads
        self.dropout = config.dropout
        self.query = nn.Linear(d, d)
        self.key_value = nn.Linear(d, 2 * d)
        self.out = nn.Linear(d, d)
        self.norm = nn.LayerNorm(d, eps=config.norm_eps)
        self.ffn_in = nn.Linear(d, 4 * d)
        self.ffn_out = nn.Linear(4 * d, d)
        self.ffn_norm = nn.LayerNorm(d, eps=config.norm_eps)

    def forward(self, a: torch.Tensor, *, last_only: bool) -> torch.Tensor:
        """Map (b, l, d) to (b, l, d), or to (b, 1, d) for the last position only."""
        b, _, d = a.shape
        key, value = torch.chunk(self.key_value(a), 2, dim=-1)
        if last_only:
            a = a[:, -1:]
        query = self.query(a)
        query, key, value = (v.view(b, -1, self.heads, d // self.heads).transpose(1, 2) for v in (query, key, value))
        mixed = F.scaled_dot_product_attention(
            query, key, value, dropout_p=self.dropout if self.training else 0.0, is_causal=not last_only
        )
        o = self.out(mixed.transpose(1, 2).reshape(b, -1, d))
        c: torch.Tensor = self.norm(_dropped(o, self.dropout, self.training) + a)
        f = _dropped(F.gelu(self.ffn_in(c)), self.dropout, self.training)
        f = _dropped(self.ffn_out(f), self.dropout, self.training)
        out: torch.Tensor = self.ffn_norm(f + c)
        return out


def _dropped(values: torch.Tensor, rate: float, training: bool) -> torch.Tensor:
    # at batch 1 the calls that would do nothing are 4 % of an answer
    return F.dropout(values, rate) if training else values
