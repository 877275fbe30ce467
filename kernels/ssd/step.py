"""One event of the scan on a state in place, and the scan of whole sequences made of such steps (numba, float32).

The state of a step is laid out (n, h * p), so that its inner loop runs over all channels without a sum across lanes.
"""

from typing import Any

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray

__all__ = ["scan_step", "ssd_numba"]


@njit(cache=True, nogil=True, fastmath=True)
def scan_step(state: Any, decay: Any, xdt: Any, B: Any, C: Any, y: Any) -> None:
    """Advance ``state`` (n, e) by one event: ``decay``, ``xdt`` (e) per channel, ``B``, ``C`` (n); writes ``y`` (e)."""
    n, e = state.shape
    for c in range(e):
        y[c] = np.float32(0.0)
    for i in range(n):
        row = state[i]
        b = B[i]
        w = C[i]
        for c in range(e):
            new = decay[c] * row[c] + xdt[c] * b
            row[c] = new
            y[c] += w * new


@njit(cache=True, nogil=True)
def _scan_rows(x: Any, dt: Any, A: Any, B: Any, C: Any, state: Any, y: Any) -> None:
    # x, y (b, l, h, p), dt (b, l, h), B, C (b, l, n), state (b, n, h * p)
    b, length, h, p = x.shape
    decay = np.empty(h * p, np.float32)
    xdt = np.empty(h * p, np.float32)
    for row in range(b):
        for t in range(length):
            for j in range(h):
                step = dt[row, t, j]
                keep = np.exp(step * A[j])
                for c in range(p):
                    decay[j * p + c] = keep
                    xdt[j * p + c] = step * x[row, t, j, c]
            scan_step(state[row], decay, xdt, B[row, t], C[row, t], y[row, t].reshape(h * p))


def ssd_numba(
    x: torch.Tensor, dt: torch.Tensor, A: torch.Tensor, B: torch.Tensor, C: torch.Tensor, state: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ``y`` and the final state by steps; float32 on cpu, without gradients; shapes as in ``ssd``."""
    if x.dtype != torch.float32 or x.device.type != "cpu":
        raise ValueError(f"backend 'numba' needs float32 on cpu, got {x.dtype} on {x.device}; use 'chunk'")
    b, _, h, p = x.shape
    y = torch.empty(x.shape)
    inner = state.detach().permute(0, 3, 1, 2).flatten(2).clone(memory_format=torch.contiguous_format)
    _scan_rows(_array(x), _array(dt), _array(A), _array(B), _array(C), inner.numpy(), y.numpy())
    return y, inner.view(b, -1, h, p).permute(0, 2, 3, 1).contiguous()


def _array(v: torch.Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = v.detach().contiguous().numpy()
    return array
