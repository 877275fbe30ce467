"""Distillation from the parent model: its scores, and its relations of users to kinds of items."""

import numpy as np
import torch
from torch.nn import functional as F

from .base import FitContext, StepContext, Strategy

__all__ = ["Distill", "divergence", "draw_items"]

_TEMPERATURE = 0.1
_ROUNDS = 10


class Distill(Strategy):
    """Adds two divergences from the parent model, at new events too: what it says there of other items is kept as well.

    ``weight`` is that of the divergence of the choice among ``items`` drawn items (learning without forgetting, arXiv
    1606.09282, which ADER, 2007.12000, does at what it replays); ``relations`` that of the choice among prototypes by
    the cosine to the user's vector. Prototypes are the means of ``prototypes`` clusters of items: the parent model's
    vectors say which items are in one, and each model takes the means of its own vectors. New items are in none.

    After a fall of quality the parent model knows a world that is gone: both weights are divided by the fourth power
    of the effort.
    """

    name = "distill"

    def __init__(
        self, weight: float = 1.0, relations: float = 0.5, items: float = 1_024, prototypes: float = 64
    ) -> None:
        self._weight, self._relations, self._items, self._prototypes = weight, relations, int(items), int(prototypes)

    def begin(self, context: FitContext) -> None:
        """Cluster the parent model's items."""
        self._context = context
        self._trust = context.effort**-4
        with torch.no_grad():
            self._table = context.parent.item_table().detach()
            self._cluster = _clusters(self._table, self._prototypes, context.rng)
            self._targets = self._means(self._table)

    def before_step(self) -> None:
        """Draw the items that stand for the catalogue."""
        self._drawn = draw_items(self._context.parent.items, self._items, self._context.rng).to(self._table.device)

    def loss(self, step: StepContext) -> torch.Tensor:
        """Return both divergences, each times its weight."""
        mine, parent, drawn = step.vectors, step.parent_vectors, self._drawn
        outputs = divergence(parent @ self._table[drawn].T, mine @ step.table[drawn].T)
        relations = divergence(_relations(parent, self._targets), _relations(mine, self._means(step.table)))
        total = self._weight * outputs.sum() + self._relations * relations.sum()
        return self._trust * total / max(1, len(step.events))

    def _means(self, table: torch.Tensor) -> torch.Tensor:
        kinds = int(self._cluster.max()) + 1
        sums = table.new_zeros(kinds, table.shape[1]).index_add(0, self._cluster, table[: len(self._cluster)])
        return sums / torch.bincount(self._cluster, minlength=kinds).clamp_min(1)[:, None]


def divergence(target: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """Return the divergences (r) of the choices by ``logits`` (r, s) from those by ``target`` (r, s)."""
    return F.kl_div(logits.log_softmax(1), target.log_softmax(1), log_target=True, reduction="none").sum(1)


def draw_items(items: int, size: int, rng: np.random.Generator) -> torch.Tensor:
    """Draw ``size`` of so many items evenly; all of them, in order, if there are no more."""
    return torch.arange(items) if items <= size else torch.from_numpy(rng.integers(0, items, size))


def _relations(vectors: torch.Tensor, prototypes: torch.Tensor) -> torch.Tensor:
    return F.normalize(vectors, dim=1) @ F.normalize(prototypes, dim=1).T / _TEMPERATURE


def _clusters(table: torch.Tensor, kinds: int, rng: np.random.Generator) -> torch.Tensor:
    """Return the cluster of each item by its direction: k-means, begun at items drawn at random."""
    directions = F.normalize(table, dim=1)
    centres = directions[torch.from_numpy(rng.permutation(len(table))[:kinds]).to(table.device)]
    for _ in range(_ROUNDS):
        nearest = (directions @ centres.T).argmax(1)
        # a centre without items keeps none and comes back as zero, to which nothing is near
        centres = F.normalize(torch.zeros_like(centres).index_add(0, nearest, directions), dim=1)
    return (directions @ centres.T).argmax(1)
