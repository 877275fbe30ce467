"""What every sequence model offers to training, to evaluation and, if it streams, to the engine."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import nn

from ..config import ModelConfig

__all__ = ["SequenceModel"]


class SequenceModel(nn.Module, ABC):
    """A model over a vocabulary of ``items`` items (V); an item that it does not know is row V.

    ``streams`` says whether it has a recurrence that the engine can serve one event at a time; ``causal`` whether the
    vector at a position depends on the events up to it only, so that every position of a row can be a target.
    """

    streams: ClassVar[bool] = False
    causal: ClassVar[bool] = True

    def __init__(self, config: ModelConfig, items: int) -> None:
        super().__init__()
        self.config = config
        self.items = items
        self.query_time: nn.Module | None = None

    @abstractmethod
    def forward(
        self,
        items: torch.Tensor,
        times_ms: torch.Tensor,
        lengths: torch.Tensor | None = None,
        *,
        backend: str = "auto",
    ) -> torch.Tensor:
        """Hidden vectors (b, l + 1, d): column t is the vector after t events, column 0 that of a user without any.

        ``items`` (b, l) int64 rows of the vocabulary, ``times_ms`` (b, l) int64; rows are padded at their end and
        ``lengths`` (b) says how many events they have, None that all are full. Models without a start token have zeros
        in column 0.
        """

    @abstractmethod
    def item_table(self) -> torch.Tensor:
        """Search vectors (V, d): the score of an item is the inner product with the user's vector."""

    def query(self, hidden: torch.Tensor, phi: torch.Tensor | None) -> torch.Tensor:
        """Modulate ``hidden`` (..., d) for a query after a gap with features ``phi`` (..., 3); the identity here."""
        del phi
        return hidden

    @property
    def unknown_row(self) -> int:
        """Row that every item unknown to this model is read as."""
        return self.items

    @property
    def parameters_count(self) -> int:
        """How many values training sets."""
        return sum(parameter.numel() for parameter in self.parameters() if parameter.requires_grad)
