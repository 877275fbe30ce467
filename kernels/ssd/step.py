"""One event of the scan on a state in place, and the scan of whole sequences made of such steps (numba, float32).

The state of a step is laid out (n, h * p), so that its inner loop runs over all channels without a sum across lanes.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..jit import inline_jit, jit
from ..scalar import narrow, prefer_512_bit, prefetch, widen

__all__ = ["scan_step", "ssd_numba"]


@inline_jit
def scan_step(state: Any, decay: Any, xdt: Any, B: Any, C: Any, y: Any, upcoming: Any, asked: int) -> None:
    """Advance ``state`` (n, e) by an event: ``decay``, ``xdt`` (e) per channel, ``B``, ``C`` (n); added to ``y`` (e).

    The state is float32, or bfloat16 as uint16. Meanwhile the cache lines of ``upcoming`` (1 axis), the state that is
    needed next or nothing, are asked for, except the first ``asked`` of them.
    """
    prefer_512_bit()
    n, e = state.shape
    share = (upcoming.nbytes // 64 - asked + n - 1) // n
    for i in range(n):
        b, w = B[i], C[i]
        prefetch(upcoming, asked + i * share, asked + i * share + share)
        for c in range(e):
            new = decay[c] * widen(state[i, c]) + xdt[c] * b
            state[i, c] = narrow(new, state[i, c])
            y[c] += w * new


@jit
def _scan_rows(x: Any, dt: Any, A: Any, B: Any, C: Any, state: Any, y: Any) -> None:
    # x, y (b, l, h * p), dt (b, l, h), B, C (b, l, n), state (b, n, h * p)
    b, length, e = x.shape
    h = A.shape[0]
    p = e // h
    decay, xdt = np.empty(e, np.float32), np.empty(e, np.float32)
    nothing = decay[:0]
    for row in range(b):
        for t in range(length):
            out = y[row, t]
            for j in range(h):
                step = dt[row, t, j]
                keep = np.exp(step * A[j])
                for c in range(j * p, j * p + p):
                    decay[c] = keep
                    xdt[c] = step * x[row, t, c]
                    out[c] = np.float32(0.0)
            scan_step(state[row], decay, xdt, B[row, t], C[row, t], out, nothing, 0)


def ssd_numba(
    x: torch.Tensor, dt: torch.Tensor, A: torch.Tensor, B: torch.Tensor, C: torch.Tensor, state: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ``y`` and the final state by steps; float32 on cpu, without gradients; shapes as in ``ssd``."""
    if x.dtype != torch.float32 or x.device.type != "cpu":
        raise ValueError(f"backend 'numba' needs float32 on cpu, got {x.dtype} on {x.device}; use 'chunk'")
    b, _, h, p = x.shape
    y = torch.empty(x.shape).flatten(2)
    inner = state.detach().permute(0, 3, 1, 2).flatten(2).clone(memory_format=torch.contiguous_format)
    _scan_rows(_array(x.flatten(2)), _array(dt), _array(A), _array(B), _array(C), inner.numpy(), y.numpy())
    return y.view(x.shape), inner.view(b, -1, h, p).permute(0, 2, 3, 1).contiguous()


def _array(v: torch.Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = v.detach().contiguous().numpy()
    return array
