"""The fused step of whole layers on a GPU (Triton): the same contract as ``layers_step``, with tensors.

Matrix products over all events of a call are torch's; between them one kernel reads a slot's window and state, consumes
its events and writes both back where they lie. ``triton`` comes with the optional extra ``gpu``.
"""

# what triton compiles has its own types, and triton publishes none
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from collections.abc import Mapping

import torch
from torch.nn import functional as F

try:
    import triton
    from triton import language as tl
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("the GPU step needs the package triton: install recurra[gpu]") from error

from .weights import LayerWeights

__all__ = ["default_warps", "layers_step_triton", "mix_triton", "weights_to"]

# state values per thread: more warps share a state but all repeat the work on its vectors
_PER_THREAD = 128


def weights_to(weights: LayerWeights, device: torch.device | str) -> dict[str, torch.Tensor]:
    """Copy the weights of the numba step to ``device``, under the same names."""
    return {name: torch.tensor(array, device=device) for name, array in weights._asdict().items()}


def layers_step_triton(
    weights: Mapping[str, torch.Tensor],
    a: torch.Tensor,
    phi: torch.Tensor,
    slots: torch.Tensor,
    offsets: torch.Tensor | None,
    state: torch.Tensor,
    window: torch.Tensor,
    *,
    residual: bool,
    norm_eps: float,
    ffn_eps: float,
) -> torch.Tensor:
    """Consume T events of R distinct slots; returns the last layer's output (T, d), float32.

    ``a`` (T, d) the events' vectors, ``phi`` (T, 3) gap features, both float32; events ``offsets[i]:offsets[i + 1]``
    belong to ``slots[i]``, and ``offsets`` None means one event per slot. ``state`` (slots, k, n, e) and ``window``
    (slots, k, K - 1, w), float32 or bfloat16 (the numba step's uint16 bits viewed as that), are advanced in place.
    Nothing is read back to the host, so that a call can be captured in a CUDA graph.
    """
    for k in range(len(weights["in_weight"])):
        hidden = F.silu(torch.addmm(weights["time_in_bias"][k], phi, weights["time_in"][k]))
        modulation = torch.addmm(weights["time_out_bias"][k], hidden, weights["time_out"][k])
        mixed = mix_triton(weights, k, a @ weights["in_weight"][k], modulation, slots, offsets, state, window, norm_eps)
        o = torch.addmm(weights["out_bias"][k], mixed, weights["out_weight"][k])
        size = a.shape[1:]
        c = F.layer_norm(o + a if residual else o, size, weights["norm_weight"][k], weights["norm_bias"][k], norm_eps)
        f = F.hardswish(torch.addmm(weights["ffn_in_bias"][k], c, weights["ffn_in"][k]))
        f = torch.addmm(weights["ffn_out_bias"][k], f, weights["ffn_out"][k])
        a = F.layer_norm(f + c, size, weights["ffn_norm_weight"][k], weights["ffn_norm_bias"][k], ffn_eps)
    return a


def mix_triton(
    weights: Mapping[str, torch.Tensor],
    k: int,
    projected: torch.Tensor,
    modulation: torch.Tensor,
    slots: torch.Tensor,
    offsets: torch.Tensor | None,
    state: torch.Tensor,
    window: torch.Tensor,
    norm_eps: float,
    *,
    warps: int | None = None,
) -> torch.Tensor:
    """Convolution, gates, scan, skip and gated norm of layer ``k``; returns (T, e), advances the slots in place.

    ``projected`` (T, r) columns z, x, B, C, dt without their bias; ``modulation`` (T, 2 h) gamma and beta; the rest as
    in ``layers_step_triton``. ``warps`` per program, None for ``default_warps``.
    """
    n, e = state.shape[2:]
    h = weights["A"].shape[1]
    out = torch.empty((len(projected), e), device=projected.device)
    if not len(slots):
        return out
    # a kernel runs on the current device
    with torch.cuda.device_of(out):  # type: ignore[no-untyped-call]  # torch publishes no types here
        _mix_kernel[(len(slots),)](
            projected, weights["in_bias"][k], modulation, slots, slots if offsets is None else offsets,
            state[:, k], window[:, k], weights["conv_weight"][k], weights["conv_bias"][k], weights["dt_bias"][k],
            weights["A"][k], weights["D"][k], weights["gate_norm"][k], out,
            state.stride(0), window.stride(0), norm_eps,
            h=h, p=e // h, n=n, H=triton.next_power_of_2(h), P=triton.next_power_of_2(e // h),
            N=triton.next_power_of_2(n), ONE=offsets is None,
            num_warps=warps or default_warps(n, e), enable_fp_fusion=True,
        )  # fmt: skip
    return out


def default_warps(n: int, e: int) -> int:
    """Warps per program for a state of ``n`` times ``e``: as few as hold it in registers, at most 8."""
    warps: int = triton.next_power_of_2(max(1, n * e // (32 * _PER_THREAD)))
    return min(8, warps)


@triton.jit
def _sigmoid(v):
    return 1.0 / (1.0 + tl.exp(-v))


@triton.jit
def _softplus(v):
    # log1p of a small u as u log(1 + u) / ((1 + u) - 1): the rounding of 1 + u cancels
    u = tl.exp(-tl.abs(v))
    w = 1.0 + u
    tail = tl.where(w == 1.0, u, tl.log(w) * u / tl.where(w == 1.0, 1.0, w - 1.0))
    return tl.maximum(v, 0.0) + tail


@triton.jit
def _taps(window, at, valid, w: tl.constexpr):
    # the three past values of the channels `at`, oldest first
    v0 = tl.load(window + at, mask=valid, other=0.0).to(tl.float32)
    v1 = tl.load(window + w + at, mask=valid, other=0.0).to(tl.float32)
    v2 = tl.load(window + 2 * w + at, mask=valid, other=0.0).to(tl.float32)
    return v0, v1, v2


@triton.jit
def _convolve(v0, v1, v2, v3, weight, bias, at, valid, w: tl.constexpr):
    u = tl.load(bias + at, mask=valid, other=0.0)
    u += tl.load(weight + at, mask=valid, other=0.0) * v0
    u += tl.load(weight + w + at, mask=valid, other=0.0) * v1
    u += tl.load(weight + 2 * w + at, mask=valid, other=0.0) * v2
    u += tl.load(weight + 3 * w + at, mask=valid, other=0.0) * v3
    return u * _sigmoid(u)


@triton.jit
def _keep(window, at, valid, v0, v1, v2, w: tl.constexpr):
    tl.store(window + at, v0.to(window.dtype.element_ty), mask=valid)
    tl.store(window + w + at, v1.to(window.dtype.element_ty), mask=valid)
    tl.store(window + 2 * w + at, v2.to(window.dtype.element_ty), mask=valid)


@triton.jit
def _mix_kernel(
    projected, in_bias, modulation, slots, offsets, state, window, conv_weight, conv_bias, dt_bias, A, D, norm, out,
    state_stride, window_stride, eps,
    h: tl.constexpr, p: tl.constexpr, n: tl.constexpr, H: tl.constexpr, P: tl.constexpr, N: tl.constexpr,
    ONE: tl.constexpr,
):  # fmt: skip
    # one slot; letters as in LayerWeights
    e: tl.constexpr = h * p
    w: tl.constexpr = e + 2 * n
    r: tl.constexpr = 2 * e + 2 * n + h
    run = tl.program_id(0).to(tl.int64)
    slot = tl.load(slots + run).to(tl.int64)
    state += slot * state_stride
    window += slot * window_stride
    head = tl.arange(0, H)
    channel = tl.arange(0, P)
    i = tl.arange(0, N)
    in_h = head < h
    in_n = i < n
    at_x = head[:, None] * p + channel[None, :]
    in_x = in_h[:, None] & (channel[None, :] < p)
    at_B = e + i
    at_C = e + n + i
    cell = i[:, None, None] * e + at_x[None, :, :]
    in_cell = in_n[:, None, None] & in_x[None, :, :]
    # the state comes first: it is the longest way
    S = tl.load(state + cell, mask=in_cell, other=0.0).to(tl.float32)
    x0, x1, x2 = _taps(window, at_x, in_x, w)
    B0, B1, B2 = _taps(window, at_B, in_n, w)
    C0, C1, C2 = _taps(window, at_C, in_n, w)
    begin = run
    end = run + 1
    if not ONE:
        begin = tl.load(offsets + run).to(tl.int64)
        end = tl.load(offsets + run + 1).to(tl.int64)
    for t in tl.range(begin, end, num_stages=1):
        row = projected + t * r
        x3 = tl.load(row + e + at_x, mask=in_x, other=0.0) + tl.load(in_bias + e + at_x, mask=in_x, other=0.0)
        B3 = tl.load(row + e + at_B, mask=in_n, other=0.0) + tl.load(in_bias + e + at_B, mask=in_n, other=0.0)
        C3 = tl.load(row + e + at_C, mask=in_n, other=0.0) + tl.load(in_bias + e + at_C, mask=in_n, other=0.0)
        x = _convolve(x0, x1, x2, x3, conv_weight, conv_bias, at_x, in_x, w)
        B = _convolve(B0, B1, B2, B3, conv_weight, conv_bias, at_B, in_n, w)
        C = _convolve(C0, C1, C2, C3, conv_weight, conv_bias, at_C, in_n, w)
        x0, x1, x2 = x1, x2, x3
        B0, B1, B2 = B1, B2, B3
        C0, C1, C2 = C1, C2, C3
        raw = tl.load(row + e + w + head, mask=in_h, other=0.0) + tl.load(in_bias + e + w + head, mask=in_h, other=0.0)
        gamma = tl.load(modulation + t * (2 * h) + head, mask=in_h, other=0.0)
        beta = tl.load(modulation + t * (2 * h) + h + head, mask=in_h, other=0.0)
        dt = _softplus(raw * (1.0 + gamma) + beta + tl.load(dt_bias + head, mask=in_h, other=0.0))
        decay = tl.exp(dt * tl.load(A + head, mask=in_h, other=0.0))
        S = decay[None, :, None] * S + B[:, None, None] * (dt[:, None] * x)[None, :, :]
        y = tl.sum(C[:, None, None] * S, 0) + tl.load(D + head, mask=in_h, other=0.0)[:, None] * x
        z = tl.load(row + at_x, mask=in_x, other=0.0) + tl.load(in_bias + at_x, mask=in_x, other=0.0)
        v = y * z * _sigmoid(z)
        scale = tl.rsqrt(tl.sum(tl.sum(v * v, 1), 0) / e + eps)
        tl.store(out + t * e + at_x, v * scale * tl.load(norm + at_x, mask=in_x, other=0.0), mask=in_x)
    tl.store(state + cell, S.to(state.dtype.element_ty), mask=in_cell)
    _keep(window, at_x, in_x, x0, x1, x2, w)
    _keep(window, at_B, in_n, B0, B1, B2, w)
    _keep(window, at_C, in_n, C0, C1, C2, w)
