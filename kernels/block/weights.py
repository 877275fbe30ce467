"""The weights of all layers as the fused step reads them."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["LayerWeights"]

Array = NDArray[np.float32]


class LayerWeights(NamedTuple):
    """All layers stacked; float32, C-contiguous.

    Letters: k layers, d width, h heads, p channels per head, e = h p, n state size, w = e + 2 n convolved channels,
    K filter width, r = 2 e + 2 n + h projected columns, m hidden units of the time function.
    """

    in_weight: Array  # (k, d, r): columns z, x, B, C, dt
    in_bias: Array  # (k, r)
    conv_weight: Array  # (k, K, w), oldest tap first
    conv_bias: Array  # (k, w)
    time_in: Array  # (k, 3, m)
    time_in_bias: Array  # (k, m)
    time_out: Array  # (k, m, 2 h): gamma, beta
    time_out_bias: Array  # (k, 2 h)
    dt_bias: Array  # (k, h)
    A: Array  # (k, h), negative
    D: Array  # (k, h)
    gate_norm: Array  # (k, e)
    out_weight: Array  # (k, e, d)
    out_bias: Array  # (k, d)
    norm_weight: Array  # (k, d)
    norm_bias: Array  # (k, d)
    ffn_in: Array  # (k, d, 4 d)
    ffn_in_bias: Array  # (k, 4 d)
    ffn_out: Array  # (k, 4 d, d)
    ffn_out_bias: Array  # (k, d)
    ffn_norm_weight: Array  # (k, d)
    ffn_norm_bias: Array  # (k, d)
