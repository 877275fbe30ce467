"""Slab of user states: the contract that serving relies on, and what the slabs of all devices share."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import ArrayLike

from ...kernels.arrays import Bools, Float32s, Int64s
from ...kernels.jit import jit
from ..errors import InputError, VersionError
from ..model.streaming import StreamingModel
from ..model.time import FEATURES, query_features
from ..model.weights import StepWeights

__all__ = ["Slab"]


_PARITY = 1e-3


class Slab(ABC):
    """States of ``slots`` users under one version. One thread at a time calls it.

    Scan states and windows lie where the kind of slab has them. Vectors and the statistics of the gaps are the host's:
    retrieval reads the one, and a few numbers per event are cheaper to make than to ask for.
    """

    # users and events of the fixed batch on which step and scan are compared
    trial: ClassVar[tuple[int, int]] = (4, 70)

    def __init__(self, weights: StepWeights, slots: int, vectors: Float32s) -> None:
        # one slot more than asked for: the last holds the state after the start token, which every anchor copies
        rows = slots + 1
        self.weights = weights
        self.slots = slots
        self._vectors: Float32s = vectors  # (rows, d)
        self._mean = np.zeros(rows)
        self._m2 = np.zeros(rows)
        self._count: Int64s = np.zeros(rows, np.int64)
        self._last_ms: Int64s = np.zeros(rows, np.int64)
        # rows of the table of item vectors: those in use (the version's items, then added ones), and all
        self._item_rows = self._table_rows = len(weights.read_table)

    @property
    def vectors(self) -> Float32s:
        """User vectors (slots, d) after the last event of each slot, before modulation for the time of a query."""
        return self._vectors[: self.slots]

    @property
    def count(self) -> Int64s:
        """Events (slots) since the anchor."""
        return self._count[: self.slots]

    @property
    def last_ms(self) -> Int64s:
        """Time (slots) of the last event; 0 where there is none."""
        return self._last_ms[: self.slots]

    @property
    def nbytes_per_slot(self) -> int:
        """Bytes of one slot, everything included."""
        host = (self._vectors, self._mean, self._m2, self._count, self._last_ms)
        return self._state_bytes() + sum(int(array[0].nbytes) for array in host)

    def add_items(self, vectors: Float32s) -> int:
        """Add items by the vectors (items, d) that they are read by; returns the version row of the first of them."""
        first, rows = self._item_rows, self._item_rows + len(vectors)
        if rows == first:
            # the table is the version's own until there is something to add, and is not written to
            return first
        if rows > self._table_rows:
            self._table_rows = max(rows, 2 * first)
            self._grow_table(first, self._table_rows)
        self._write_items(first, vectors)
        self._item_rows = rows
        return first

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
        slots, starts, lengths = _longs(slots), _longs(starts), _longs(lengths)
        items, times_ms = _longs(items), _longs(times_ms)
        unknown = self.weights.items
        if not _in_range(slots, starts, lengths, items, self.slots, unknown, self._item_rows, len(times_ms)):
            raise InputError(
                f"slots must be in 0..{self.slots - 1}, item rows in 0..{unknown} or those of added items, "
                "runs inside the events"
            )
        self._advance(slots, starts, lengths, np.asarray(resets, dtype=np.bool_), items, times_ms)

    def query(self, slots: ArrayLike, now_ms: ArrayLike) -> Float32s:
        """Vectors (R, d) for queries at ``now_ms`` (R, or one for all), the gap clipped at ``weights.gap_clip_s``.

        Equal to ``vectors[slots]`` when the version has no query time.
        """
        slots = _longs(slots)
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
    def _advance(
        self, slots: Int64s, starts: Int64s, lengths: Int64s, resets: Bools, items: Int64s, times_ms: Int64s
    ) -> None:
        """Do what `advance` says, with arrays in range."""

    @abstractmethod
    def _grow_table(self, used: int, rows: int) -> None:
        """Make room for ``rows`` item vectors, keeping the first ``used``."""

    @abstractmethod
    def _write_items(self, first: int, vectors: Float32s) -> None:
        """Write item vectors from row ``first`` on."""

    @abstractmethod
    def _like(self, slots: int) -> Self:
        """Return an empty slab of this kind, under the same version, that keeps float32."""

    @abstractmethod
    def _state_bytes(self) -> int:
        """Bytes of the scan states and windows of one slot."""


def _longs(values: ArrayLike) -> Int64s:
    """Return the values as int64 without gaps between them."""
    return np.ascontiguousarray(values, dtype=np.int64)


@jit
def _in_range(
    slots: Any, starts: Any, lengths: Any, items: Any, slot_count: int, unknown: int, rows: int, times: int
) -> bool:
    if not (slots.shape[0] == starts.shape[0] == lengths.shape[0] and items.shape[0] == times):
        return False
    for i in range(slots.shape[0]):
        if slots[i] < 0 or slots[i] >= slot_count:
            return False
        if starts[i] < 0 or lengths[i] < 0 or starts[i] + lengths[i] > items.shape[0]:
            return False
        for j in range(starts[i], starts[i] + lengths[i]):
            # the row after the unknown item is the start token's, which no event has
            if items[j] < 0 or items[j] == unknown + 1 or items[j] >= rows:
                return False
    return True
