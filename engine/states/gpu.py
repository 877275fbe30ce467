"""Slab of user states on a GPU, advanced by the fused step in Triton.

Scan states and windows lie on the device. Vectors, and the statistics of the gaps, are the host's: retrieval reads the
one, and a few numbers per event are cheaper to make than to ask for. Importing this needs the extra ``gpu``.
"""

from typing import Any

import numpy as np
import torch

from ...kernels.arrays import Bools, Float32s, Int64s
from ...kernels.block.triton import layers_step_triton, weights_to
from ...kernels.jit import jit
from ..errors import InputError, VersionError
from ..model.time import FEATURES, gap_step
from ..model.weights import StepWeights
from .slab import Slab

__all__ = ["DeviceSlab"]


# events that go through the layers together: their work arrays take some KiB each
_BLOCK = 1 << 16
_STORED = {"float32": torch.float32, "bfloat16": torch.bfloat16}
# the filter that the kernel is written for
_TAPS = 4


class DeviceSlab(Slab):
    """States of ``slots`` users under one version on ``device``.

    All memory is taken at once. Calls wait for the device, since their vectors are copied to the host. Raises
    ``InputError`` for another ``dtype`` than float32 or bfloat16, ``VersionError`` for a version with another width of
    the convolution than 4.
    """

    # a few events are enough for an interpreted kernel
    trial = (2, 24)

    def __init__(self, weights: StepWeights, slots: int, dtype: str = "float32", *, device: torch.device) -> None:
        if dtype not in _STORED:
            raise InputError(f"states are kept as {' or '.join(_STORED)}, got {dtype!r}")
        config = weights.config
        if config.d_conv != _TAPS:
            raise VersionError(f"states on a GPU need model.d_conv = {_TAPS}, the version has {config.d_conv}")
        e = config.heads * config.head_dim
        w = e + 2 * config.d_state
        # the slot after those asked for is the start token's
        rows = slots + 1
        super().__init__(weights, slots, np.zeros((rows, config.d_model), np.float32))
        self._device = device
        self._layers = weights_to(weights.layers, device)
        # the version's items, then those that were added to it
        self._table = torch.tensor(weights.read_table, device=device)
        kept = _STORED[dtype]
        self.state = torch.zeros((rows, config.layers, config.d_state, e), dtype=kept, device=device)
        self.window = torch.zeros((rows, config.layers, config.d_conv - 1, w), dtype=kept, device=device)
        self._consume(np.array([slots]), np.array([0, 1]), np.array([weights.items + 1]), np.zeros(1, np.int64))
        self._count[slots] = 0

    def _advance(
        self, slots: Int64s, starts: Int64s, lengths: Int64s, resets: Bools, items: Int64s, times_ms: Int64s
    ) -> None:
        before = np.cumsum(lengths) - lengths
        # where the events of all runs stand, run after run
        place = np.repeat(starts - before, lengths) + np.arange(int(lengths.sum()))
        self._reset(slots[resets])
        busy = lengths > 0
        slots, offsets = slots[busy], np.append(0, np.cumsum(lengths[busy]))
        begin = 0
        while begin < len(slots):
            # whole runs, one at least
            fit = int(np.searchsorted(offsets, offsets[begin] + _BLOCK, "right")) - 1
            end = max(begin + 1, fit)
            part = place[offsets[begin] : offsets[end]]
            self._consume(slots[begin:end], offsets[begin : end + 1] - offsets[begin], items[part], times_ms[part])
            begin = end

    def _grow_table(self, used: int, rows: int) -> None:
        table = self._table.new_empty((rows, self._table.shape[1]))
        table[:used] = self._table[:used]
        self._table = table

    def _write_items(self, first: int, vectors: Float32s) -> None:
        self._table[first : first + len(vectors)] = torch.tensor(vectors, device=self._device)

    def _like(self, slots: int) -> "DeviceSlab":
        return DeviceSlab(self.weights, slots, device=self._device)

    def _state_bytes(self) -> int:
        return sum(int(part[0].numel()) * part.element_size() for part in (self.state, self.window))

    def _reset(self, slots: Int64s) -> None:
        if not len(slots):
            return
        index = torch.from_numpy(slots).to(self._device)
        # copies: a row may not be written from itself
        self.state[index] = self.state[self.slots].clone()
        self.window[index] = self.window[self.slots].clone()
        self._vectors[slots] = self._vectors[self.slots]
        for statistic in (self._mean, self._m2, self._count, self._last_ms):
            statistic[slots] = 0

    def _consume(self, slots: Int64s, offsets: Int64s, items: Int64s, times_ms: Int64s) -> None:
        """Take the events of distinct slots, each of which has one at least, through the layers."""
        phi = np.empty((len(items), FEATURES), np.float32)
        _gaps(slots, offsets, times_ms, self._mean, self._m2, self._count, self._last_ms, phi)
        sent = (torch.from_numpy(part).to(self._device, non_blocking=True) for part in (items, phi, slots, offsets))
        rows, features, index, bounds = sent
        single = len(items) == len(slots)
        out = layers_step_triton(
            self._layers,
            self._table[rows],
            features,
            index,
            None if single else bounds,
            self.state,
            self.window,
            residual=self.weights.config.layers > 1,
            norm_eps=self.weights.norm_eps,
            ffn_eps=self.weights.ffn_eps,
        )
        self._vectors[slots] = (out if single else out[bounds[1:] - 1]).cpu().numpy()


@jit
def _gaps(slots: Any, offsets: Any, times_ms: Any, mean: Any, m2: Any, count: Any, last_ms: Any, phi: Any) -> None:
    # the features of the events' gaps; moves the statistics of the slots on
    for i in range(slots.shape[0]):
        slot = slots[i]
        for t in range(offsets[i], offsets[i + 1]):
            gap_ms = times_ms[t] - last_ms[slot]
            f0, f1, f2, mean[slot], m2[slot] = gap_step(gap_ms, count[slot], mean[slot], m2[slot])
            phi[t, 0], phi[t, 1], phi[t, 2] = f0, f1, f2
            count[slot] += 1
            last_ms[slot] = times_ms[t]
