"""Scalar functions that the compiler can turn into vector instructions (float32), for the numba kernels.

The mathematical library's exp is a call per value; this one is the Cephes polynomial with the exponent set by its bits,
relative error below 2e-7, values beyond +-87 clamped.
"""

from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]  # no types are published
from numba import njit, types
from numba.extending import intrinsic

__all__ = ["exp", "sigmoid", "softplus"]


@intrinsic
def _float_of_bits(_typing: Any, _bits: Any) -> Any:
    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.int32), generate


@njit(cache=True, nogil=True, inline="always")
def exp(x: Any) -> Any:
    """e to the ``x``, float32."""
    x = min(max(x, np.float32(-87.0)), np.float32(87.0))
    # nearest power of two by truncating a positive number, then the rest in two parts of ln 2
    k = np.int32(x * np.float32(1.44269504088896341) + np.float32(128.5)) - np.int32(128)
    f = np.float32(k)
    r = x - f * np.float32(0.693359375) + f * np.float32(2.12194440e-4)
    p = np.float32(1.9875691500e-4)
    p = p * r + np.float32(1.3981999507e-3)
    p = p * r + np.float32(8.3334519073e-3)
    p = p * r + np.float32(4.1665795894e-2)
    p = p * r + np.float32(1.6666665459e-1)
    p = p * r + np.float32(5.0000001201e-1)
    p = p * r * r + r + np.float32(1.0)
    power: Any = _float_of_bits
    return p * power(np.int32((k + np.int32(127)) << np.int32(23)))


@njit(cache=True, nogil=True, inline="always")
def sigmoid(x: Any) -> Any:
    """The logistic function, float32."""
    return np.float32(1.0) / (np.float32(1.0) + exp(-x))


@njit(cache=True, nogil=True)
def softplus(x: Any) -> Any:
    """log(1 + e^x), float32; ``x`` itself above 20."""
    return x if x > np.float32(20.0) else np.float32(np.log1p(np.exp(x)))
