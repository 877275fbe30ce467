"""Contract of sequence models with training, with evaluation and, if they stream, with the engine."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional as F

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

    def encode(
        self,
        items: torch.Tensor,
        times_ms: torch.Tensor,
        offsets: torch.Tensor,
        *,
        backend: str = "auto",
        seed: int | None = None,
    ) -> torch.Tensor:
        """Hidden vectors (T + s, d) of s sequences one after another, without padding.

        ``items`` and ``times_ms`` (T) int64; sequence i is ``offsets[i]:offsets[i + 1]``, ``offsets`` (s + 1) int64
        from 0 to T. Its n_i + 1 vectors begin at row ``offsets[i] + i``: that of a user without events, then one after
        each event. ``times_ms`` and ``offsets`` may lie on the CPU where ``items`` do not: so a GPU is not waited for.
        ``seed`` fixes what training mode draws at random where a model says so (here it does nothing); None draws it
        from torch's own generator. This one pads and calls `forward`.
        """
        del seed
        longest = int(offsets.diff().max()) if len(offsets) > 1 else 0
        bounds = offsets.to(items.device)
        lengths = bounds.diff()
        column = torch.arange(longest, device=items.device)
        inside = column < lengths[:, None]  # (s, l)
        # padding repeats the last time, so that it adds no gaps
        place = torch.minimum(bounds[:-1, None] + column, (bounds[1:, None] - 1).clamp_min(0))
        times_ms = times_ms.to(items.device)[place]
        hidden = self(torch.where(inside, items[place], 0), times_ms, lengths, backend=backend)
        vectors: torch.Tensor = hidden[F.pad(inside, (1, 0), value=True)]
        return vectors

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
