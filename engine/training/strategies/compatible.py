"""User vectors of the live version still search the items of the next one."""

import torch

from .base import Seen, Setting, Strategy
from .distill import divergence, draw_items

__all__ = ["Compatible"]


class Compatible(Strategy):
    """Adds the divergence between the choices of the live and of the new user vector, both among the new item vectors.

    That is the alignment of backward compatible training (arXiv 2003.11942), where the old representation must work
    against the new classifier; here the classifier is the index of items. ``items`` are drawn for it at every step.
    """

    name = "compatible"

    def __init__(self, weight: float = 1.0, items: float = 1_024) -> None:
        self._weight, self._items = weight, int(items)

    def begin(self, setting: Setting) -> None:
        """Take note of how many items there are."""
        self._setting = setting

    def before_step(self) -> None:
        """Draw the items that stand for the catalogue."""
        self._drawn = draw_items(self._setting.model.items, self._items, self._setting.rng)

    def loss(self, seen: Seen) -> torch.Tensor:
        """Return the mean divergence times its weight."""
        rivals = seen.table[self._drawn.to(seen.table.device)]
        found = divergence(seen.vectors @ rivals.T, seen.live_vectors @ rivals.T)
        return self._weight * found.sum() / max(1, len(seen.events))
