"""The fused step (numba): matrix products over all events of a call, one walk over the states between them.

Events of one slot lie in a row and are consumed in order; the state of a slot is read and written where it lies.
"""

from typing import Any, NamedTuple

import numpy as np

from ..arrays import Float32s
from ..jit import fast_jit, inline_jit, jit
from ..scalar import exp, narrow, prefer_512_bit, prefetch, sigmoid, softplus, widen
from ..ssd.step import scan_step
from .product import LANES, aligned, product
from .weights import PackedWeights

__all__ = ["Scratch", "layers_step"]

# four vectors of AVX-512: what a compiled loop takes at a time
_VALUES = 64


class Scratch(NamedTuple):
    """Work arrays for at most T events; contents between calls mean nothing. Letters as in ``LayerWeights``.

    A column count with a star is rounded up to whole panels.
    """

    projected: Float32s  # (T, r*)
    time: Float32s  # (T, m*)
    keeps: Float32s  # (T, 2 h*): gamma, beta
    steps: Float32s  # (T, h): Delta
    fades: Float32s  # (T, h): exp(Delta A)
    mixed: Float32s  # (T, e)
    inner: Float32s  # (T, 4 d*)
    out: Float32s  # (T, d*)

    @classmethod
    def of(cls, weights: PackedWeights, events: int) -> "Scratch":
        """Allocate for ``events`` events."""
        w = weights
        h, e = w.D.shape[1], w.gate_norm.shape[1]
        columns = (w.project.outputs, w.time_in.outputs, w.time_out.outputs, h, h, e, w.ffn_in.outputs, w.out.outputs)
        return cls(*(aligned((events, size)) for size in columns))


@fast_jit
def layers_step(
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
) -> int:
    """Consume T events of R distinct slots; returns how many slots had any.

    ``weights`` are ``PackedWeights``. ``a`` (T, d) holds the events' vectors; its first rows get what the last layer
    gives after the last event of each slot that had one. ``phi`` (T, 3) gap features; events
    ``offsets[i]:offsets[i + 1]`` belong to ``slots[i]``, ``offsets`` (R + 1) from 0 to T. ``state`` (slots, k, n, e)
    and ``window`` (slots, k, K - 1, w), float32 or bfloat16 as uint16, are advanced in place. ``scratch`` is for T
    events or more; the epsilons are float32.
    """
    prefer_512_bit()
    w = weights
    events = a.shape[0]
    layers, e = w.gate_norm.shape
    rows: int = events
    for k in range(layers):
        projected, time, keeps = scratch.projected[:events], scratch.time[:events], scratch.keeps[:events]
        steps, fades, mixed = scratch.steps, scratch.fades, scratch.mixed[:events]
        # of the last layer only what stays is needed from every event: z, y and all behind them from the last ones
        last = k == layers - 1
        panels = w.project.weight.shape[1]
        product(a, w.project.weight[k], w.project.bias[k], e // LANES if last else 0, panels, projected)
        product(phi, w.time_in.weight[k], w.time_in.bias[k], 0, time.shape[1] // LANES, time)
        _silu(scratch.time, events)
        product(time, w.time_out.weight[k], w.time_out.bias[k], 0, keeps.shape[1] // LANES, keeps)
        _steps(projected, e + w.conv_bias.shape[1], keeps, w.dt_bias[k], w.A[k], steps, fades)
        _walk(projected, steps, fades, slots, offsets, k, last, state, window, w, mixed)
        if last:
            rows = _keep_last(offsets, a)
            product(a[:rows], w.project.weight[k], w.project.bias[k], 0, (e + LANES - 1) // LANES, projected[:rows])
        b = a[:rows]
        inner, out, mixed = scratch.inner[:rows], scratch.out[:rows], mixed[:rows]
        _gate_norm(projected, w.gate_norm[k], norm_eps, mixed)
        product(mixed, w.out.weight[k], w.out.bias[k], 0, out.shape[1] // LANES, out)
        _add_norm(out, b, residual, w.norm_weight[k], w.norm_bias[k], norm_eps)
        product(b, w.ffn_in.weight[k], w.ffn_in.bias[k], 0, inner.shape[1] // LANES, inner)
        _hardswish(inner)
        product(inner, w.ffn_out.weight[k], w.ffn_out.bias[k], 0, out.shape[1] // LANES, out)
        _add_norm(out, b, True, w.ffn_norm_weight[k], w.ffn_norm_bias[k], ffn_eps)
    return rows


@inline_jit
def _steps(projected: Any, begin: int, keeps: Any, dt_bias: Any, A: Any, steps: Any, fades: Any) -> None:
    # steps (.., h) <- Delta, fades <- exp(Delta A), from the projected columns after begin and gamma, beta (T, 2 h*)
    prefer_512_bit()
    events, h = projected.shape[0], steps.shape[1]
    for t in range(events):
        for j in range(h):
            s = projected[t, begin + j]
            steps[t, j] = s * (np.float32(1.0) + keeps[t, j]) + keeps[t, h + j] + dt_bias[j]
    # flat loops, long enough for vector instructions
    size = _whole(events * h, steps.size)
    flat = steps.reshape(steps.size)
    for i in range(size):
        flat[i] = softplus(flat[i])
    for t in range(events):
        for j in range(h):
            fades[t, j] = steps[t, j] * A[j]
    flat = fades.reshape(fades.size)
    for i in range(size):
        flat[i] = exp(flat[i])


@jit
def _whole(size: int, most: int) -> int:
    # so many values that no loop of vectors has a rest: a rest is rounded otherwise
    # and would make results depend on how events were cut
    return min((size + _VALUES - 1) // _VALUES * _VALUES, most)


@inline_jit
def _walk(
    projected: Any,
    steps: Any,
    fades: Any,
    slots: Any,
    offsets: Any,
    k: int,
    last: bool,
    state: Any,
    window: Any,
    weights: Any,
    out: Any,
) -> None:
    # every state meets its events; out gets y, one row per event, or with last one per slot that has events
    prefer_512_bit()
    n, e = state.shape[2:]
    w = window.shape[3]
    D, filters, filter_bias = weights.D[k], weights.conv_weight[k], weights.conv_bias[k]
    xbc, decay, xdt = np.empty(w, np.float32), np.empty(e, np.float32), np.empty(e, np.float32)
    B, C = xbc[e : e + n], xbc[e + n :]
    row = -1
    for i in range(slots.shape[0]):
        memory, past = state[slots[i], k], window[slots[i], k]
        after = slots[min(i + 1, slots.shape[0] - 1)]
        upcoming, upcoming_past = state[after, k].reshape(n * e), window[after, k].reshape(past.size)
        row += last and offsets[i] < offsets[i + 1]
        for t in range(offsets[i], offsets[i + 1]):
            row += not last
            y = out[row]
            # states lie far apart in memory: the next one is asked for while this one is worked on
            part = upcoming.nbytes // 64 // 16 if t + 1 == offsets[i + 1] else 0
            prefetch(upcoming_past, 0, 16 * part)
            prefetch(upcoming, 0, part)
            _convolve(projected[t, e:], past, filters, filter_bias, xbc)
            prefetch(upcoming, part, 2 * part)
            for c in range(w):
                xbc[c] *= sigmoid(xbc[c])
            prefetch(upcoming, 2 * part, 3 * part)
            _spread(xbc, steps[t], fades[t], D, decay, xdt, y)
            scan_step(memory, decay, xdt, B, C, y, upcoming if part else upcoming[:0], 3 * part)


@inline_jit
def _convolve(new: Any, past: Any, weight: Any, bias: Any, out: Any) -> None:
    # x, B, C of an event through the filter into out (w); past (3, w) moves on by one
    prefer_512_bit()
    for c in range(out.shape[0]):
        v, v0, v1, v2 = new[c], widen(past[0, c]), widen(past[1, c]), widen(past[2, c])
        out[c] = bias[c] + weight[0, c] * v0 + weight[1, c] * v1 + weight[2, c] * v2 + weight[3, c] * v
        past[0, c] = past[1, c]
        past[1, c] = past[2, c]
        past[2, c] = narrow(v, past[2, c])


@inline_jit
def _spread(x: Any, steps: Any, fades: Any, D: Any, decay: Any, xdt: Any, y: Any) -> None:
    # what holds for a head, spread over its channels; y begins with the skip
    prefer_512_bit()
    h = D.shape[0]
    p = decay.shape[0] // h
    for j in range(h):
        step, fade, skip = steps[j], fades[j], D[j]
        for c in range(j * p, j * p + p):
            decay[c] = fade
            xdt[c] = step * x[c]
            y[c] = skip * x[c]


@inline_jit
def _keep_last(offsets: Any, a: Any) -> int:
    # move the rows of the last events to the front; returns how many there are
    rows = 0
    for i in range(offsets.shape[0] - 1):
        if offsets[i] < offsets[i + 1]:
            if rows < offsets[i + 1] - 1:
                a[rows] = a[offsets[i + 1] - 1]
            rows += 1
    return rows


@inline_jit
def _gate_norm(projected: Any, weight: Any, eps: Any, y: Any) -> None:
    # y <- rms(y silu(z)), z being the first columns of the projected rows
    prefer_512_bit()
    rows, e = y.shape
    for t in range(rows):
        total = np.float32(0.0)
        for c in range(e):
            z = projected[t, c]
            v = y[t, c] * z * sigmoid(z)
            y[t, c] = v
            total += v * v
        scale = np.float32(1.0) / np.sqrt(total / np.float32(e) + eps)
        for c in range(e):
            y[t, c] *= scale * weight[c]


@inline_jit
def _silu(a: Any, events: int) -> None:
    prefer_512_bit()
    flat = a.reshape(a.size)
    for i in range(_whole(events * a.shape[1], a.size)):
        flat[i] = flat[i] * sigmoid(flat[i])


@inline_jit
def _add_norm(new: Any, a: Any, residual: bool, weight: Any, shift: Any, eps: Any) -> None:
    # a <- LN(new + a), without a if there is no residual; (T, d)
    prefer_512_bit()
    events, d = a.shape
    keep = np.float32(1.0) if residual else np.float32(0.0)
    size = np.float32(d)
    for t in range(events):
        row, fresh = a[t], new[t]
        total = np.float32(0.0)
        for c in range(d):
            v = fresh[c] + keep * row[c]
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


@inline_jit
def _hardswish(a: Any) -> None:
    prefer_512_bit()
    flat = a.reshape(a.size)
    for i in range(flat.size):
        v = flat[i]
        flat[i] = v * min(max(v + np.float32(3.0), np.float32(0.0)), np.float32(6.0)) * np.float32(1.0 / 6.0)
