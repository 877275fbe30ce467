"""The fused step (numba): matrix products over all events of a call, one walk over the states between them.

Events of one slot lie in a row and are consumed in order; the state of a slot is read and written where it lies.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ..scalar import exp, sigmoid, softplus
from ..ssd.step import scan_step
from .weights import LayerWeights

__all__ = ["Scratch", "layers_step"]

Floats = NDArray[np.float32]
Longs = NDArray[np.int64]


class Scratch(NamedTuple):
    """Work arrays for at most T events; contents between calls mean nothing. Letters as in ``LayerWeights``."""

    projected: Floats  # (T, r)
    mixed: Floats  # (T, e)
    inner: Floats  # (T, 4 d)
    out: Floats  # (T, d)

    @classmethod
    def of(cls, weights: LayerWeights, events: int) -> "Scratch":
        """Allocate for ``events`` events."""
        _, d, r = weights.in_weight.shape
        e = weights.gate_norm.shape[1]
        return cls(*(np.empty((events, columns), np.float32) for columns in (r, e, 4 * d, d)))


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
    to T; ``state`` (slots, k, n, e) and ``window`` (slots, k, K - 1, w) are advanced in place.
    """
    events = len(a)
    projected, mixed, inner, out = (part[:events] for part in scratch)
    for k in range(len(weights.in_weight)):
        np.matmul(a, weights.in_weight[k], out=projected)
        _mix(projected, phi, slots, offsets, k, state, window, weights, np.float32(norm_eps), mixed)
        np.matmul(mixed, weights.out_weight[k], out=out)
        _add_norm(
            out, weights.out_bias[k], a, residual, weights.norm_weight[k], weights.norm_bias[k], np.float32(norm_eps)
        )
        np.matmul(a, weights.ffn_in[k], out=inner)
        _hardswish(inner, weights.ffn_in_bias[k])
        np.matmul(inner, weights.ffn_out[k], out=out)
        _add_norm(
            out,
            weights.ffn_out_bias[k],
            a,
            True,
            weights.ffn_norm_weight[k],
            weights.ffn_norm_bias[k],
            np.float32(ffn_eps),
        )


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _mix(
    projected: Any,
    phi: Any,
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
    xbc = np.empty(w, np.float32)
    decay = np.empty(e, np.float32)
    xdt = np.empty(e, np.float32)
    for i in range(slots.shape[0]):
        memory = state[slots[i], k]
        past = window[slots[i], k]
        for t in range(offsets[i], offsets[i + 1]):
            row = projected[t]
            _convolve(
                row[e : e + w], past, weights.in_bias[k, e : e + w], weights.conv_weight[k], weights.conv_bias[k], xbc
            )
            _gates(row[e + w :], phi[t], xbc, k, weights, decay, xdt)
            scan_step(memory, decay, xdt, xbc[e : e + n], xbc[e + n :], out[t])
            _gate_norm(row, k, xbc, weights, eps, out[t])


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _convolve(new: Any, past: Any, in_bias: Any, weight: Any, bias: Any, out: Any) -> None:
    # new, out (w), past (K - 1, w) is moved on by one; K is 4, as the paper has it
    for c in range(out.shape[0]):
        v = new[c] + in_bias[c]
        u = (
            bias[c]
            + weight[0, c] * past[0, c]
            + weight[1, c] * past[1, c]
            + weight[2, c] * past[2, c]
            + weight[3, c] * v
        )
        past[0, c] = past[1, c]
        past[1, c] = past[2, c]
        past[2, c] = v
        out[c] = u * sigmoid(u)


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _gates(raw: Any, phi: Any, x: Any, k: int, weights: Any, decay: Any, xdt: Any) -> None:
    # the time-modulated step size of every head, spread over its channels
    h = raw.shape[0]
    p = decay.shape[0] // h
    m = weights.time_in.shape[2]
    r = weights.in_bias.shape[1]
    for j in range(h):
        gamma = weights.time_out_bias[k, j]
        beta = weights.time_out_bias[k, h + j]
        for i in range(m):
            u = (
                weights.time_in_bias[k, i]
                + phi[0] * weights.time_in[k, 0, i]
                + phi[1] * weights.time_in[k, 1, i]
                + phi[2] * weights.time_in[k, 2, i]
            )
            u *= sigmoid(u)
            gamma += u * weights.time_out[k, i, j]
            beta += u * weights.time_out[k, i, h + j]
        s = raw[j] + weights.in_bias[k, r - h + j]
        dt = softplus(s * (np.float32(1.0) + gamma) + beta + weights.dt_bias[k, j])
        keep = exp(dt * weights.A[k, j])
        for c in range(j * p, j * p + p):
            decay[c] = keep
            xdt[c] = dt * x[c]


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _gate_norm(row: Any, k: int, x: Any, weights: Any, eps: Any, y: Any) -> None:
    # y <- rms((y + D x) silu(z)), z being the first columns of the projected row
    h = weights.D.shape[1]
    e = y.shape[0]
    p = e // h
    total = np.float32(0.0)
    for j in range(h):
        skip = weights.D[k, j]
        for c in range(j * p, j * p + p):
            z = row[c] + weights.in_bias[k, c]
            v = (y[c] + skip * x[c]) * z * sigmoid(z)
            y[c] = v
            total += v * v
    scale = np.float32(1.0) / np.sqrt(total / np.float32(e) + eps)
    for c in range(e):
        y[c] *= scale * weights.gate_norm[k, c]


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
