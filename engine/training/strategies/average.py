"""The weights that a fit ends with are an average over its steps."""

import contextlib
from collections.abc import Iterator

import torch

from .base import FitContext, Strategy

__all__ = ["Average"]


class Average(Strategy):
    """Keeps the exponential moving average of the weights, which begins at the parent's.

    It reaches back about ``reach`` of the steps (Polyak and Juditsky 1992; of the weights of a network: 1703.01780).
    """

    name = "average"

    def __init__(self, reach: float = 0.3) -> None:
        self._reach = reach

    def begin(self, context: FitContext) -> None:
        """Remember the weights."""
        self._weights = [parameter.detach() for parameter in context.model.parameters() if parameter.requires_grad]
        self._mean = [weight.clone() for weight in self._weights]
        self._step = min(1.0, 1 / max(1e-9, self._reach * context.steps))

    def after_step(self, rate: float) -> None:
        """Take the new weights into the average."""
        del rate
        for mean, weight in zip(self._mean, self._weights, strict=True):
            mean.lerp_(weight, self._step)

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """Put the average into the model for a while."""
        last = [weight.clone() for weight in self._weights]
        self._put(self._mean)
        try:
            yield
        finally:
            self._put(last)

    def end(self) -> None:
        """Leave the average in the model."""
        self._put(self._mean)

    def _put(self, values: list[torch.Tensor]) -> None:
        for weight, value in zip(self._weights, values, strict=True):
            weight.copy_(value)
