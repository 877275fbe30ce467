"""Weights are held near those of the live model, and averaged."""

import contextlib
from collections.abc import Iterator

import torch

from .base import Setting, Strategy

__all__ = ["Anchor"]


class Anchor(Strategy):
    """An L2 pull to the live weights after every update, and the exponential moving average of the weights at the end.

    The pull is decoupled from the gradient as AdamW's decay is (arXiv 1711.05101; towards the start: L2-SP, arXiv
    1802.01483): weights move by the learning rate times ``pull`` times their distance. The average reaches back about
    ``average`` of the steps, 0 takes the last weights; it begins at the live ones. New items are not pulled.
    """

    name = "anchor"

    def __init__(self, pull: float = 10.0, average: float = 0.2) -> None:
        self._pull, self._average = pull, average

    def begin(self, setting: Setting) -> None:
        """Remember the weights."""
        self._weights = {
            name: parameter.detach() for name, parameter in setting.model.named_parameters() if parameter.requires_grad
        }
        self._start = {name: weight.clone() for name, weight in self._weights.items()}
        self._mean = {name: weight.clone() for name, weight in self._weights.items()}
        self._new = slice(setting.live.items, setting.model.items)
        self._step = 1.0 if self._average == 0 else min(1.0, 1 / (self._average * setting.steps))

    def after_step(self, rate: float) -> None:
        """Pull, and average."""
        for name, weight in self._weights.items():
            kept = weight[self._new].clone() if name == "embedding" else None
            weight.lerp_(self._start[name], min(1.0, rate * self._pull))
            if kept is not None:
                weight[self._new] = kept
            self._mean[name].lerp_(weight, self._step)

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """Put the average into the model for a while."""
        last = {name: weight.clone() for name, weight in self._weights.items()}
        self._put(self._mean)
        try:
            yield
        finally:
            self._put(last)

    def end(self) -> None:
        """Leave the average in the model."""
        self._put(self._mean)

    def _put(self, values: dict[str, torch.Tensor]) -> None:
        for name, weight in self._weights.items():
            weight.copy_(values[name])
