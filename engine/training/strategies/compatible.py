"""Compatibility: user vectors of the parent still search the items of the next version."""

import torch

from .base import FitContext, StepContext, Strategy
from .distill import divergence, draw_items

__all__ = ["Compatible"]


class Compatible(Strategy):
    """Adds the divergence between what the parent's and the new user vector choose among the new item vectors.

    That is the alignment of backward compatible training (arXiv 2003.11942), where the old representation must work
    against the new classifier; here the classifier is the index of items. ``items`` are drawn for it at every step.
    """

    name = "compatible"

    def __init__(self, weight: float = 1.0, items: float = 1_024) -> None:
        self._weight, self._items = weight, int(items)

    def begin(self, context: FitContext) -> None:
        """Keep the context, which has the number of items."""
        self._context = context

    def before_step(self) -> None:
        """Draw the items that stand for the catalogue."""
        self._drawn = draw_items(self._context.model.items, self._items, self._context.rng)

    def loss(self, step: StepContext) -> torch.Tensor:
        """Return the mean divergence times its weight."""
        negatives = step.table[self._drawn.to(step.table.device)]
        found = divergence(step.vectors @ negatives.T, step.parent_vectors @ negatives.T)
        return self._weight * found.sum() / max(1, len(step.events))
