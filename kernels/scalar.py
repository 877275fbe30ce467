"""Scalar functions that the compiler can turn into vector instructions (float32), for the numba kernels.

``widen`` and ``narrow`` read and write a stored value: float32 as it is, bfloat16 by its bits in a uint16.

The mathematical library's exp is a call per value; this one is the Cephes polynomial with the exponent set by its bits,
relative error below 2e-7, values beyond +-87 clamped.
"""

from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]  # no types are published
from numba import njit, types
from numba.extending import intrinsic

from .jit import inline_jit

__all__ = ["exp", "narrow", "prefer_512_bit", "prefetch", "sigmoid", "softplus", "widen"]


@intrinsic
def _bits_to_float(_typing: Any, _bits: Any) -> Any:
    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.int32), generate


@intrinsic
def _widen(_typing: Any, stored: Any) -> Any:
    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        if stored == types.float32:
            return args[0]
        bits = builder.shl(builder.zext(args[0], ir.IntType(32)), ir.IntType(32)(16))
        return builder.bitcast(bits, ir.FloatType())

    return types.float32(stored), generate


@intrinsic
def _narrow(_typing: Any, _value: Any, like: Any) -> Any:
    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        if like == types.float32:
            return args[0]
        word = ir.IntType(32)
        bits = builder.bitcast(args[0], word)
        # to nearest, ties to even
        even = builder.and_(builder.lshr(bits, word(16)), word(1))
        rounded = builder.add(builder.add(bits, word(0x7FFF)), even)
        return builder.trunc(builder.lshr(rounded, word(16)), ir.IntType(16))

    return like(types.float32, like), generate


@intrinsic
def _prefer_512_bit(_typing: Any) -> Any:
    def generate(context: Any, builder: Any, _signature: Any, _args: Any) -> Any:
        # llvmlite's own list of attributes has no names with values
        set.add(builder.function.attributes, '"prefer-vector-width"="512"')
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def _prefetch_line(_typing: Any, array: Any, _index: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        view = context.make_array(signature.args[0])(context, builder, args[0])
        pointer = builder.bitcast(builder.gep(view.data, [args[1]]), ir.PointerType(ir.IntType(8)))
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [pointer.type, number, number, number])
        function = builder.module.declare_intrinsic("llvm.prefetch", [pointer.type], kind)
        builder.call(function, [pointer, number(0), number(2), number(1)])
        return context.get_dummy_value()

    return types.void(array, types.intp), generate


# numba fills in the first argument of an intrinsic, which its types do not say
_float_of_bits: Any = _bits_to_float
# the line of an element, counted flat
_prefetch: Any = _prefetch_line
# widen(v): the float32 that a stored value stands for; narrow(v, like): float32 v as it is stored where like was read
widen: Any = _widen
narrow: Any = _narrow
# prefer_512_bit(): lets the calling function use the longest vectors of the processor, which compilers avoid
prefer_512_bit: Any = _prefer_512_bit


@inline_jit
def prefetch(array: Any, begin: int, end: int) -> None:
    """Ask for cache lines ``begin`` to ``end`` of a C-contiguous array; lines behind its end are ignored.

    Lines are counted in an order that takes four places of the array in turn: the processor's own prefetching follows
    each of them, which brings twice as much per second as one place does.
    """
    line = 64 // array.itemsize
    lines = array.size // line
    quarter = (lines + 3) // 4
    for i in range(begin, min(end, lines)):
        _prefetch(array, (i % 4 * quarter + i // 4) * line)


@njit(nogil=True, inline="always")
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
    return p * _float_of_bits(np.int32((k + np.int32(127)) << np.int32(23)))


@njit(nogil=True, inline="always")
def sigmoid(x: Any) -> Any:
    """The logistic function, float32."""
    return np.float32(1.0) / (np.float32(1.0) + exp(-x))


@njit(nogil=True, inline="always")
def softplus(x: Any) -> Any:
    """log(1 + e^x), float32, relative error below 3e-7: max(x, 0) + log1p(t), t = e^-|x|, by the series of artanh."""
    t = exp(-abs(x))
    s = t / (np.float32(2.0) + t)
    q = s * s
    p = np.float32(2.0 / 13.0)
    p = p * q + np.float32(2.0 / 11.0)
    p = p * q + np.float32(2.0 / 9.0)
    p = p * q + np.float32(2.0 / 7.0)
    p = p * q + np.float32(2.0 / 5.0)
    p = p * q + np.float32(2.0 / 3.0)
    p = p * q + np.float32(2.0)
    return max(x, np.float32(0.0)) + s * p
