"""The state space scan of Mamba-2 (arXiv 2405.21060, section 6), one group, heads share B and C.

    S_t = exp(dt_t A) S_{t-1} + dt_t x_t B_t^T          y_t = S_t C_t + D x_t

Letters: b rows, l positions, h heads, p channels per head, n state size, s packed sequences.
"""

import itertools
from functools import cache
from importlib.util import find_spec

import torch

from .chunk import ssd_chunk, ssd_chunk_packed
from .mamba import ssd_mamba
from .naive import ssd_naive
from .step import ssd_numba

__all__ = ["BACKENDS", "ssd"]

BACKENDS = ("naive", "chunk", "numba", "triton", "mamba", "auto")

# a program of the triton scan walks a whole sequence: fewer than this leave most of a GPU idle, which is of no
# consequence as long as the walk is short
_LEAST_SEQUENCES = 32
_SHORT = 1_024
# larger tiles do not fit the registers of a program
_LARGEST_TILE = 64


def ssd(
    x: torch.Tensor,
    dt: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    D: torch.Tensor | None = None,
    *,
    initial_state: torch.Tensor | None = None,
    lengths: torch.Tensor | None = None,
    cu_seqlens: torch.Tensor | None = None,
    backend: str = "auto",
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scan whole sequences; returns ``(y, final_state)``.

    Shapes: ``x`` (b, l, h, p); ``dt`` (b, l, h), positive; ``A`` (h), negative; ``B``, ``C`` (b, l, n); ``D`` (h);
    states (b, h, p, n). All of one floating dtype and device; ``y`` has the shape of ``x``.

    ``lengths`` (b): positions from there on are padding; they leave the state alone and give ``y = 0``.
    ``cu_seqlens`` (s + 1), integers from 0 to l: ``x`` and the rest have b = 1 and hold s sequences one after another;
    states are then (s, h, p, n). None for both means that every row is full. ``initial_state`` None means zeros.

    Backends: ``naive`` (loop over positions, the truth), ``chunk`` (matrix products, gradients to every tensor
    argument), ``numba`` (float32 on cpu, no gradients), ``triton`` (on a GPU, gradients; needs the extra ``gpu``),
    ``mamba`` (mamba-ssm's kernels, on a GPU, gradients, no packed rows), ``auto`` (triton on a GPU, if it is installed
    and knows the dtype and the sequences are many or short, else chunk). Raises ``ValueError`` for shapes that do not
    fit, for an unknown backend and for one that cannot work here.
    """
    _check(x, dt, A, B, C, initial_state, lengths, cu_seqlens)
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
    sequences = x.shape[0] if cu_seqlens is None else len(cu_seqlens) - 1
    if backend == "triton" or (backend == "auto" and _suits_triton(x, B, C, sequences)):
        # an optional package, so imported where it is asked for
        from .triton import ssd_triton

        return ssd_triton(x, dt, A, B, C, D, initial_state=initial_state, lengths=lengths, cu_seqlens=cu_seqlens)
    if initial_state is None:
        initial_state = x.new_zeros(sequences, x.shape[2], x.shape[3], B.shape[2])
    if lengths is not None:
        # with dt = 0 a step keeps the state as it is
        valid = torch.arange(x.shape[1], device=x.device) < lengths.to(x.device)[:, None]
        dt = dt * valid[..., None]
        y, final = _scan(x, dt, A, B, C, initial_state, cu_seqlens, backend)
        y = y if D is None else y + D[:, None] * x
        return y * valid[..., None, None], final
    y, final = _scan(x, dt, A, B, C, initial_state, cu_seqlens, backend)
    return (y if D is None else y + D[:, None] * x), final


def _suits_triton(x: torch.Tensor, B: torch.Tensor, C: torch.Tensor, sequences: int) -> bool:
    return (
        x.device.type == "cuda"
        and (sequences >= _LEAST_SEQUENCES or x.shape[0] * x.shape[1] <= _SHORT * sequences)
        and x.dtype in (torch.float32, torch.bfloat16, torch.float16)
        and x.dtype == B.dtype == C.dtype
        and max(x.shape[3], B.shape[2]) <= _LARGEST_TILE
        and _has_triton()
    )


@cache
def _has_triton() -> bool:
    return find_spec("triton") is not None


def _scan(
    x: torch.Tensor,
    dt: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    state: torch.Tensor,
    cu_seqlens: torch.Tensor | None,
    backend: str,
) -> tuple[torch.Tensor, torch.Tensor]:
    if cu_seqlens is None:
        scan = {"naive": ssd_naive, "numba": ssd_numba, "mamba": ssd_mamba}.get(backend, ssd_chunk)
        return scan(x, dt, A, B, C, state)
    if backend == "mamba":
        raise ValueError("backend 'mamba' takes padded rows (lengths) only; use 'triton' or 'chunk' for packed ones")
    if backend not in ("naive", "numba"):
        return ssd_chunk_packed(x, dt, A, B, C, state, cu_seqlens)
    one = ssd_naive if backend == "naive" else ssd_numba
    ys, finals = [], []
    bounds = cu_seqlens.tolist()
    for row, (begin, end) in enumerate(itertools.pairwise(bounds)):
        part = slice(begin, end)
        y, final = one(x[:, part], dt[:, part], A, B[:, part], C[:, part], state[row : row + 1])
        ys.append(y)
        finals.append(final)
    return torch.cat(ys, dim=1), torch.cat(finals)


def _check(
    x: torch.Tensor,
    dt: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    state: torch.Tensor | None,
    lengths: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
) -> None:
    b, length, h, p = x.shape
    n = B.shape[-1]
    rows = b if cu_seqlens is None else len(cu_seqlens) - 1
    want = {"dt": (b, length, h), "A": (h,), "B": (b, length, n), "C": (b, length, n), "initial_state": (rows, h, p, n)}
    given = {"dt": dt, "A": A, "B": B, "C": C, "initial_state": state}
    for name, tensor in given.items():
        if tensor is not None and tuple(tensor.shape) != want[name]:
            raise ValueError(f"{name} must have shape {want[name]} for x {tuple(x.shape)}, got {tuple(tensor.shape)}")
    if lengths is not None and cu_seqlens is not None:
        raise ValueError("give lengths (padded rows) or cu_seqlens (packed rows), not both")
    if lengths is not None and tuple(lengths.shape) != (b,):
        raise ValueError(f"lengths must have shape ({b},), got {tuple(lengths.shape)}")
    if cu_seqlens is not None and (b != 1 or int(cu_seqlens[0]) != 0 or int(cu_seqlens[-1]) != length):
        raise ValueError(
            f"packed rows need b = 1 and cu_seqlens from 0 to {length}, got b = {b} and {cu_seqlens.tolist()}"
        )
