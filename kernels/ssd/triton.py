"""The scan on a GPU (Triton): one fused kernel forward, one backward, states float32 between chunks.

Written for many sequences of some hundred positions: a program walks its sequence, so few very long sequences leave
most of a GPU idle (use ``chunk`` there). ``triton`` comes with the optional extra ``gpu``.
"""

import os
from typing import Any, NamedTuple

import torch
from torch.autograd.function import once_differentiable

try:
    import triton
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("backend 'triton' needs the package triton: install recurra[gpu]") from error

from .triton_kernels import scan_backward, scan_forward

__all__ = ["REGISTERS", "Launch", "default_launch", "ssd_triton"]

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


class Launch(NamedTuple):
    """How a kernel is cut and run: positions per chunk, warps per program, depth of the load pipeline."""

    chunk: int
    warps: int
    stages: int


# forward and backward. Not timed: of the launches compiled for sm_90 these need few instructions per position and spill
# little (docs/how-to/gpu.md); `time_launches` of the simulations times them on a GPU
_LAUNCH = (Launch(32, 2, 2), Launch(32, 2, 1))
# longer chunks do not fit the registers when every operand is split into parts
_LAUNCH_SPLIT = (Launch(16, 2, 1), Launch(16, 2, 1))
# said aloud, since the assembler, left to itself, falls back to 32 registers and spills the rest where these do not do
REGISTERS = 255
# triton decides this once, when it is imported
_INTERPRETED = os.environ.get("TRITON_INTERPRET", "0") == "1"


def default_launch(dtype: torch.dtype, precision: str) -> tuple[Launch, Launch]:
    """Forward and backward launch for inputs of ``dtype``, with products of float32 made as ``precision`` says."""
    return _LAUNCH_SPLIT if dtype == torch.float32 and precision != "tf32" else _LAUNCH


def ssd_triton(
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
    precision: str = "tf32x3",
    launch: tuple[Launch, Launch] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ``(y, final_state)``; shapes and the meaning of ``lengths`` and ``cu_seqlens`` as in ``ssd``.

    ``x``, ``B``, ``C`` share one dtype (float32, bfloat16 or float16), which is that of ``y`` and of the operands of
    matrix products; ``dt``, ``A``, ``D`` and the states may be wider. States and sums are float32 inside; the final
    state has the dtype of ``initial_state``, float32 when that is None.

    ``precision`` is how float32 products are made: ``ieee`` (plain units), ``tf32x3`` (three tensor core products,
    close to float32) or ``tf32`` (one, about three decimal digits). ``launch`` is for the forward and the backward
    pass, which share the chunk length, that of the saved states; None is ``default_launch``. Raises ``ValueError`` for
    other dtypes, for tensors that are not on a GPU (unless TRITON_INTERPRET=1 is set) and for launches of different
    chunks.
    """
    if x.dtype not in _DTYPES or B.dtype != x.dtype or C.dtype != x.dtype:
        raise ValueError(
            f"backend 'triton' needs x, B and C of one dtype among float32, bfloat16, float16, got {x.dtype}, "
            f"{B.dtype} and {C.dtype}; use backend 'chunk' or 'naive'"
        )
    if x.device.type != "cuda" and not _INTERPRETED:
        raise ValueError(f"backend 'triton' needs tensors on a CUDA device, got {x.device}; use backend 'chunk'")
    launch = launch or default_launch(x.dtype, precision)
    if launch[0].chunk != launch[1].chunk:
        raise ValueError(f"both launches must have one chunk length, got {launch[0].chunk} and {launch[1].chunk}")
    x, dt, B, C = (v if v.stride(-1) == 1 else v.contiguous() for v in (x, dt, B, C))
    if lengths is not None:
        lengths = lengths.to(device=x.device)
    if cu_seqlens is not None:
        cu_seqlens = cu_seqlens.to(device=x.device, non_blocking=True)
    with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]  # torch publishes no types here
        y, final = _Scan.apply(x, dt, A, B, C, D, initial_state, lengths, cu_seqlens, precision, launch)
    return y, final


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        dt: torch.Tensor,
        A: torch.Tensor,
        B: torch.Tensor,
        C: torch.Tensor,
        D: torch.Tensor | None,
        start: torch.Tensor | None,
        lengths: torch.Tensor | None,
        cu: torch.Tensor | None,
        precision: str,
        launch: tuple[Launch, Launch],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        b, length, h, p = x.shape
        n = B.shape[-1]
        sequences = b if cu is None else len(cu) - 1
        save = any(ctx.needs_input_grad)
        run = launch[0]
        A = A.contiguous()
        D = None if D is None else D.contiguous()
        start = None if start is None else start.contiguous()
        y = torch.empty((b, length, h, p), dtype=x.dtype, device=x.device)
        final = torch.empty(
            (sequences, h, p, n), dtype=torch.float32 if start is None else start.dtype, device=x.device
        )
        chunks = _chunks(b, length, sequences, run.chunk, cu is not None)
        saved = torch.empty((chunks if save else 0, h, n, p), dtype=x.dtype, device=x.device)
        if sequences:
            scan_forward[(sequences * h,)](
                x, dt, A, B, C, _or(D, A), _or(start, A), _or(cu, A), _or(lengths, A), y, final, saved,
                length, *_strides(x, dt, B, C),
                HAS_D=D is not None, HAS_START=start is not None, PACKED=cu is not None, PADDED=lengths is not None,
                SAVE=save, heads=h, p=p, n=n, Q=run.chunk, P=_tile(p), N=_tile(n),
                PRECISION=precision, STAGES=run.stages,
                num_warps=run.warps, num_stages=run.stages, maxnreg=REGISTERS, enable_fp_fusion=True,
            )  # fmt: skip
        ctx.save_for_backward(x, dt, A, B, C, D, start, lengths, cu, saved)
        ctx.set_materialize_grads(False)
        ctx.precision = precision
        ctx.launch = launch[1]
        return y, final

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *slopes: torch.Tensor | None) -> Any:
        dy, dfinal = slopes
        x, dt, A, B, C, D, start, lengths, cu, saved = ctx.saved_tensors
        run = ctx.launch
        b, length, h, p = x.shape
        n = B.shape[-1]
        sequences = b if cu is None else len(cu) - 1
        dy = torch.zeros_like(x, memory_format=torch.contiguous_format) if dy is None else dy.contiguous()
        dfinal = None if dfinal is None else dfinal.contiguous()
        chunks = _chunks(b, length, sequences, run.chunk, cu is not None)
        dx, ddt, dB, dC = (torch.empty(v.shape, dtype=v.dtype, device=v.device) for v in (x, dt, B, C))
        # packed rows leave some of these unused
        parts = torch.zeros((2, chunks, h), device=x.device)
        dS = torch.empty((sequences, h, n, p), device=x.device)
        if sequences:
            scan_backward[(sequences,)](
                x, dt, A, B, C, _or(D, A), _or(start, A), _or(cu, A), _or(lengths, A), saved, dy, _or(dfinal, A),
                dx, ddt, parts[0], dB, dC, parts[1], dS, length, *_strides(x, dt, B, C),
                HAS_D=D is not None, HAS_START=start is not None, HAS_DFINAL=dfinal is not None,
                PACKED=cu is not None, PADDED=lengths is not None,
                heads=h, p=p, n=n, Q=run.chunk, P=_tile(p), N=_tile(n), PRECISION=ctx.precision, STAGES=run.stages,
                num_warps=run.warps, num_stages=run.stages, maxnreg=REGISTERS, enable_fp_fusion=True,
            )  # fmt: skip
        dA, dD = parts.sum(1)
        dstart = None if start is None else dS.transpose(2, 3).to(start.dtype)
        return dx, ddt, dA.to(A.dtype), dB, dC, None if D is None else dD.to(D.dtype), dstart, *[None] * 4


def _chunks(b: int, length: int, sequences: int, chunk: int, packed: bool) -> int:
    return length // chunk + sequences if packed else b * triton.cdiv(length, chunk)


def _tile(size: int) -> int:
    # products need at least 16 in every direction
    power: int = triton.next_power_of_2(size)
    return max(16, power)


def _or(tensor: torch.Tensor | None, other: torch.Tensor) -> torch.Tensor:
    # a kernel needs some pointer where its flag says that there is nothing to read
    return other if tensor is None else tensor


def _strides(x: torch.Tensor, dt: torch.Tensor, B: torch.Tensor, C: torch.Tensor) -> tuple[int, ...]:
    return (*x.stride()[:3], *dt.stride()[:3], *B.stride()[:2], *C.stride()[:2])
