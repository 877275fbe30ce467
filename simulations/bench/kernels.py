"""`bench kernels`: the GPU kernels beside their peers and beside the memory's own speed, in one run.

The peers of the scan are the chunk version in plain torch, the same compiled, and mamba-ssm's Triton scan where it can
be imported. The step is held against the bandwidth of a copy.
"""

import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
import torch

from recurra.kernels import ssd
from recurra.kernels.block import LayerWeights

from .gpu_timing import Tensors, scan_inputs, spread_ms, times_ms

__all__ = ["PARTS", "bench_kernels"]

# what can be timed alone: compiling the peers' kernels takes minutes
PARTS = ("bfloat16", "float32", "step")


def bench_kernels(
    *,
    device: str = "cuda",
    batch: int = 2048,
    length: int = 200,
    heads: int = 4,
    head_dim: int = 32,
    state: int = 32,
    slots: int = 1_000_000,
    repeats: int = 30,
    peers: tuple[str, ...] = ("torch", "torch compiled", "mamba-ssm"),
    tune: bool = False,
    parts: tuple[str, ...] = PARTS,
    seed: int = 0,
) -> dict[str, Any]:
    """Time every kernel on ``device`` (a CUDA device); times in ms as median with the 10th and 90th percentile.

    ``parts`` are scans of ``batch`` sequences of ``length`` in ``bfloat16`` and ``float32``, with the default launches
    or, with ``tune``, with the fastest of those that are tried first; and the ``step`` of ``slots`` users, one event
    each in random order. Raises ``ValueError`` on any other device: times of interpreted kernels mean nothing.
    """
    if torch.device(device).type != "cuda" or not torch.cuda.is_available():
        raise ValueError(f"kernels are timed on a CUDA device, got {device!r}; without one there is nothing to measure")
    import triton

    rng = torch.Generator(device).manual_seed(seed)
    shape = batch, length, heads, head_dim, state
    found: dict[str, Any] = {
        "hardware": torch.cuda.get_device_name(device),
        "versions": {"torch": torch.__version__, "triton": triton.__version__},
        "shape": dict(zip(("batch", "length", "heads", "head_dim", "state"), shape, strict=True)),
    }
    scans = [
        _bench_scan(shape, dtype, device, rng, repeats, peers, tune=tune)
        for name, dtype in (("bfloat16", torch.bfloat16), ("float32", torch.float32))
        if name in parts
    ]
    if scans:
        found["scan"] = scans
    if "step" in parts:
        weights = _weights(2, 64, heads, head_dim, state, np.random.default_rng(seed))
        kinds = {"float32": torch.float32, "bfloat16": torch.bfloat16}
        found["copy_gb_s"] = copy = _copy_gb_s(device, repeats)
        found["step"] = [_bench_step(weights, slots, kept, device, rng, repeats, copy) for kept in kinds.values()]
        found["latency"] = {name: _bench_latency(weights, kept, device, rng) for name, kept in kinds.items()}
    return found


def _copy_gb_s(device: str, repeats: int) -> float:
    # bytes read and bytes written
    source = torch.rand(1 << 30, device=device)
    target = torch.empty_like(source)
    return round(2 * source.nbytes / times_ms(lambda: target.copy_(source), repeats)["ms"] / 1e6, 1)


def _bench_scan(
    shape: tuple[int, int, int, int, int], dtype: torch.dtype, device: str, rng: torch.Generator,
    repeats: int, peers: tuple[str, ...], *, tune: bool,
) -> dict[str, Any]:  # fmt: skip
    given, slope = scan_inputs(shape, dtype, device, rng)
    plain = {name: v.to(dtype) for name, v in given.items()}
    runs: dict[str, tuple[Callable[..., torch.Tensor], Tensors]] = {}
    if "torch" in peers:
        runs["torch"] = (_chunk, plain)
    if "torch compiled" in peers:
        runs["torch compiled"] = (torch.compile(_chunk, dynamic=False), plain)
    if "mamba-ssm" in peers:
        runs |= {f"mamba-ssm, chunks of {chunk}": (_mamba(chunk), given) for chunk in (64, 128, 256)}
    result: dict[str, Any] = {"dtype": str(dtype).removeprefix("torch.")}
    for name, (run, tensors) in runs.items():
        try:
            result[name] = _both_ways(run, tensors, slope, repeats)
        except Exception as error:
            # a peer that is missing or does not fit; triton's errors, torch's and those of imports have no other base
            result[name] = f"{type(error).__name__}: {str(error)[:200]}"
        torch.cuda.empty_cache()
    # the peers' float32 products are tf32 or plain, as they have it
    for precision in ("tf32", "tf32x3") if dtype == torch.float32 else (None,):
        ours = _bench_ours(shape, dtype, precision or "tf32x3", given, slope, device, repeats, tune=tune)
        for way in ("forward", "both"):
            best = min((result[name][way]["ms"] for name in runs if isinstance(result[name], dict)), default=None)
            ours[f"ratio_{way}"] = None if best is None else round(best / ours[way]["ms"], 2)
        result["recurra" if precision is None else f"recurra, {precision}"] = ours
    return result


def _bench_ours(
    shape: tuple[int, int, int, int, int], dtype: torch.dtype, precision: str, given: Tensors, slope: torch.Tensor,
    device: str, repeats: int, *, tune: bool,
) -> dict[str, Any]:  # fmt: skip
    from recurra.kernels.ssd.triton import default_launch, ssd_triton

    from .tuning import best_launches

    launch = default_launch(dtype, precision)
    if tune:
        launch = best_launches(device=device, shape=shape, dtype=dtype, precision=precision)

    def run(**tensors: Any) -> torch.Tensor:
        return ssd_triton(**tensors, precision=precision, launch=launch)[0]

    both = _both_ways(run, given, slope, repeats)
    return {"launch": [part._asdict() for part in launch], **both}


def _chunk(**given: torch.Tensor) -> torch.Tensor:
    return ssd(**given, backend="chunk")[0]


def _mamba(chunk: int) -> Callable[..., torch.Tensor]:
    def run(
        x: torch.Tensor, dt: torch.Tensor, A: torch.Tensor, B: torch.Tensor, C: torch.Tensor, D: torch.Tensor
    ) -> Any:
        # its top level needs a CUDA extension, these modules do not
        peer: Any = import_module("mamba_ssm.ops.triton.ssd_combined")
        return peer.mamba_chunk_scan_combined(x, dt, A, B.unsqueeze(2), C.unsqueeze(2), chunk, D=D)

    return run


def _both_ways(
    run: Callable[..., torch.Tensor], given: Tensors, slope: torch.Tensor, repeats: int
) -> dict[str, dict[str, float]]:
    # forward as in serving; forward and backward as in training, gradients of every input
    with torch.no_grad():
        forward = times_ms(lambda: run(**given), repeats)
    leaves = {name: v.detach().clone().requires_grad_() for name, v in given.items()}
    inputs = list(leaves.values())
    both = times_ms(lambda: torch.autograd.grad(run(**leaves), inputs, slope), repeats)
    return {"forward": forward, "both": both}


def _weights(k: int, d: int, h: int, p: int, n: int, rng: np.random.Generator) -> LayerWeights:
    e, m = h * p, 32
    w, r = e + 2 * n, 2 * e + 2 * n + h
    shapes = {
        "in_weight": (k, d, r), "in_bias": (k, r), "conv_weight": (k, 4, w), "conv_bias": (k, w),
        "time_in": (k, 3, m), "time_in_bias": (k, m), "time_out": (k, m, 2 * h), "time_out_bias": (k, 2 * h),
        "dt_bias": (k, h), "A": (k, h), "D": (k, h), "gate_norm": (k, e), "out_weight": (k, e, d), "out_bias": (k, d),
        "norm_weight": (k, d), "norm_bias": (k, d), "ffn_in": (k, d, 4 * d), "ffn_in_bias": (k, 4 * d),
        "ffn_out": (k, 4 * d, d), "ffn_out_bias": (k, d), "ffn_norm_weight": (k, d), "ffn_norm_bias": (k, d),
    }  # fmt: skip
    made = {name: (0.1 * rng.standard_normal(shape)).astype(np.float32) for name, shape in shapes.items()}
    made["A"] = -np.exp(made["A"])
    return LayerWeights(**made)


def _bench_step(
    weights: LayerWeights, slots: int, kept: torch.dtype, device: str, rng: torch.Generator, repeats: int, copy: float
) -> dict[str, Any]:
    from recurra.kernels.block.triton import layers_step_triton, mix_triton, weights_to

    on_device = weights_to(weights, device)
    k, d, r = weights.in_weight.shape
    e, h = weights.gate_norm.shape[1], weights.A.shape[1]
    w = weights.conv_bias.shape[1]
    n = (w - e) // 2
    state = torch.empty(slots, k, n, e, device=device, dtype=kept).normal_(generator=rng)
    window = torch.empty(slots, k, 3, w, device=device, dtype=kept).normal_(generator=rng)
    order = torch.randperm(slots, generator=rng, device=device)
    projected = torch.randn(slots, r, generator=rng, device=device)
    modulation = torch.randn(slots, 2 * h, generator=rng, device=device)
    kernel = times_ms(
        lambda: mix_triton(on_device, 0, projected, modulation, order, None, state, window, 1e-5), repeats
    )
    # state and window in and out, what the projection gives in, y out
    moved = slots * (2 * (n * e + 3 * w) * state.element_size() + 4 * (r + 2 * h + e) + 8)
    rate = moved / kernel["ms"] / 1e6
    a = torch.randn(slots, d, generator=rng, device=device)
    phi = torch.randn(slots, 3, generator=rng, device=device)
    layers = times_ms(
        lambda: layers_step_triton(
            on_device, a, phi, order, None, state, window, residual=True, norm_eps=1e-5, ffn_eps=1e-12
        ),
        max(5, repeats // 3),
    )
    return {
        "storage": str(kept).removeprefix("torch."),
        "slots": slots,
        "kernel_one_layer": kernel,
        "bytes_per_event": moved // slots,
        "gb_s": round(rate, 1),
        "share_of_copy": round(rate / copy, 3),
        "two_layers_with_products": layers,
        "events_per_s": round(slots / layers["ms"] * 1e3),
    }


def _bench_latency(
    weights: LayerWeights, kept: torch.dtype, device: str, rng: torch.Generator
) -> dict[str, dict[str, Any]]:
    # one event of one user through both layers, with and without a CUDA graph; and from host to host by the graph
    from recurra.kernels.block.triton import layers_step_triton, weights_to

    on_device = weights_to(weights, device)
    k, d, _ = weights.in_weight.shape
    e = weights.gate_norm.shape[1]
    w = weights.conv_bias.shape[1]
    state = torch.randn(1000, k, (w - e) // 2, e, generator=rng, device=device).to(kept)
    window = torch.randn(1000, k, 3, w, generator=rng, device=device).to(kept)
    found = {}
    for events in (1, 256):
        a = torch.randn(events, d, generator=rng, device=device)
        phi = torch.randn(events, 3, generator=rng, device=device)
        rows = torch.randperm(1000, generator=rng, device=device)[:events]

        def step(a: torch.Tensor = a, phi: torch.Tensor = phi, rows: torch.Tensor = rows) -> torch.Tensor:
            return layers_step_triton(
                on_device, a, phi, rows, None, state, window, residual=True, norm_eps=1e-5, ffn_eps=1e-12
            )

        eager = times_ms(step, 200)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out = step()
        found[f"batch_{events}"] = {
            "eager": eager,
            "cuda_graph": times_ms(graph.replay, 200),
            "cuda_graph_host_to_host": _round_trip_ms(graph, a, phi, rows, out),
        }
    return found


def _round_trip_ms(
    graph: torch.cuda.CUDAGraph, a: torch.Tensor, phi: torch.Tensor, rows: torch.Tensor, out: torch.Tensor
) -> dict[str, float]:
    # by the host's clock: the event's vector, features and slot go in, its user's vector comes out
    sent = [tensor.cpu().pin_memory() for tensor in (a, phi, rows)]
    took = []
    for _ in range(220):
        begin = time.perf_counter()
        for there, here in zip((a, phi, rows), sent, strict=True):
            there.copy_(here, non_blocking=True)
        graph.replay()
        out.cpu()
        took.append(1e3 * (time.perf_counter() - begin))
    return spread_ms(took[20:])
