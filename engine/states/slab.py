"""Slabs of user states: what serving asks of them, what they have in common, and the one that a configuration names."""

from abc import ABC, abstractmethod
from typing import ClassVar, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from ..config import StateConfig
from ..devices import device_of
from ..errors import ConfigError, VersionError
from ..model.streaming import StreamingModel
from ..model.time import FEATURES, query_features
from ..model.weights import StepWeights

__all__ = ["Slab", "create_slab", "longs"]

Longs = NDArray[np.int64]
Floats = NDArray[np.float32]

_PARITY = 1e-3


class Slab(ABC):
    """States of ``slots`` users under one version. One thread at a time calls it.

    Scan states and windows lie where the kind of slab has them. Vectors and the statistics of the gaps are the host's:
    retrieval reads the one, and a few numbers per event are cheaper to make than to ask for.
    """

    # users and events of the fixed batch on which step and scan are compared
    trial: ClassVar[tuple[int, int]] = (4, 70)

    def __init__(self, weights: StepWeights, slots: int, vectors: Floats) -> None:
        # one slot more than asked for: the last holds the state after the start token, which every anchor copies
        rows = slots + 1
        self.weights = weights
        self.slots = slots
        self._vectors: Floats = vectors  # (rows, d)
        self._mean = np.zeros(rows)
        self._m2 = np.zeros(rows)
        self._count: Longs = np.zeros(rows, np.int64)
        self._last_ms: Longs = np.zeros(rows, np.int64)

    @property
    def vectors(self) -> Floats:
        """User vectors (slots, d) after the last event of each slot, before modulation for the time of a query."""
        return self._vectors[: self.slots]

    @property
    def count(self) -> Longs:
        """Events (slots) since the anchor."""
        return self._count[: self.slots]

    @property
    def last_ms(self) -> Longs:
        """Time (slots) of the last event; 0 where there is none."""
        return self._last_ms[: self.slots]

    @property
    def nbytes_per_slot(self) -> int:
        """Bytes of one slot, everything included."""
        host = (self._vectors, self._mean, self._m2, self._count, self._last_ms)
        return self._state_bytes() + sum(int(array[0].nbytes) for array in host)

    @abstractmethod
    def add_items(self, vectors: Floats) -> int:
        """Add items by the vectors (items, d) that they are read by; returns the version row of the first of them."""

    @abstractmethod
    def advance(
        self,
        slots: ArrayLike,
        starts: ArrayLike,
        lengths: ArrayLike,
        resets: ArrayLike,
        items: ArrayLike,
        times_ms: ArrayLike,
    ) -> None:
        """Consume R runs of events: one step, several events of a user, and a re-encode are the same call.

        Run r takes events ``starts[r] : starts[r] + lengths[r]`` of ``items`` (version rows, V for unknown, or rows of
        added items) and ``times_ms``, in that order, into slot ``slots[r]``; slots are distinct within a call. With
        ``resets[r]`` it begins at an anchor: from the state after the start token, which with length 0 is all it does.
        A slot's first use must be a reset. What was consumed is in ``vectors`` when the call returns. Raises
        ``InputError`` for rows or slots out of range; nothing is changed then.
        """

    def query(self, slots: ArrayLike, now_ms: ArrayLike) -> Floats:
        """Vectors (R, d) for queries at ``now_ms`` (R, or one for all), the gap clipped at ``weights.gap_clip_s``.

        Equal to ``vectors[slots]`` when the version has no query time.
        """
        slots = longs(slots)
        vectors = self._vectors[slots]
        query = self.weights.query
        if query is None:
            return vectors
        gap_ms = np.minimum(np.asarray(now_ms) - self._last_ms[slots], int(self.weights.gap_clip_s * 1000.0))
        phi = np.empty((len(slots), FEATURES), np.float32)
        query_features(gap_ms, self._count[slots], self._mean[slots], self._m2[slots], phi)
        return query.modulate(vectors, phi)

    def check(self, model: StreamingModel | None = None) -> None:
        """Raise ``VersionError`` if the start state is not finite or, given the model, if step and scan disagree.

        ``model`` is on the CPU. The slab's own slots are not touched.
        """
        if not np.isfinite(self._vectors[self.slots]).all():
            raise VersionError("the version's start vector is not finite")
        if model is None:
            return
        users, length = self.trial
        rng = np.random.default_rng(0)
        items = rng.integers(0, self.weights.items + 1, self.trial)
        times_ms = rng.integers(0, 86_400_000, self.trial).cumsum(axis=1)
        slab, each = self._like(users), np.arange(users)
        slab.advance(each, each * length, np.full(users, length), np.ones(users, bool), items.ravel(), times_ms.ravel())
        with torch.no_grad():
            want = model(torch.from_numpy(items), torch.from_numpy(times_ms))[:, -1].double().numpy()
        worst = float(np.abs(slab.vectors - want).max() / max(1.0, np.abs(want).max()))
        if not worst <= _PARITY:
            raise VersionError(f"step and scan of the version disagree by {worst:.2g} on the fixed batch")

    @abstractmethod
    def _like(self, slots: int) -> Self:
        """Return an empty slab of this kind, under the same version, that keeps float32."""

    @abstractmethod
    def _state_bytes(self) -> int:
        """Bytes of the scan states and windows of one slot."""


def longs(values: ArrayLike) -> Longs:
    """Return the values as int64 without gaps between them."""
    return np.ascontiguousarray(values, dtype=np.int64)


def create_slab(weights: StepWeights, slots: int, config: StateConfig, *, threads: int = 1) -> Slab:
    """Create the slab that ``config.device`` says. Raises ``ConfigError`` where that device cannot be used."""
    # each kind brings kernels of its own along, one of them an optional package: imported where it is asked for
    if config.device == "cpu":
        from .cpu import StateSlab

        return StateSlab(weights, slots, config.dtype, threads=threads)
    device = device_of(config.device, name="states.device")
    try:
        from .gpu import DeviceSlab
    except ModuleNotFoundError as error:
        raise ConfigError(f"states.device is {config.device}: {error}; or use cpu") from None
    return DeviceSlab(weights, slots, config.dtype, device=device)
