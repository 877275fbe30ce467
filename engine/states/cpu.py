"""Slab of user states on the CPU, changed in place by the fused step.

A slot holds what the model keeps of one user: per layer the scan's state and the convolution's window, the user vector
after the last event, and the running statistics of the gaps. Which user has which slot is kept in ``residency.py``.
"""

from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...kernels.arrays import Bools, Float32s, Int64s
from ...kernels.block import PackedWeights, Scratch, aligned, layers_step
from ...kernels.jit import jit
from ..errors import InputError
from ..model.time import FEATURES, gap_step
from ..model.weights import StepWeights
from .slab import Slab

__all__ = ["StateSlab"]


# events that go through the layers together: their work arrays stay in the second-level cache
_BLOCK = 192
# events from which a second thread is worth its call
_PART = 256
# numpy has no bfloat16: its bits are kept
_STORED = {"float32": np.float32, "bfloat16": np.uint16}


class _Work(NamedTuple):
    # what one thread works with
    scratch: Scratch
    a: Float32s
    phi: Float32s


class StateSlab(Slab):
    """States of ``slots`` users under one version; not thread-safe, its compiled code releases the interpreter's lock.

    ``dtype`` is how scan states and windows are kept: ``float32``, or ``bfloat16`` at half the memory, every event
    rounding them again. Memory of slots that were never used is not touched. Calls with many events are shared among
    ``threads`` threads, which changes no result. Letters as in ``model/streaming.py``.
    """

    def __init__(self, weights: StepWeights, slots: int, dtype: str = "float32", *, threads: int = 1) -> None:
        if dtype not in _STORED:
            raise InputError(f"states are kept as {' or '.join(_STORED)}, got {dtype!r}")
        config = weights.config
        e = config.heads * config.head_dim
        w = e + 2 * config.d_state
        # the slot after those asked for is the start token's
        rows = slots + 1
        super().__init__(weights, slots, aligned((rows, config.d_model), np.float32))
        # the version's items, then those that were added to it
        self._table: Float32s = weights.read_table
        self.state: NDArray[Any] = aligned((rows, config.layers, config.d_state, e), _STORED[dtype])
        self.window: NDArray[Any] = aligned((rows, config.layers, config.d_conv - 1, w), _STORED[dtype])
        self._layers = PackedWeights.of(weights.layers)
        self._work = [
            _Work(Scratch.of(self._layers, _BLOCK), aligned((_BLOCK, config.d_model)), aligned((_BLOCK, FEATURES)))
            for _ in range(threads)
        ]
        # starts its threads when they are first needed, ends them with the slab
        self._pool = ThreadPoolExecutor(max(1, threads - 1), "states")
        start, none = np.array([slots]), np.zeros(1, np.int64)
        self._consume(self._work[0], start, none, np.array([0, 1]), np.array([weights.items + 1]), none)
        self._count[slots] = 0

    def _advance(
        self, slots: Int64s, starts: Int64s, lengths: Int64s, resets: Bools, items: Int64s, times_ms: Int64s
    ) -> None:
        offsets = np.zeros(len(slots) + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        _reset(
            slots,
            resets,
            self.state,
            self.window,
            self._vectors,
            self._mean,
            self._m2,
            self._count,
            self._last_ms,
        )
        total = int(offsets[-1])
        parts = max(1, min(len(self._work), total // _PART))
        if parts == 1:
            self._consume(self._work[0], slots, starts, offsets, items, times_ms)
        else:
            self._share(parts, slots, starts, offsets, items, times_ms)

    def _grow_table(self, used: int, rows: int) -> None:
        table = np.empty((rows, self._table.shape[1]), np.float32)
        table[:used] = self._table[:used]
        self._table = table

    def _write_items(self, first: int, vectors: Float32s) -> None:
        self._table[first : first + len(vectors)] = vectors

    def _like(self, slots: int) -> "StateSlab":
        return StateSlab(self.weights, slots)

    def _state_bytes(self) -> int:
        return sum(array[0].nbytes for array in (self.state, self.window))

    def _share(
        self, parts: int, slots: Int64s, starts: Int64s, offsets: Int64s, items: Int64s, times_ms: Int64s
    ) -> None:
        # whole runs per thread, about as many events each
        cuts = np.searchsorted(offsets, np.linspace(0, offsets[-1], parts + 1)[1:-1]).tolist()
        bounds = [0, *cuts, len(slots)]

        def consume(work: _Work, first: int, end: int) -> None:
            part = offsets[first : end + 1] - offsets[first]
            self._consume(work, slots[first:end], starts[first:end], part, items, times_ms)

        *others, mine = zip(self._work, bounds, bounds[1:], strict=False)
        waiting = [self._pool.submit(consume, *other) for other in others]
        try:
            consume(*mine)
        finally:
            wait(waiting)
        for done in waiting:
            done.result()

    def _consume(
        self, work: _Work, slots: Int64s, starts: Int64s, offsets: Int64s, items: Int64s, times_ms: Int64s
    ) -> None:
        total = int(offsets[-1])
        if total <= _BLOCK:
            self._block(work, slots, starts, offsets, items, times_ms)
            return
        for begin in range(0, total, _BLOCK):
            end = min(begin + _BLOCK, total)
            # the runs that have events in this block, cut to it
            first = int(np.searchsorted(offsets, begin, "right")) - 1
            last = int(np.searchsorted(offsets, end, "left"))
            cut = np.clip(offsets[first : last + 1], begin, end)
            source = starts[first:last] + (cut[:-1] - offsets[first:last])
            self._block(work, slots[first:last], source, cut - begin, items, times_ms)

    def _block(
        self, work: _Work, slots: Int64s, starts: Int64s, offsets: Int64s, items: Int64s, times_ms: Int64s
    ) -> None:
        events = int(offsets[-1])
        if events == 0:
            return
        weights = self.weights
        a, phi = work.a[:events], work.phi[:events]
        _gather(
            slots,
            starts,
            offsets,
            items,
            times_ms,
            self._table,
            self._mean,
            self._m2,
            self._count,
            self._last_ms,
            a,
            phi,
        )
        layers_step(
            self._layers,
            a,
            phi,
            slots,
            offsets,
            self.state,
            self.window,
            work.scratch,
            weights.config.layers > 1,
            np.float32(weights.norm_eps),
            np.float32(weights.ffn_eps),
        )
        _scatter(slots, offsets, a, self._vectors)


@jit
def _reset(
    slots: Any, resets: Any, state: Any, window: Any, vectors: Any, mean: Any, m2: Any, count: Any, last_ms: Any
) -> None:
    start = state.shape[0] - 1
    for i in range(slots.shape[0]):
        if resets[i]:
            slot = slots[i]
            state[slot] = state[start]
            window[slot] = window[start]
            vectors[slot] = vectors[start]
            mean[slot] = 0.0
            m2[slot] = 0.0
            count[slot] = 0
            last_ms[slot] = 0


@jit
def _gather(
    slots: Any,
    source: Any,
    offsets: Any,
    items: Any,
    times_ms: Any,
    table: Any,
    mean: Any,
    m2: Any,
    count: Any,
    last_ms: Any,
    a: Any,
    phi: Any,
) -> None:
    # read the events' vectors and the features of their gaps, and move the statistics of the slots on
    for i in range(slots.shape[0]):
        slot = slots[i]
        shift = source[i] - offsets[i]
        for t in range(offsets[i], offsets[i + 1]):
            now = times_ms[t + shift]
            f0, f1, f2, mean[slot], m2[slot] = gap_step(now - last_ms[slot], count[slot], mean[slot], m2[slot])
            phi[t, 0], phi[t, 1], phi[t, 2] = f0, f1, f2
            count[slot] += 1
            last_ms[slot] = now
            a[t] = table[items[t + shift]]


@jit
def _scatter(slots: Any, offsets: Any, a: Any, vectors: Any) -> None:
    row = 0
    for i in range(slots.shape[0]):
        if offsets[i + 1] > offsets[i]:
            vectors[slots[i]] = a[row]
            row += 1
