"""The scan of a layer with all that surrounds it, forward and backward: convolution, step sizes, gate and norm.

A sequence at a time, an event at a time, the state (n, e) in the innermost cache. The sizes are constants of the
compiled code, and what an event needs lies in one array at constant places: so the compiler knows that nothing
overlaps, and unrolls. Backward, the states of a segment are made again from the one saved at its beginning.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numba import njit

from ..scalar import exp, sigmoid, softplus

__all__ = ["SEGMENT", "Scan", "scan", "segments", "steps", "steps_grad"]

# events between two saved states: their states, 16 KiB each, are to fit the second cache
SEGMENT = 32


def segments(bounds: Any) -> int:
    """How many states the forward pass saves for the sequences between ``bounds``."""
    return int((-(-np.diff(bounds) // SEGMENT)).sum())


class Scan(NamedTuple):
    """Compiled passes for one size of layer; T events, r projected columns z, x, B, C, dt.

    ``forward(projected (T, r), step (T, h), keep (T, h), bounds, filters (5, w), D, norm (e), eps, saved, y (T, e),
    out (T, e))``: ``filters`` are the convolution's taps, oldest first, and its bias; ``saved`` (segments, n e) gets
    states unless it is empty; ``y`` the scan's result before the gate, ``out`` that of the norm.

    ``backward(grad (T, e), ..., projected_grad (T, r), step_grad (T, h), filter_grad (5, w), keep_grad (T, h),
    D_grad, norm_grad)``: all gradients; the last h columns of ``projected_grad`` are left alone.
    """

    forward: Callable[..., None]
    backward: Callable[..., None]


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def steps(projected: Any, modulation: Any, dt_bias: Any, A: Any, raw: Any, step: Any, keep: Any) -> None:
    """Step sizes (T, h) and what an event keeps of the state, exp(step A), from the last columns of ``projected``.

    ``modulation`` (T, 2 h) holds gamma and beta; ``raw`` (T, h) gets the step sizes before softplus.
    """
    rows, h = step.shape
    first = projected.shape[1] - h
    for t in range(rows):
        for j in range(h):
            s = projected[t, first + j]
            raw[t, j] = s * (np.float32(1.0) + modulation[t, j]) + modulation[t, h + j] + dt_bias[j]
    # one flat loop, long enough for vector instructions
    flat, wide = raw.reshape(rows * h), step.reshape(rows * h)
    for i in range(rows * h):
        wide[i] = softplus(flat[i])
    for t in range(rows):
        for j in range(h):
            keep[t, j] = step[t, j] * A[j]
    flat = keep.reshape(rows * h)
    for i in range(rows * h):
        flat[i] = exp(flat[i])


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def steps_grad(
    projected: Any,
    modulation: Any,
    A: Any,
    raw: Any,
    step: Any,
    keep: Any,
    step_grad: Any,
    keep_grad: Any,
    projected_grad: Any,
    modulation_grad: Any,
    dt_bias_grad: Any,
    A_grad: Any,
) -> None:
    """Gradients of the arguments of `steps` from those of ``step`` and ``keep``, (T, h) each, which are overwritten."""
    rows, h = step.shape
    first = projected.shape[1] - h
    flat, wide = raw.reshape(rows * h), keep_grad.reshape(rows * h)
    dt_bias_grad[:] = np.float32(0.0)
    A_grad[:] = np.float32(0.0)
    for t in range(rows):
        for j in range(h):
            v = keep_grad[t, j] * keep[t, j]
            A_grad[j] += v * step[t, j]
            step_grad[t, j] += v * A[j]
    for i in range(rows * h):
        wide[i] = sigmoid(flat[i])
    for t in range(rows):
        for j in range(h):
            v = step_grad[t, j] * keep_grad[t, j]
            dt_bias_grad[j] += v
            modulation_grad[t, j] = v * projected[t, first + j]
            modulation_grad[t, h + j] = v
            projected_grad[t, first + j] = v * (np.float32(1.0) + modulation[t, j])


@functools.cache
def scan(e: int, n: int, h: int) -> Scan:
    """Compile the passes for e channels in h heads and a state of n; n is to be a multiple of 4."""
    return Scan(_forward(e, n, h), _backward(e, n, h))


def _forward(e: int, n: int, h: int) -> Callable[..., None]:
    w, p, segment = e + 2 * n, e // h, SEGMENT
    # places in the work array: state, decay, step times x, y, then x, B, C
    decay, xdt, ys, xs = n * e, n * e + e, n * e + 2 * e, n * e + 3 * e
    bs = xs + e
    cs = bs + n
    size = cs + n

    @njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
    def forward(
        projected: Any,
        step: Any,
        keep: Any,
        bounds: Any,
        filters: Any,
        D: Any,
        norm: Any,
        eps: Any,
        saved: Any,
        y: Any,
        out: Any,
    ) -> None:
        work = np.empty(size, np.float32)
        nothing = np.zeros(w, np.float32)
        place = 0
        for sequence in range(len(bounds) - 1):
            begin = bounds[sequence]
            work[: n * e] = np.float32(0.0)
            for t in range(begin, bounds[sequence + 1]):
                if len(saved) and (t - begin) % segment == 0:
                    saved[place] = work[: n * e]
                    place += 1
                v3 = projected[t, e : e + w]
                v2 = projected[t - 1, e : e + w] if t > begin else nothing
                v1 = projected[t - 2, e : e + w] if t > begin + 1 else nothing
                v0 = projected[t - 3, e : e + w] if t > begin + 2 else nothing
                for c in range(w):
                    u = filters[4 * w + c] + filters[c] * v0[c] + filters[w + c] * v1[c]
                    u += filters[2 * w + c] * v2[c] + filters[3 * w + c] * v3[c]
                    work[xs + c] = u * sigmoid(u)
                for j in range(h):
                    held, long, skip = keep[t, j], step[t, j], D[j]
                    for c in range(j * p, j * p + p):
                        work[decay + c] = held
                        work[xdt + c] = long * work[xs + c]
                        work[ys + c] = skip * work[xs + c]
                for i in range(0, n, 4):
                    b0, b1, b2, b3 = work[bs + i], work[bs + i + 1], work[bs + i + 2], work[bs + i + 3]
                    c0, c1, c2, c3 = work[cs + i], work[cs + i + 1], work[cs + i + 2], work[cs + i + 3]
                    for c in range(e):
                        d, x = work[decay + c], work[xdt + c]
                        s0 = d * work[i * e + c] + x * b0
                        s1 = d * work[i * e + e + c] + x * b1
                        s2 = d * work[i * e + 2 * e + c] + x * b2
                        s3 = d * work[i * e + 3 * e + c] + x * b3
                        work[i * e + c] = s0
                        work[i * e + e + c] = s1
                        work[i * e + 2 * e + c] = s2
                        work[i * e + 3 * e + c] = s3
                        work[ys + c] += s0 * c0 + s1 * c1 + s2 * c2 + s3 * c3
                gate, kept, result = projected[t, :e], y[t], out[t]
                for c in range(e):
                    kept[c] = work[ys + c]
                total = np.float32(0.0)
                for c in range(e):
                    z = gate[c]
                    v = work[ys + c] * z * sigmoid(z)
                    work[ys + c] = v
                    total += v * v
                scale = np.float32(1.0) / np.sqrt(total / np.float32(e) + eps)
                for c in range(e):
                    result[c] = work[ys + c] * scale * norm[c]

    return forward


def _backward(e: int, n: int, h: int) -> Callable[..., None]:
    w, p, segment = e + 2 * n, e // h, SEGMENT
    # places in the work array: gradient of the state, then of y, decay, step times x, and their gradients
    dy, decay, xdt, of_decay, of_xdt = (n * e + part * e for part in range(5))
    # gradients of x, B, C after the convolution, of x, B, C before SiLU for this event and the three after it
    of_x = n * e + 5 * e
    of_b, of_u = of_x + e, of_x + w
    filter_sums = of_u + 4 * w
    norm_sums = filter_sums + 5 * w
    size = norm_sums + e
    # per event of a segment: dy, x after the convolution with B and C, slope of SiLU there
    xbc, slope, row = e, e + w, e + 2 * w

    @njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
    def backward(
        grad: Any,
        projected: Any,
        step: Any,
        keep: Any,
        bounds: Any,
        filters: Any,
        D: Any,
        norm: Any,
        eps: Any,
        saved: Any,
        y: Any,
        projected_grad: Any,
        step_grad: Any,
        keep_grad: Any,
        filter_grad: Any,
        D_grad: Any,
        norm_grad: Any,
    ) -> None:
        work = np.zeros(size, np.float32)
        states = np.empty((segment + 1) * n * e, np.float32)
        events = np.empty(segment * row, np.float32)
        nothing = np.zeros(w, np.float32)
        D_grad[:] = np.float32(0.0)
        last_place = 0
        for sequence in range(len(bounds) - 1):
            begin, end = bounds[sequence], bounds[sequence + 1]
            parts = (end - begin + segment - 1) // segment
            last_place += parts
            work[: n * e] = np.float32(0.0)
            work[of_u : of_u + 4 * w] = np.float32(0.0)
            for part in range(parts - 1, -1, -1):
                first = begin + part * segment
                stop = min(first + segment, end)
                states[: n * e] = saved[last_place - parts + part]
                for t in range(first, stop):
                    at = events[(t - first) * row : (t - first) * row + row]
                    v3 = projected[t, e : e + w]
                    v2 = projected[t - 1, e : e + w] if t > begin else nothing
                    v1 = projected[t - 2, e : e + w] if t > begin + 1 else nothing
                    v0 = projected[t - 3, e : e + w] if t > begin + 2 else nothing
                    for c in range(w):
                        u = filters[4 * w + c] + filters[c] * v0[c] + filters[w + c] * v1[c]
                        u += filters[2 * w + c] * v2[c] + filters[3 * w + c] * v3[c]
                        s = sigmoid(u)
                        at[xbc + c] = u * s
                        at[slope + c] = s * (np.float32(1.0) + u * (np.float32(1.0) - s))
                    # norm and gate
                    gate, given, read, left = projected[t, :e], grad[t], y[t], projected_grad[t, :e]
                    total, along = np.float32(0.0), np.float32(0.0)
                    for c in range(e):
                        z = gate[c]
                        v = read[c] * z * sigmoid(z)
                        work[dy + c] = v
                        total += v * v
                        along += v * given[c] * norm[c]
                    scale = np.float32(1.0) / np.sqrt(total / np.float32(e) + eps)
                    along *= scale * scale / np.float32(e)
                    for c in range(e):
                        v = work[dy + c]
                        work[norm_sums + c] += given[c] * v * scale
                        work[dy + c] = scale * (given[c] * norm[c] - v * along)
                    for c in range(e):
                        z, v = gate[c], work[dy + c]
                        s = sigmoid(z)
                        left[c] = v * read[c] * s * (np.float32(1.0) + z * (np.float32(1.0) - s))
                        work[dy + c] = v * z * s
                    for c in range(e):
                        at[c] = work[dy + c]
                    # the state again, and what C had to do with it
                    for j in range(h):
                        held, long = keep[t, j], step[t, j]
                        for c in range(j * p, j * p + p):
                            work[decay + c] = held
                            work[xdt + c] = long * at[xbc + c]
                    here = states[(t - first) * n * e : (t - first + 2) * n * e]
                    for i in range(0, n, 4):
                        b0, b1, b2, b3 = at[xbc + e + i], at[xbc + e + i + 1], at[xbc + e + i + 2], at[xbc + e + i + 3]
                        g0, g1, g2, g3 = np.float32(0.0), np.float32(0.0), np.float32(0.0), np.float32(0.0)
                        for c in range(e):
                            d, x, g = work[decay + c], work[xdt + c], work[dy + c]
                            s0 = d * here[i * e + c] + x * b0
                            s1 = d * here[i * e + e + c] + x * b1
                            s2 = d * here[i * e + 2 * e + c] + x * b2
                            s3 = d * here[i * e + 3 * e + c] + x * b3
                            here[n * e + i * e + c] = s0
                            here[n * e + i * e + e + c] = s1
                            here[n * e + i * e + 2 * e + c] = s2
                            here[n * e + i * e + 3 * e + c] = s3
                            g0 += s0 * g
                            g1 += s1 * g
                            g2 += s2 * g
                            g3 += s3 * g
                        # the slope of SiLU joins at once
                        sl = slope + e + n + i
                        at[sl] *= g0
                        at[sl + 1] *= g1
                        at[sl + 2] *= g2
                        at[sl + 3] *= g3
                for t in range(stop - 1, first - 1, -1):
                    at = events[(t - first) * row : (t - first) * row + row]
                    before = states[(t - first) * n * e : (t - first + 1) * n * e]
                    for j in range(h):
                        held, long = keep[t, j], step[t, j]
                        for c in range(j * p, j * p + p):
                            work[decay + c] = held
                            work[xdt + c] = long * at[xbc + c]
                            work[dy + c] = at[c]
                            work[of_decay + c] = np.float32(0.0)
                            work[of_xdt + c] = np.float32(0.0)
                    for i in range(0, n, 4):
                        k = xbc + e + i
                        b0, b1, b2, b3 = at[k], at[k + 1], at[k + 2], at[k + 3]
                        k = xbc + e + n + i
                        c0, c1, c2, c3 = at[k], at[k + 1], at[k + 2], at[k + 3]
                        g0, g1, g2, g3 = np.float32(0.0), np.float32(0.0), np.float32(0.0), np.float32(0.0)
                        for c in range(e):
                            g, d, x = work[dy + c], work[decay + c], work[xdt + c]
                            s0 = work[i * e + c] + c0 * g
                            s1 = work[i * e + e + c] + c1 * g
                            s2 = work[i * e + 2 * e + c] + c2 * g
                            s3 = work[i * e + 3 * e + c] + c3 * g
                            g0 += s0 * x
                            g1 += s1 * x
                            g2 += s2 * x
                            g3 += s3 * x
                            work[of_xdt + c] += s0 * b0 + s1 * b1 + s2 * b2 + s3 * b3
                            work[of_decay + c] += (
                                s0 * before[i * e + c]
                                + s1 * before[i * e + e + c]
                                + s2 * before[i * e + 2 * e + c]
                                + s3 * before[i * e + 3 * e + c]
                            )
                            work[i * e + c] = s0 * d
                            work[i * e + e + c] = s1 * d
                            work[i * e + 2 * e + c] = s2 * d
                            work[i * e + 3 * e + c] = s3 * d
                        work[of_b + i] = g0
                        work[of_b + i + 1] = g1
                        work[of_b + i + 2] = g2
                        work[of_b + i + 3] = g3
                    for j in range(h):
                        long, skip = step[t, j], D[j]
                        of_keep, of_step, of_skip = np.float32(0.0), np.float32(0.0), np.float32(0.0)
                        for c in range(j * p, j * p + p):
                            x, g, q = at[xbc + c], work[dy + c], work[of_xdt + c]
                            of_keep += work[of_decay + c]
                            of_step += q * x
                            of_skip += g * x
                            work[of_x + c] = q * long + skip * g
                        keep_grad[t, j] = of_keep
                        step_grad[t, j] = of_step
                        D_grad[j] += of_skip
                    # convolution: an input served this event and the three after it
                    for c in range(w):
                        work[of_u + 3 * w + c] = work[of_u + 2 * w + c]
                        work[of_u + 2 * w + c] = work[of_u + w + c]
                        work[of_u + w + c] = work[of_u + c]
                    for c in range(e + n):
                        work[of_u + c] = work[of_x + c] * at[slope + c]
                    for c in range(e + n, w):
                        work[of_u + c] = at[slope + c]
                    entry = projected_grad[t, e : e + w]
                    for c in range(w):
                        entry[c] = (
                            filters[3 * w + c] * work[of_u + c]
                            + filters[2 * w + c] * work[of_u + w + c]
                            + filters[w + c] * work[of_u + 2 * w + c]
                            + filters[c] * work[of_u + 3 * w + c]
                        )
                    # tap k met this input in the event 3 - k later
                    seen = projected[t, e : e + w]
                    for c in range(w):
                        v = seen[c]
                        work[filter_sums + 3 * w + c] += v * work[of_u + c]
                        work[filter_sums + 2 * w + c] += v * work[of_u + w + c]
                        work[filter_sums + w + c] += v * work[of_u + 2 * w + c]
                        work[filter_sums + c] += v * work[of_u + 3 * w + c]
                        work[filter_sums + 4 * w + c] += work[of_u + c]
        filter_grad[:] = work[filter_sums : filter_sums + 5 * w]
        norm_grad[:] = work[norm_sums : norm_sums + e]

    return backward
