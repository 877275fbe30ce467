"""Inputs of a GPU scan, and how long a call on the device takes."""

import statistics
from collections.abc import Callable
from typing import Any

import torch

__all__ = ["Tensors", "scan_inputs", "spread_ms", "times_ms"]

Tensors = dict[str, torch.Tensor]


def scan_inputs(
    shape: tuple[int, ...], dtype: torch.dtype, device: str, rng: torch.Generator
) -> tuple[Tensors, torch.Tensor]:
    """Arguments of a scan as the model starts with them, and a gradient of its output; dt, A and D are float32."""
    b, length, h, p, n = shape
    given = {
        "x": torch.randn(b, length, h, p, generator=rng, device=device).to(dtype),
        "dt": torch.rand(b, length, h, generator=rng, device=device) * 0.1 + 1e-3,
        "A": -15 * torch.rand(h, generator=rng, device=device) - 1,
        "B": torch.randn(b, length, n, generator=rng, device=device).to(dtype),
        "C": torch.randn(b, length, n, generator=rng, device=device).to(dtype),
        "D": torch.ones(h, device=device),
    }
    return given, torch.randn(b, length, h, p, generator=rng, device=device).to(dtype)


def times_ms(run: Callable[[], Any], repeats: int) -> dict[str, float]:
    """Time ``run`` on the current CUDA device, after three calls that do not count: median, 10th, 90th percentile."""
    for _ in range(3):
        run()
    # torch publishes no types for its events
    event: Any = torch.cuda.Event
    marks = [(event(enable_timing=True), event(enable_timing=True)) for _ in range(repeats)]
    for begin, end in marks:
        begin.record()
        run()
        end.record()
    torch.cuda.synchronize()
    return spread_ms([begin.elapsed_time(end) for begin, end in marks])


def spread_ms(times: list[float]) -> dict[str, float]:
    """Return the median, the 10th and the 90th percentile of times in ms."""
    took = sorted(times)
    low, high = took[len(took) // 10], took[-1 - len(took) // 10]
    return {"ms": round(statistics.median(took), 4), "p10": round(low, 4), "p90": round(high, 4)}
