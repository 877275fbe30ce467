"""The models that ours is measured against: same width, plain torch."""

import torch
from torch import nn

from ...engine.config import ModelConfig
from ...engine.model import SASRecModel

__all__ = ["SASRecEncoder"]


class SASRecEncoder(nn.Module):
    """`SASRecModel` as an encoder: a user's last items in, one user vector out.

    The vector of the last position is all that is asked for, so the last layer makes its query, its feed-forward and
    its norms for that position alone; ``every_position`` computes what training would.
    """

    def __init__(self, items: int, *, d: int = 64, layers: int = 2, heads: int = 2, length: int = 200) -> None:
        super().__init__()
        config = ModelConfig(name="sasrec", d_model=d, layers=layers, attention_heads=heads, max_length=length)
        self.model = SASRecModel(config, items)

    def forward(self, items: torch.Tensor, *, every_position: bool = False) -> torch.Tensor:
        """Map ``items`` (b, l) to the vectors (b, d) of the last positions."""
        return self.model.attend(items, last_only=not every_position)[:, -1]
