"""The fused step (numba): matrix products over all events of a call, one walk over the states between them.

Events of one slot lie in a row and are consumed in order; the state of a slot is read and written where it lies.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ..scalar import exp, narrow, prefetch, sigmoid, softplus, widen
from ..ssd.step import scan_step
from .weights import LayerWeights

__all__ = ["Scratch", "layers_step"]

# up to this many events one compiled call is cheaper than a call per matrix product
_FEW = 4

Floats = NDArray[np.float32]
Longs = NDArray[np.int64]


class Scratch(NamedTuple):
    """Work arrays for at most T events; contents between calls mean nothing. Letters as in ``LayerWeights``."""

    projected: Floats  # (T, r)
    time: Floats  # (T, m)
    steps: Floats  # (T, h)
    keeps: Floats  # (T, 2 h)
    mixed: Floats  # (T, e)
    inner: Floats  # (T, 4 d)
    out: Floats  # (T, d)

    @classmethod
    def of(cls, weights: LayerWeights, events: int) -> "Scratch":
        """Allocate for ``events`` events."""
        _, d, r = weights.in_weight.shape
        _, m, twice_h = weights.time_out.shape
        e = weights.gate_norm.shape[1]
        columns = (r, m, twice_h // 2, twice_h, e, 4 * d, d)
        return cls(*(np.empty((events, size), np.float32) for size in columns))


def layers_step(
    weights: LayerWeights,
    a: Floats,
    phi: Floats,
    slots: Longs,
    offsets: Longs,
    state: NDArray[Any],
    window: NDArray[Any],
    scratch: Scratch,
    *,
    residual: bool,
    norm_eps: float,
    ffn_eps: float,
) -> None:
    """Consume T events of R distinct slots; ``a`` (T, d) holds the events' vectors and gets the last layer's output.

    ``phi`` (T, 3) gap features; events ``offsets[i]:offsets[i + 1]`` belong to ``slots[i]``, ``offsets`` (R + 1) from 0
    to T; ``state`` (slots, k, n, e) and ``window`` (slots, k, K - 1, w), float32 or bfloat16 as uint16, are advanced in
    place.
    """
    events = len(a)
    small, tiny = np.float32(norm_eps), np.float32(ffn_eps)
    if events <= _FEW:
        _few(weights, a, phi, slots, offsets, state, window, scratch, residual, small, tiny)
        return
    projected, time, steps, keeps, mixed, inner, out = (part[:events] for part in scratch)
    for k in range(len(weights.in_weight)):
        np.matmul(a, weights.in_weight[k], out=projected)
        np.matmul(phi, weights.time_in[k], out=time)
        _silu(time, weights.time_in_bias[k])
        np.matmul(time, weights.time_out[k], out=keeps)
        _steps(projected, keeps, weights.in_bias[k], weights.time_out_bias[k], weights.dt_bias[k], weights.A[k], steps)
        _mix(projected, steps, keeps, slots, offsets, k, state, window, weights, small, mixed)
        np.matmul(mixed, weights.out_weight[k], out=out)
        _add_norm(out, weights.out_bias[k], a, residual, weights.norm_weight[k], weights.norm_bias[k], small)
        np.matmul(a, weights.ffn_in[k], out=inner)
        _hardswish(inner, weights.ffn_in_bias[k])
        np.matmul(inner, weights.ffn_out[k], out=out)
        _add_norm(out, weights.ffn_out_bias[k], a, True, weights.ffn_norm_weight[k], weights.ffn_norm_bias[k], tiny)


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _few(
    weights: Any,
    a: Any,
    phi: Any,
    slots: Any,
    offsets: Any,
    state: Any,
    window: Any,
    scratch: Any,
    residual: bool,
    norm_eps: Any,
    ffn_eps: Any,
) -> None:
    # the same as layers_step in one compiled call: for a few events the calls cost more than the work
    events = a.shape[0]
    projected, time, steps = scratch.projected[:events], scratch.time[:events], scratch.steps[:events]
    keeps, mixed = scratch.keeps[:events], scratch.mixed[:events]
    inner, out = scratch.inner[:events], scratch.out[:events]
    w = weights
    for k in range(w.in_weight.shape[0]):
        _product(a, w.in_weight[k], projected)
        _product(phi, w.time_in[k], time)
        _silu(time, w.time_in_bias[k])
        _product(time, w.time_out[k], keeps)
        _steps(projected, keeps, w.in_bias[k], w.time_out_bias[k], w.dt_bias[k], w.A[k], steps)
        _mix(projected, steps, keeps, slots, offsets, k, state, window, w, norm_eps, mixed)
        _product(mixed, w.out_weight[k], out)
        _add_norm(out, w.out_bias[k], a, residual, w.norm_weight[k], w.norm_bias[k], norm_eps)
        _product(a, w.ffn_in[k], inner)
        _hardswish(inner, w.ffn_in_bias[k])
        _product(inner, w.ffn_out[k], out)
        _add_norm(out, w.ffn_out_bias[k], a, True, w.ffn_norm_weight[k], w.ffn_norm_bias[k], ffn_eps)


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _product(a: Any, weight: Any, out: Any) -> None:
    # out <- a weight, four rows of the weight at a time
    events, size = a.shape
    columns = weight.shape[1]
    whole = size - size % 4
    for t in range(events):
        for c in range(columns):
            out[t, c] = np.float32(0.0)
        for i in range(0, whole, 4):
            v0, v1, v2, v3 = a[t, i], a[t, i + 1], a[t, i + 2], a[t, i + 3]
            for c in range(columns):
                out[t, c] += v0 * weight[i, c] + v1 * weight[i + 1, c] + v2 * weight[i + 2, c] + v3 * weight[i + 3, c]
        for i in range(whole, size):
            for c in range(columns):
                out[t, c] += a[t, i] * weight[i, c]


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _steps(projected: Any, keeps: Any, in_bias: Any, time_bias: Any, dt_bias: Any, A: Any, steps: Any) -> None:
    # keeps (T, 2 h) comes with gamma and beta before their biases; steps (T, h) gets Delta, keeps[:, :h] exp(Delta A)
    events, h = steps.shape
    r = projected.shape[1]
    for t in range(events):
        for j in range(h):
            s = projected[t, r - h + j] + in_bias[r - h + j]
            gamma, beta = keeps[t, j] + time_bias[j], keeps[t, h + j] + time_bias[h + j]
            steps[t, j] = s * (np.float32(1.0) + gamma) + beta + dt_bias[j]
    # one flat loop each, long enough for vector instructions
    flat = steps.reshape(events * h)
    for i in range(events * h):
        flat[i] = softplus(flat[i])
    for t in range(events):
        for j in range(h):
            keeps[t, j] = steps[t, j] * A[j]
            keeps[t, h + j] = np.float32(0.0)
    flat = keeps.reshape(events * 2 * h)
    for i in range(events * 2 * h):
        flat[i] = exp(flat[i])


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _mix(
    projected: Any,
    steps: Any,
    keeps: Any,
    slots: Any,
    offsets: Any,
    k: int,
    state: Any,
    window: Any,
    weights: Any,
    eps: Any,
    out: Any,
) -> None:
    n, e = state.shape[2:]
    w = window.shape[3]
    bias, norm, D = weights.in_bias[k], weights.gate_norm[k], weights.D[k]
    filters, filter_bias = weights.conv_weight[k], weights.conv_bias[k]
    xbc, decay, xdt, y = (
        np.empty(w, np.float32),
        np.empty(e, np.float32),
        np.empty(e, np.float32),
        np.empty(e, np.float32),
    )
    B, C = xbc[e : e + n], xbc[e + n :]
    for i in range(slots.shape[0]):
        memory, past = state[slots[i], k], window[slots[i], k]
        # states lie far apart in memory: ask for the next one while this one is worked on
        after = slots[min(i + 1, slots.shape[0] - 1)]
        upcoming, upcoming_past = state[after, k], window[after, k]
        for c in range(0, upcoming_past.size, 64 // upcoming_past.itemsize):
            prefetch(upcoming_past, c)
        for t in range(offsets[i], offsets[i + 1]):
            _convolve(projected, t, e, bias, past, filters, filter_bias, xbc)
            _spread(xbc, steps, keeps, D, t, decay, xdt, y)
            scan_step(memory, decay, xdt, B, C, y, upcoming)
            _gate_norm(projected, t, bias, y, norm, eps, out)


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy", forceinline=True)
def _convolve(projected: Any, t: int, e: int, in_bias: Any, past: Any, weight: Any, bias: Any, out: Any) -> None:
    # x, B, C of event t through the filter and SiLU into out (w); past (3, w) moves on by one
    for c in range(out.shape[0]):
        v = projected[t, e + c] + in_bias[e + c]
        v0, v1, v2 = widen(past[0, c]), widen(past[1, c]), widen(past[2, c])
        u = bias[c] + weight[0, c] * v0 + weight[1, c] * v1 + weight[2, c] * v2 + weight[3, c] * v
        past[0, c] = past[1, c]
        past[1, c] = past[2, c]
        past[2, c] = narrow(v, past[2, c])
        out[c] = u * sigmoid(u)


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy", forceinline=True)
def _spread(x: Any, steps: Any, keeps: Any, D: Any, t: int, decay: Any, xdt: Any, y: Any) -> None:
    # what holds for a head, spread over its channels; y begins with the skip
    h = D.shape[0]
    p = decay.shape[0] // h
    for j in range(h):
        step, keep, skip = steps[t, j], keeps[t, j], D[j]
        for c in range(j * p, j * p + p):
            decay[c] = keep
            xdt[c] = step * x[c]
            y[c] = skip * x[c]


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy", forceinline=True)
def _gate_norm(projected: Any, t: int, bias: Any, y: Any, weight: Any, eps: Any, out: Any) -> None:
    # out[t] <- rms(y silu(z)), z being the first columns of the projected row
    e = y.shape[0]
    total = np.float32(0.0)
    for c in range(e):
        z = projected[t, c] + bias[c]
        v = y[c] * z * sigmoid(z)
        y[c] = v
        total += v * v
    scale = np.float32(1.0) / np.sqrt(total / np.float32(e) + eps)
    for c in range(e):
        out[t, c] = y[c] * scale * weight[c]


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _silu(a: Any, bias: Any) -> None:
    events, size = a.shape
    for t in range(events):
        for c in range(size):
            a[t, c] += bias[c]
    flat = a.reshape(events * size)
    for i in range(events * size):
        flat[i] = flat[i] * sigmoid(flat[i])


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _add_norm(new: Any, bias: Any, a: Any, residual: bool, weight: Any, shift: Any, eps: Any) -> None:
    # a <- LN(new + bias + a), without a if there is no residual; (T, d)
    events, d = a.shape
    keep = np.float32(1.0) if residual else np.float32(0.0)
    size = np.float32(d)
    for t in range(events):
        row, fresh = a[t], new[t]
        total = np.float32(0.0)
        for c in range(d):
            v = fresh[c] + bias[c] + keep * row[c]
            row[c] = v
            total += v
        mean = total / size
        square = np.float32(0.0)
        for c in range(d):
            v = row[c] - mean
            square += v * v
        scale = np.float32(1.0) / np.sqrt(square / size + eps)
        for c in range(d):
            row[c] = (row[c] - mean) * scale * weight[c] + shift[c]


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _hardswish(a: Any, bias: Any) -> None:
    events, size = a.shape
    for t in range(events):
        row = a[t]
        for c in range(size):
            v = row[c] + bias[c]
            row[c] = v * min(max(v + np.float32(3.0), np.float32(0.0)), np.float32(6.0)) * np.float32(1.0 / 6.0)
