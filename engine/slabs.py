"""What serving asks of a slab of user states, and the slab that a configuration names."""

from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .config import StateConfig
from .devices import device_of
from .errors import ConfigError
from .model import StepWeights, StreamingModel
from .states import StateSlab

__all__ = ["Slab", "create_slab"]

Floats = NDArray[np.float32]


class Slab(Protocol):
    """States of some users under one version; what each member does is said at ``StateSlab``.

    One thread at a time calls it. Vectors are the host's, wherever the states are.
    """

    slots: int

    @property
    def vectors(self) -> Floats:
        """User vectors (slots, d) after the last event of each slot."""

    @property
    def nbytes_per_slot(self) -> int:
        """Bytes of one slot, everything included."""

    def add_items(self, vectors: Floats) -> int:
        """Add items by the vectors (items, d) that they are read by; returns the version row of the first of them."""

    def advance(
        self,
        slots: ArrayLike,
        starts: ArrayLike,
        lengths: ArrayLike,
        resets: ArrayLike,
        items: ArrayLike,
        times_ms: ArrayLike,
    ) -> None:
        """Consume runs of events; what was consumed is in ``vectors`` when the call returns."""

    def query(self, slots: ArrayLike, now_ms: ArrayLike) -> Floats:
        """Vectors (R, d) for queries at ``now_ms``."""

    def check(self, model: StreamingModel | None = None) -> None:
        """Raise ``VersionError`` if the start state is not finite or, given the model, if step and scan disagree."""


def create_slab(weights: StepWeights, slots: int, config: StateConfig, *, threads: int = 1) -> Slab:
    """Create the slab that ``config.device`` says. Raises ``ConfigError`` where that device cannot be used."""
    if config.device == "cpu":
        return StateSlab(weights, slots, config.dtype, threads=threads)
    device = device_of(config.device, name="states.device")
    try:
        # an optional package behind it, so imported where it is asked for
        from .device_states import DeviceSlab
    except ModuleNotFoundError as error:
        raise ConfigError(f"states.device is {config.device}: {error}; or use cpu") from None
    return DeviceSlab(weights, slots, config.dtype, device=device)
