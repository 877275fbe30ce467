"""GRU4Rec (Hidasi et al., ICLR 2016, arXiv 1511.06939) with the dense output layer and tied item vectors of RecBole.

    r, z = sigma(W_r v + U_r s + b_r), sigma(W_z v + U_z s + b_z)       v: the item's vector, s: the state before it
    s' = (1 - z) tanh(W_n v + b_n + r (U_n s + c_n)) + z s              user vector: W s' + b

Dropout falls on the item vectors. Times are not read.

Initial values: item vectors and output map normal with deviation 0.02, its bias 0; all of the recurrence uniform within
1/sqrt(width of the state).
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

from ..config import ModelConfig
from .base import SequenceModel
from .initial import draw_linear
from .rows import columns

__all__ = ["GRU4RecModel"]


class GRU4RecModel(SequenceModel):
    """GRU4Rec over a vocabulary of ``items`` items: ``config.layers`` GRUs of width ``config.gru_hidden``.

    ``generator`` draws the initial values; None means a generator with seed 0.
    """

    def __init__(self, config: ModelConfig, items: int, *, generator: torch.Generator | None = None) -> None:
        super().__init__(config, items)
        self.embedding = nn.Parameter(torch.empty(items + 1, config.d_model))
        self.gru = nn.GRU(config.d_model, config.gru_hidden, config.layers, batch_first=True)
        self.out = nn.Linear(config.gru_hidden, config.d_model)
        self._reset(generator or torch.Generator().manual_seed(0))

    def forward(
        self,
        items: torch.Tensor,
        times_ms: torch.Tensor,
        lengths: torch.Tensor | None = None,
        *,
        backend: str = "auto",
    ) -> torch.Tensor:
        """Hidden vectors (b, l + 1, d), zeros in column 0; see the base class."""
        del times_ms, backend
        vectors = F.dropout(F.embedding(items, self.embedding), self.config.dropout, self.training)
        states, _ = self.gru(vectors)  # (b, l, width of the state)
        return columns(self.out(states), lengths)

    def item_table(self) -> torch.Tensor:
        """Search vectors (V, d): the score of an item is the inner product with the user's vector."""
        return self.embedding[: self.items]

    def _reset(self, generator: torch.Generator) -> None:
        bound = 1 / math.sqrt(self.config.gru_hidden)
        for parameter in self.gru.parameters():
            nn.init.uniform_(parameter, -bound, bound, generator=generator)
        nn.init.normal_(self.embedding, std=0.02, generator=generator)
        draw_linear(self.out, generator)
