"""Low-rank adapters over the frozen weights of the parent."""

import math
from typing import NamedTuple

import torch
from torch import nn

from .base import FitContext, Strategy

__all__ = ["LoRA"]

_MAPS = ("in_proj.weight", "out_proj.weight", "ffn_in.weight", "ffn_out.weight", "embedding")


class _Adapter(NamedTuple):
    """The first ``rows`` of ``weight`` are ``base`` (m, n) + ``left`` (m, r) ``right`` (r, n)."""

    weight: nn.Parameter
    base: torch.Tensor
    left: nn.Parameter
    right: nn.Parameter

    def merge(self) -> None:
        with torch.no_grad():
            self.weight[: len(self.base)] = torch.addmm(self.base, self.left, self.right)

    def gradients(self) -> None:
        """Hand the gradient of the weight on to both factors: the chain rule."""
        assert self.weight.grad is not None
        gradient = self.weight.grad[: len(self.base)]
        self.left.grad = gradient @ self.right.T
        self.right.grad = self.left.detach().T @ gradient


class LoRA(Strategy):
    """The layers' maps and the known items' vectors change by matrices of rank ``rank`` only (arXiv 2106.09685).

    New items' vectors are trained as they are; nothing else changes. Layers read weights into which the factors are
    merged after every update, so that the model at the end is like any other. The left factor starts from zero, the
    right one from a normal distribution of deviation ``scale`` / sqrt(rank).
    """

    name = "lora"

    def __init__(self, rank: float = 8, scale: float = 1.0) -> None:
        self._rank, self._scale = int(rank), scale

    def begin(self, context: FitContext) -> None:
        """Freeze the weights and put adapters beside them."""
        generator = torch.Generator().manual_seed(int(context.rng.integers(1 << 62)))
        self._known = context.parent.items
        self._adapters = []
        for name, weight in context.model.named_parameters():
            if not name.endswith(_MAPS):
                continue
            base = weight.detach()[: self._known if name == "embedding" else None].clone()
            right = torch.randn(self._rank, base.shape[1], generator=generator).to(base)
            right *= self._scale / math.sqrt(self._rank)
            left = base.new_zeros(len(base), self._rank)
            self._adapters.append(_Adapter(weight, base, nn.Parameter(left), nn.Parameter(right)))
            if name == "embedding":
                self._embedding = weight

    def parameters(self, parameters: list[nn.Parameter]) -> list[nn.Parameter]:
        """Return the factors, and the table of items for its new rows."""
        del parameters
        return [self._embedding, *(factor for given in self._adapters for factor in (given.left, given.right))]

    def gradients(self) -> None:
        """Replace the gradients of weights by those of the factors."""
        for given in self._adapters:
            given.gradients()
        assert self._embedding.grad is not None
        self._embedding.grad[: self._known] = 0
        # the rows of the unknown item and of the start are no new ones
        self._embedding.grad[-2:] = 0

    def after_step(self, rate: float) -> None:
        """Merge."""
        del rate
        for given in self._adapters:
            given.merge()
