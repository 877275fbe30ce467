"""The scan of a layer with all that surrounds it, forward and backward: convolution, step sizes, gate and norm.

A sequence at a time, an event at a time, the state (n, e) in the innermost cache. The sizes are constants of the
compiled code, and what an event needs lies in one array at constant places: so the compiler knows that nothing
overlaps, and unrolls.

Backward, one walk forward makes the states again, which the gradient of C needs, and one walk back carries the gradient
of the state. No state is kept, because the gradient of the decay follows from results (arXiv 2405.21060, listing of the
backward pass): with L_t the sum of log decays up to t, u = Delta x and y what comes
from earlier events, y_t = sum over s < t of exp(L_t - L_s) (C_t . B_s) u_s, so that dL_t = y_t . dy_t - u_t . du_t for
each head, du without the part of the event itself, which would only cancel.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..jit import fast_jit
from ..scalar import exp, sigmoid, softplus

__all__ = ["Scan", "scan", "steps", "steps_grad"]


class Scan(NamedTuple):
    """Compiled passes for one size of layer; T events, r projected columns z, x, B, C, dt.

    ``forward(projected (T, r), bias (r), step (T, h), keep (T, h), bounds, filters (5 w), D, norm (e), eps, y (T, e),
    out (T, e))``: adds ``bias`` to all columns of ``projected`` but the last h; ``filters`` are the convolution's taps,
    oldest first, and its bias; ``y`` gets what comes from earlier events, ``out`` the result of the
    norm.

    ``backward(grad (T, e), projected, step, keep, bounds, filters, D, norm, eps, y, projected_grad (T, r),
    step_grad (T, h), log_grad (T, h), filter_grad (5 w), D_grad, norm_grad)``: all gradients, ``log_grad`` that of
    log ``keep``; the last h columns of ``projected_grad`` are left alone.
    """

    forward: Callable[..., None]
    backward: Callable[..., None]


@fast_jit
def steps(projected: Any, bias: Any, modulation: Any, dt_bias: Any, A: Any, raw: Any, step: Any, keep: Any) -> None:
    """Step sizes (T, h) and what an event keeps of the state, exp(step A), from the last h columns of ``projected``.

    ``bias`` is added to these columns first; ``modulation`` (T, 2 h) holds gamma and beta; ``raw`` (T, h) gets the step
    sizes before softplus.
    """
    rows, h = step.shape
    first = projected.shape[1] - h
    for t in range(rows):
        for j in range(h):
            s = projected[t, first + j] + bias[first + j]
            projected[t, first + j] = s
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


@fast_jit
def steps_grad(
    projected: Any,
    modulation: Any,
    A: Any,
    raw: Any,
    step: Any,
    step_grad: Any,
    log_grad: Any,
    projected_grad: Any,
    modulation_grad: Any,
    dt_bias_grad: Any,
    A_grad: Any,
) -> None:
    """Gradients of the arguments of `steps` from those of ``step`` and of log ``keep``, which are overwritten."""
    rows, h = step.shape
    first = projected.shape[1] - h
    flat, wide = raw.reshape(rows * h), log_grad.reshape(rows * h)
    dt_bias_grad[:] = np.float32(0.0)
    A_grad[:] = np.float32(0.0)
    for t in range(rows):
        for j in range(h):
            v = log_grad[t, j]
            A_grad[j] += v * step[t, j]
            step_grad[t, j] += v * A[j]
    for i in range(rows * h):
        wide[i] = sigmoid(flat[i])
    for t in range(rows):
        for j in range(h):
            v = step_grad[t, j] * log_grad[t, j]
            dt_bias_grad[j] += v
            modulation_grad[t, j] = v * projected[t, first + j]
            modulation_grad[t, h + j] = v
            projected_grad[t, first + j] = v * (np.float32(1.0) + modulation[t, j])


@functools.cache
def scan(e: int, n: int, h: int) -> Scan:
    """Compile the passes for e channels in h heads and a state of n; n is to be a multiple of 4."""
    return Scan(_forward(e, n, h), _backward(e, n, h))


def _forward(e: int, n: int, h: int) -> Callable[..., None]:
    w, p = e + 2 * n, e // h
    # places in the work array: state, decay, u, y, then x, B, C
    decay, us, ys, xs = n * e, n * e + e, n * e + 2 * e, n * e + 3 * e
    bs = xs + e
    cs = bs + n
    size = cs + n

    @fast_jit
    def forward(
        projected: Any,
        bias: Any,
        step: Any,
        keep: Any,
        bounds: Any,
        filters: Any,
        D: Any,
        norm: Any,
        eps: Any,
        y: Any,
        out: Any,
    ) -> None:
        work = np.empty(size, np.float32)
        nothing = np.zeros(w, np.float32)
        for sequence in range(len(bounds) - 1):
            begin = bounds[sequence]
            work[: n * e] = np.float32(0.0)
            for t in range(begin, bounds[sequence + 1]):
                entry = projected[t]
                for c in range(e + w):
                    entry[c] += bias[c]
                v3 = projected[t, e : e + w]
                v2 = projected[t - 1, e : e + w] if t > begin else nothing
                v1 = projected[t - 2, e : e + w] if t > begin + 1 else nothing
                v0 = projected[t - 3, e : e + w] if t > begin + 2 else nothing
                for c in range(w):
                    u = filters[4 * w + c] + filters[c] * v0[c] + filters[w + c] * v1[c]
                    u += filters[2 * w + c] * v2[c] + filters[3 * w + c] * v3[c]
                    work[xs + c] = u * sigmoid(u)
                for j in range(h):
                    held, long = keep[t, j], step[t, j]
                    for c in range(p):
                        work[decay + j * p + c] = held
                        work[us + j * p + c] = long * work[xs + j * p + c]
                        work[ys + j * p + c] = np.float32(0.0)
                own = np.float32(0.0)
                for i in range(n):
                    own += work[bs + i] * work[cs + i]
                for i in range(0, n, 4):
                    b0, b1, b2, b3 = work[bs + i], work[bs + i + 1], work[bs + i + 2], work[bs + i + 3]
                    c0, c1, c2, c3 = work[cs + i], work[cs + i + 1], work[cs + i + 2], work[cs + i + 3]
                    for c in range(e):
                        d, u = work[decay + c], work[us + c]
                        s0 = d * work[i * e + c]
                        s1 = d * work[i * e + e + c]
                        s2 = d * work[i * e + 2 * e + c]
                        s3 = d * work[i * e + 3 * e + c]
                        work[i * e + c] = s0 + u * b0
                        work[i * e + e + c] = s1 + u * b1
                        work[i * e + 2 * e + c] = s2 + u * b2
                        work[i * e + 3 * e + c] = s3 + u * b3
                        work[ys + c] += s0 * c0 + s1 * c1 + s2 * c2 + s3 * c3
                gate, kept, result = projected[t, :e], y[t], out[t]
                for c in range(e):
                    kept[c] = work[ys + c]
                for j in range(h):
                    skip = D[j]
                    for c in range(j * p, j * p + p):
                        work[ys + c] += own * work[us + c] + skip * work[xs + c]
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
    w, p = e + 2 * n, e // h
    # places in the work array: the state or its gradient, then for one event y's gradient, decay, u and its gradient
    dy, decay, us, of_us = (n * e + part * e for part in range(4))
    # gradients of x, B, C after SiLU, and before it for this event and the three after it
    of_x = n * e + 4 * e
    of_b, of_conv = of_x + e, of_x + w
    filter_sums = of_conv + 4 * w
    norm_sums = filter_sums + 5 * w
    size = norm_sums + e
    # what the walk forward leaves for an event: y's gradient, x, B, C, the slope of SiLU there (C: its gradient)
    xbc, slope, row = e, e + w, e + 2 * w

    @fast_jit
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
        y: Any,
        projected_grad: Any,
        step_grad: Any,
        log_grad: Any,
        filter_grad: Any,
        D_grad: Any,
        norm_grad: Any,
    ) -> None:
        work = np.zeros(size, np.float32)
        events = np.empty(max(1, np.max(bounds[1:] - bounds[:-1])) * row, np.float32)
        nothing = np.zeros(w, np.float32)
        later = np.empty(h, np.float64)
        D_grad[:] = np.float32(0.0)
        for sequence in range(len(bounds) - 1):
            begin, end = bounds[sequence], bounds[sequence + 1]
            work[: n * e] = np.float32(0.0)
            for t in range(begin, end):
                at = events[(t - begin) * row : (t - begin) * row + row]
                v3 = projected[t, e : e + w]
                v2 = projected[t - 1, e : e + w] if t > begin else nothing
                v1 = projected[t - 2, e : e + w] if t > begin + 1 else nothing
                v0 = projected[t - 3, e : e + w] if t > begin + 2 else nothing
                for c in range(w):
                    q = filters[4 * w + c] + filters[c] * v0[c] + filters[w + c] * v1[c]
                    q += filters[2 * w + c] * v2[c] + filters[3 * w + c] * v3[c]
                    s = sigmoid(q)
                    at[xbc + c] = q * s
                    at[slope + c] = s * (np.float32(1.0) + q * (np.float32(1.0) - s))
                own = np.float32(0.0)
                for i in range(n):
                    own += at[xbc + e + i] * at[xbc + e + n + i]
                carried = y[t]
                for j in range(h):
                    through = own * step[t, j] + D[j]
                    for c in range(j * p, j * p + p):
                        work[of_us + c] = carried[c] + through * at[xbc + c]
                # norm and gate
                gate, given, left = projected[t, :e], grad[t], projected_grad[t, :e]
                total, along = np.float32(0.0), np.float32(0.0)
                for c in range(e):
                    z = gate[c]
                    v = work[of_us + c] * z * sigmoid(z)
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
                    left[c] = v * work[of_us + c] * s * (np.float32(1.0) + z * (np.float32(1.0) - s))
                    work[dy + c] = v * z * s
                for j in range(h):
                    held, long = keep[t, j], step[t, j]
                    for c in range(p):
                        work[decay + j * p + c] = held
                        work[us + j * p + c] = long
                for c in range(e):
                    work[us + c] *= at[xbc + c]
                for c in range(e):
                    at[c] = work[dy + c]
                # the state again, and the gradient of C
                for i in range(0, n, 4):
                    k = xbc + e + i
                    b0, b1, b2, b3 = at[k], at[k + 1], at[k + 2], at[k + 3]
                    g0, g1, g2, g3 = np.float32(0.0), np.float32(0.0), np.float32(0.0), np.float32(0.0)
                    for c in range(e):
                        d, u, g = work[decay + c], work[us + c], work[dy + c]
                        s0 = d * work[i * e + c] + u * b0
                        s1 = d * work[i * e + e + c] + u * b1
                        s2 = d * work[i * e + 2 * e + c] + u * b2
                        s3 = d * work[i * e + 3 * e + c] + u * b3
                        work[i * e + c] = s0
                        work[i * e + e + c] = s1
                        work[i * e + 2 * e + c] = s2
                        work[i * e + 3 * e + c] = s3
                        g0 += s0 * g
                        g1 += s1 * g
                        g2 += s2 * g
                        g3 += s3 * g
                    k = slope + e + n + i
                    at[k] *= g0
                    at[k + 1] *= g1
                    at[k + 2] *= g2
                    at[k + 3] *= g3
            work[: n * e] = np.float32(0.0)
            work[of_conv : of_conv + 4 * w] = np.float32(0.0)
            later[:] = 0.0
            for t in range(end - 1, begin - 1, -1):
                at = events[(t - begin) * row : (t - begin) * row + row]
                for j in range(h):
                    held, long = keep[t, j], step[t, j]
                    for c in range(p):
                        work[decay + j * p + c] = held
                        work[us + j * p + c] = long
                for c in range(e):
                    work[us + c] *= at[xbc + c]
                    work[dy + c] = at[c]
                    work[of_us + c] = np.float32(0.0)
                for i in range(0, n, 4):
                    k = xbc + e + i
                    b0, b1, b2, b3 = at[k], at[k + 1], at[k + 2], at[k + 3]
                    k = xbc + e + n + i
                    c0, c1, c2, c3 = at[k], at[k + 1], at[k + 2], at[k + 3]
                    g0, g1, g2, g3 = np.float32(0.0), np.float32(0.0), np.float32(0.0), np.float32(0.0)
                    for c in range(e):
                        g, d, u = work[dy + c], work[decay + c], work[us + c]
                        s0 = work[i * e + c]
                        s1 = work[i * e + e + c]
                        s2 = work[i * e + 2 * e + c]
                        s3 = work[i * e + 3 * e + c]
                        work[of_us + c] += s0 * b0 + s1 * b1 + s2 * b2 + s3 * b3
                        s0 += c0 * g
                        s1 += c1 * g
                        s2 += c2 * g
                        s3 += c3 * g
                        g0 += s0 * u
                        g1 += s1 * u
                        g2 += s2 * u
                        g3 += s3 * u
                        work[i * e + c] = s0 * d
                        work[i * e + e + c] = s1 * d
                        work[i * e + 2 * e + c] = s2 * d
                        work[i * e + 3 * e + c] = s3 * d
                    k = of_b + i
                    work[k], work[k + 1], work[k + 2], work[k + 3] = g0, g1, g2, g3
                own = np.float32(0.0)
                for i in range(n):
                    own += at[xbc + e + i] * at[xbc + e + n + i]
                carried = y[t]
                for j in range(h):
                    long = step[t, j]
                    through = own * long + D[j]
                    of_y, of_u, of_skip = np.float32(0.0), np.float32(0.0), np.float32(0.0)
                    for c in range(j * p, j * p + p):
                        x, g, q = at[xbc + c], work[dy + c], work[of_us + c]
                        of_y += g * carried[c]
                        of_u += q * x
                        of_skip += g * x
                        work[of_x + c] = q * long + through * g
                    # log decays add up, so that of event t is in the sums of this event and of all later ones
                    later[j] += of_y - of_u * long
                    log_grad[t, j] = later[j]
                    step_grad[t, j] = of_u + own * of_skip
                    D_grad[j] += of_skip
                # convolution: an input served this event and the three after it
                for c in range(w):
                    work[of_conv + 3 * w + c] = work[of_conv + 2 * w + c]
                    work[of_conv + 2 * w + c] = work[of_conv + w + c]
                    work[of_conv + w + c] = work[of_conv + c]
                for c in range(e + n):
                    work[of_conv + c] = work[of_x + c] * at[slope + c]
                for c in range(e + n, w):
                    work[of_conv + c] = at[slope + c]
                entry = projected_grad[t, e : e + w]
                for c in range(w):
                    entry[c] = (
                        filters[3 * w + c] * work[of_conv + c]
                        + filters[2 * w + c] * work[of_conv + w + c]
                        + filters[w + c] * work[of_conv + 2 * w + c]
                        + filters[c] * work[of_conv + 3 * w + c]
                    )
                # tap k met this input in the event 3 - k later
                seen = projected[t, e : e + w]
                for c in range(w):
                    v = seen[c]
                    work[filter_sums + 3 * w + c] += v * work[of_conv + c]
                    work[filter_sums + 2 * w + c] += v * work[of_conv + w + c]
                    work[filter_sums + w + c] += v * work[of_conv + 2 * w + c]
                    work[filter_sums + c] += v * work[of_conv + 3 * w + c]
                    work[filter_sums + 4 * w + c] += work[of_conv + c]
        filter_grad[:] = work[filter_sums : filter_sums + 5 * w]
        norm_grad[:] = work[norm_sums : norm_sums + e]

    return backward
