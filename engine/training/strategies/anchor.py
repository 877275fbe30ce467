"""Weights are held near those of the live model."""

from .base import Setting, Strategy

__all__ = ["Anchor"]


class Anchor(Strategy):
    """An L2 pull to the live weights after every update; new items are not pulled.

    It is decoupled from the gradient as AdamW's decay is (arXiv 1711.05101; towards the start: L2-SP, arXiv
    1802.01483): weights move by the learning rate times ``pull`` times their distance.
    """

    name = "anchor"

    def __init__(self, pull: float = 10.0) -> None:
        self._pull = pull

    def begin(self, setting: Setting) -> None:
        """Remember the weights."""
        self._weights = {
            name: parameter.detach() for name, parameter in setting.model.named_parameters() if parameter.requires_grad
        }
        self._start = {name: weight.clone() for name, weight in self._weights.items()}
        self._new = slice(setting.live.items, setting.model.items)

    def after_step(self, rate: float) -> None:
        """Pull."""
        for name, weight in self._weights.items():
            kept = weight[self._new].clone() if name == "embedding" else None
            weight.lerp_(self._start[name], min(1.0, rate * self._pull))
            if kept is not None:
                weight[self._new] = kept
