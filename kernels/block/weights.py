"""The weights of all layers as the fused step reads them."""

from typing import NamedTuple

import numpy as np

from ..arrays import Float32s
from .product import Panels

__all__ = ["LayerWeights", "PackedWeights"]


class LayerWeights(NamedTuple):
    """All layers stacked; float32, C-contiguous.

    Letters: k layers, d width, h heads, p channels per head, e = h p, n state size, w = e + 2 n convolved channels,
    K filter width, r = 2 e + 2 n + h projected columns, m hidden units of the time function.
    """

    in_weight: Float32s  # (k, d, r): columns z, x, B, C, dt
    in_bias: Float32s  # (k, r)
    conv_weight: Float32s  # (k, K, w), oldest tap first
    conv_bias: Float32s  # (k, w)
    time_in: Float32s  # (k, 3, m)
    time_in_bias: Float32s  # (k, m)
    time_out: Float32s  # (k, m, 2 h): gamma, beta
    time_out_bias: Float32s  # (k, 2 h)
    dt_bias: Float32s  # (k, h)
    A: Float32s  # (k, h), negative
    D: Float32s  # (k, h)
    gate_norm: Float32s  # (k, e)
    out_weight: Float32s  # (k, e, d)
    out_bias: Float32s  # (k, d)
    norm_weight: Float32s  # (k, d)
    norm_bias: Float32s  # (k, d)
    ffn_in: Float32s  # (k, d, 4 d)
    ffn_in_bias: Float32s  # (k, 4 d)
    ffn_out: Float32s  # (k, 4 d, d)
    ffn_out_bias: Float32s  # (k, d)
    ffn_norm_weight: Float32s  # (k, d)
    ffn_norm_bias: Float32s  # (k, d)


class PackedWeights(NamedTuple):
    """All layers as the numba step reads them; letters as in ``LayerWeights``."""

    project: Panels  # d -> z, x, B, C, dt
    time_in: Panels  # 3 -> m
    time_out: Panels  # m -> gamma, beta
    out: Panels  # e -> d
    ffn_in: Panels  # d -> 4 d
    ffn_out: Panels  # 4 d -> d
    conv_weight: Float32s  # (k, K, w), oldest tap first
    conv_bias: Float32s  # (k, w)
    dt_bias: Float32s  # (k, h)
    A: Float32s  # (k, h), negative
    D: Float32s  # (k, h)
    gate_norm: Float32s  # (k, e)
    norm_weight: Float32s  # (k, d)
    norm_bias: Float32s  # (k, d)
    ffn_norm_weight: Float32s  # (k, d)
    ffn_norm_bias: Float32s  # (k, d)

    @classmethod
    def of(cls, weights: LayerWeights) -> "PackedWeights":
        """Copy all, the linear maps in panels, so that the step is compiled for one kind of arrays only."""
        w = weights
        time_in, ffn_in = Panels.of(w.time_in, w.time_in_bias), Panels.of(w.ffn_in, w.ffn_in_bias)
        return cls(
            Panels.of(w.in_weight, w.in_bias),
            time_in,
            Panels.of(w.time_out, w.time_out_bias, time_in.outputs),
            Panels.of(w.out_weight, w.out_bias),
            ffn_in,
            Panels.of(w.ffn_out, w.ffn_out_bias, ffn_in.outputs),
            *(np.array(getattr(w, name)) for name in cls._fields[6:]),
        )
