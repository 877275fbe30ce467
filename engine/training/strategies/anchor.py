"""Anchor: an L2 pull that holds the weights near those of the parent."""

from .base import FitContext, Strategy

__all__ = ["Anchor"]


class Anchor(Strategy):
    """An L2 pull to the parent's weights after every update; new items are not pulled.

    It is decoupled from the gradient as AdamW's decay is (arXiv 1711.05101; towards the start: L2-SP, arXiv
    1802.01483): weights move by the learning rate times ``pull`` times their distance.
    """

    name = "anchor"

    def __init__(self, pull: float = 10.0) -> None:
        self._pull = pull

    def begin(self, context: FitContext) -> None:
        """Remember the weights."""
        self._weights = {
            name: parameter.detach() for name, parameter in context.model.named_parameters() if parameter.requires_grad
        }
        self._start = {name: weight.clone() for name, weight in self._weights.items()}
        self._new = slice(context.parent.items, context.model.items)

    def after_step(self, rate: float) -> None:
        """Pull."""
        for name, weight in self._weights.items():
            kept = weight[self._new].clone() if name == "embedding" else None
            weight.lerp_(self._start[name], min(1.0, rate * self._pull))
            if kept is not None:
                weight[self._new] = kept
