"""The slab of user states: the one module of the engine that changes arrays in place.

A slot holds what the model keeps of one user: per layer the scan's state and the convolution's window, the user vector
after the last event, and the running statistics of the gaps. Which user has which slot is somebody else's business.
"""

from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from ..kernels.block import PackedWeights, Scratch, aligned, layers_step
from ..kernels.jit import jit
from .errors import InputError, VersionError
from .model.streaming import StreamingModel
from .model.time import FEATURES, gap_step, query_features
from .model.weights import StepWeights

__all__ = ["StateSlab"]

Longs = NDArray[np.int64]
Floats = NDArray[np.float32]

# events that go through the layers together: their work arrays stay in the second-level cache
_BLOCK = 192
# events from which a second thread is worth its call
_PART = 256
_PARITY = 1e-3
# numpy has no bfloat16: its bits are kept
_STORED = {"float32": np.float32, "bfloat16": np.uint16}


class _Work(NamedTuple):
    # what one thread works with
    scratch: Scratch
    a: Floats
    phi: Floats


class StateSlab:
    """States of ``slots`` users under one version; not thread-safe, its compiled code releases the interpreter's lock.

    ``dtype`` is how scan states and windows are kept: ``float32``, or ``bfloat16`` at half the memory, every event
    rounding them anew. Memory of slots that were never used is not touched. Calls with many events are shared among
    ``threads`` threads, which changes no result. Letters as in ``model/streaming.py``.
    """

    def __init__(self, weights: StepWeights, slots: int, dtype: str = "float32", *, threads: int = 1) -> None:
        if dtype not in _STORED:
            raise InputError(f"states are kept as {' or '.join(_STORED)}, got {dtype!r}")
        config = weights.config
        e = config.heads * config.head_dim
        w = e + 2 * config.d_state
        # one slot more than asked for: the last holds the state after the start token, which every anchor copies
        rows = slots + 1
        self.weights = weights
        self.slots = slots
        # the version's items, then those that were added to it
        self._table: Floats = weights.read_table
        self._rows = len(self._table)
        self.state: NDArray[Any] = aligned((rows, config.layers, config.d_state, e), _STORED[dtype])
        self.window: NDArray[Any] = aligned((rows, config.layers, config.d_conv - 1, w), _STORED[dtype])
        self._vectors: Floats = aligned((rows, config.d_model), np.float32)
        self._mean = np.zeros(rows)
        self._m2 = np.zeros(rows)
        self._count: Longs = np.zeros(rows, np.int64)
        self._last_ms: Longs = np.zeros(rows, np.int64)
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
        arrays = (self.state, self.window, self._vectors, self._mean, self._m2, self._count, self._last_ms)
        return sum(array[0].nbytes for array in arrays)

    def add_items(self, vectors: Floats) -> int:
        """Add items by the vectors (items, d) that they are read by; returns the version row of the first of them."""
        first, rows = self._rows, self._rows + len(vectors)
        if rows > len(self._table):
            table = np.empty((max(rows, 2 * first), vectors.shape[1]), np.float32)
            table[:first] = self._table[:first]
            self._table = table
        self._table[first:rows] = vectors
        self._rows = rows
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
        A slot's first use must be a reset. Raises ``InputError`` for rows or slots out of range; nothing is changed
        then.
        """
        slots, starts, lengths = _longs(slots), _longs(starts), _longs(lengths)
        items, times_ms = _longs(items), _longs(times_ms)
        offsets = np.zeros(len(slots) + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        unknown = self.weights.items
        if not _in_range(slots, starts, lengths, items, self.slots, unknown, self._rows, len(times_ms)):
            raise InputError(
                f"slots must be in 0..{self.slots - 1}, item rows in 0..{unknown} or those of added items, "
                "runs inside the events"
            )
        _reset(
            slots,
            np.asarray(resets, dtype=np.bool_),
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

    def query(self, slots: ArrayLike, now_ms: ArrayLike) -> Floats:
        """Vectors (R, d) for queries at ``now_ms`` (R, or one for all), the gap clipped at ``weights.gap_clip_s``.

        Equal to ``vectors[slots]`` when the version has no query time.
        """
        slots = _longs(slots)
        vectors = self._vectors[slots]
        query = self.weights.query
        if query is None:
            return vectors
        now = np.broadcast_to(np.asarray(now_ms, dtype=np.int64), slots.shape)
        gap_ms = np.minimum(now - self._last_ms[slots], int(self.weights.gap_clip_s * 1000.0))
        phi = np.empty((len(slots), FEATURES), np.float32)
        query_features(gap_ms, self._count[slots], self._mean[slots], self._m2[slots], phi)
        return query.modulate(vectors, phi)

    def check(self, model: StreamingModel | None = None) -> None:
        """Raise ``VersionError`` if the start state is not finite or, given the model, if step and scan disagree.

        The slab's own slots are not touched.
        """
        if not np.isfinite(self._vectors[self.slots]).all():
            raise VersionError("the version's start vector is not finite")
        if model is None:
            return
        rng = np.random.default_rng(0)
        items = rng.integers(0, self.weights.items + 1, (4, 70))
        times_ms = rng.integers(0, 86_400_000, (4, 70)).cumsum(axis=1)
        trial = StateSlab(self.weights, 4)
        trial.advance(
            np.arange(4), np.arange(4) * 70, np.full(4, 70), np.ones(4, bool), items.ravel(), times_ms.ravel()
        )
        with torch.no_grad():
            want = model(torch.from_numpy(items), torch.from_numpy(times_ms))[:, -1].double().numpy()
        worst = float(np.abs(trial.vectors - want).max() / max(1.0, np.abs(want).max()))
        if not worst <= _PARITY:
            raise VersionError(f"step and scan of the version disagree by {worst:.2g} on the fixed batch")

    def _share(self, parts: int, slots: Longs, starts: Longs, offsets: Longs, items: Longs, times_ms: Longs) -> None:
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

    def _consume(self, work: _Work, slots: Longs, starts: Longs, offsets: Longs, items: Longs, times_ms: Longs) -> None:
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

    def _block(self, work: _Work, slots: Longs, starts: Longs, offsets: Longs, items: Longs, times_ms: Longs) -> None:
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


def _longs(values: ArrayLike) -> Longs:
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
