"""Row passes of training between matrix products: dropout, residual sums, norms, the feed-forward's activation.

Dropout keeps no masks: a value is dropped if a hash of (key, row, column) falls below a threshold, so that the backward
pass finds out again what the forward pass did. The hash is a 32-bit finaliser by multiplication and shifts.
"""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ..jit import fast_jit, jit

__all__ = ["add_norm", "add_norm_grad", "dropout_keys", "dropout_mask", "hardswish", "hardswish_grad", "threshold"]


def threshold(rate: float) -> np.uint32:
    """Return the hash below which a value is dropped at ``rate``, at least 0 and below 1."""
    return np.uint32(round(rate * 2**32))


@njit(nogil=True, inline="always")
def _mixed(x: Any) -> Any:
    x = np.uint32((x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D))
    x = np.uint32((x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B))
    return np.uint32(x ^ (x >> np.uint32(16)))


@njit(nogil=True, inline="always")
def _row_key(key: Any, t: Any) -> Any:
    return _mixed(np.uint32(key + np.uint32(t) * np.uint32(0x9E3779B1)))


@njit(nogil=True, inline="always")
def _kept(row_key: Any, c: Any, below: Any, scale: Any) -> Any:
    # what a value is multiplied by
    bits = _mixed(np.uint32(row_key + np.uint32(c) * np.uint32(0x9E3779B1)))
    return scale if bits >= below else np.float32(0.0)


@jit
def _fill_mask(key: Any, below: Any, scale: Any, mask: Any) -> None:
    for t in range(mask.shape[0]):
        row_key = _row_key(key, t)
        for c in range(mask.shape[1]):
            mask[t, c] = _kept(row_key, c, below, scale)


def dropout_mask(key: np.uint32, rows: int, columns: int, rate: float) -> NDArray[np.float32]:
    """Return what dropout at ``rate`` with ``key`` multiplies values (rows, columns) by: 0 or 1 / (1 - rate)."""
    mask = np.empty((rows, columns), np.float32)
    _fill_mask(key, threshold(rate), np.float32(1 / (1 - rate)), mask)
    return mask


@fast_jit
def add_norm(
    product: Any,
    bias: Any,
    other: Any,
    residual: bool,
    key: Any,
    below: Any,
    scale: Any,
    weight: Any,
    shift: Any,
    eps: Any,
    centred: Any,
    spread: Any,
    out: Any,
) -> None:
    """Set ``out`` to LN(dropout(product + bias) + other), all (T, d); ``other`` only if ``residual``.

    ``centred`` (T, d) gets the normalised rows and ``spread`` (T) their inverse deviations, for `add_norm_grad`.
    """
    rows, d = product.shape
    size = np.float32(d)
    keep = np.float32(1.0) if residual else np.float32(0.0)
    line = np.empty(d, np.float32)
    for t in range(rows):
        source, beside = product[t], other[t]
        if below > np.uint32(0):
            row_key = _row_key(key, t)
            for c in range(d):
                line[c] = (source[c] + bias[c]) * _kept(row_key, c, below, scale) + keep * beside[c]
        else:
            for c in range(d):
                line[c] = source[c] + bias[c] + keep * beside[c]
        total = np.float32(0.0)
        for c in range(d):
            total += line[c]
        mean = total / size
        square = np.float32(0.0)
        for c in range(d):
            square += (line[c] - mean) * (line[c] - mean)
        inverse = np.float32(1.0) / np.sqrt(square / size + eps)
        spread[t] = inverse
        normal, result = centred[t], out[t]
        for c in range(d):
            line[c] = (line[c] - mean) * inverse
        for c in range(d):
            normal[c] = line[c]
            result[c] = line[c] * weight[c] + shift[c]


@fast_jit
def add_norm_grad(
    grad: Any,
    centred: Any,
    spread: Any,
    weight: Any,
    key: Any,
    below: Any,
    scale: Any,
    other_grad: Any,
    product_grad: Any,
    sums: Any,
) -> None:
    """Turn ``grad`` (T, d) of `add_norm`'s result into those of ``other`` and of ``product``, both (T, d).

    ``sums`` (3, d) gets the gradients of the norm's weight and shift and of the bias.
    """
    rows, d = grad.shape
    size = np.float32(d)
    line = np.empty(d, np.float32)
    of_weight, of_shift, of_bias = sums[0], sums[1], sums[2]
    of_weight[:] = np.float32(0.0)
    of_shift[:] = np.float32(0.0)
    of_bias[:] = np.float32(0.0)
    for t in range(rows):
        given, normal = grad[t], centred[t]
        mean, along = np.float32(0.0), np.float32(0.0)
        for c in range(d):
            g = given[c] * weight[c]
            mean += g
            along += g * normal[c]
        mean /= size
        along /= size
        inverse = spread[t]
        for c in range(d):
            of_weight[c] += given[c] * normal[c]
            of_shift[c] += given[c]
        for c in range(d):
            line[c] = inverse * (given[c] * weight[c] - mean - normal[c] * along)
        row = other_grad[t]
        for c in range(d):
            row[c] = line[c]
        if below > np.uint32(0):
            row_key = _row_key(key, t)
            for c in range(d):
                line[c] *= _kept(row_key, c, below, scale)
        row = product_grad[t]
        for c in range(d):
            row[c] = line[c]
            of_bias[c] += line[c]


@fast_jit
def hardswish(product: Any, bias: Any, key: Any, below: Any, scale: Any, out: Any) -> None:
    """Add ``bias`` to ``product`` (T, m) in place and set ``out`` (T, m) to dropout(hardswish(product))."""
    rows, size = product.shape
    for t in range(rows):
        row, result = product[t], out[t]
        for c in range(size):
            row[c] += bias[c]
        for c in range(size):
            v = row[c]
            result[c] = v * min(max(v + np.float32(3.0), np.float32(0.0)), np.float32(6.0)) * np.float32(1.0 / 6.0)
        if below > np.uint32(0):
            row_key = _row_key(key, t)
            for c in range(size):
                result[c] *= _kept(row_key, c, below, scale)


@fast_jit
def hardswish_grad(grad: Any, product: Any, key: Any, below: Any, scale: Any, bias_grad: Any) -> None:
    """Turn ``grad`` (T, m) of `hardswish`'s result into that of ``product``, in place; ``bias_grad`` (m) is its sum."""
    rows, size = product.shape
    bias_grad[:] = np.float32(0.0)
    for t in range(rows):
        row, given = product[t], grad[t]
        for c in range(size):
            v = row[c]
            slope = v * np.float32(1.0 / 3.0) + np.float32(0.5)
            slope = slope if v > np.float32(-3.0) else np.float32(0.0)
            given[c] *= slope if v < np.float32(3.0) else np.float32(1.0)
        if below > np.uint32(0):
            row_key = _row_key(key, t)
            for c in range(size):
                given[c] *= _kept(row_key, c, below, scale)
        for c in range(size):
            bias_grad[c] += given[c]


def dropout_keys(seed: int) -> tuple[np.uint32, ...]:
    """Return three independent keys of a seed."""
    return tuple(np.random.SeedSequence(seed).generate_state(3, np.uint32))
