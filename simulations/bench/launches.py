"""Times of the GPU scan's launches: what `default_launch` should be on the device at hand."""

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch

from .kernels import scan_inputs, times_ms

__all__ = ["LAUNCHES", "time_launches"]

# chunk, warps, stages
LAUNCHES = (
    *((16, warps, 1) for warps in (1, 2, 4)),
    *((32, warps, stages) for warps in (1, 2, 4) for stages in (1, 2)),
    *((64, warps, stages) for warps in (4, 8) for stages in (1, 2)),
)


def time_launches(
    *,
    device: str = "cuda",
    shape: tuple[int, int, int, int, int] = (2048, 200, 4, 32, 32),
    dtype: torch.dtype = torch.bfloat16,
    precision: str = "tf32x3",
    launches: Iterable[tuple[int, int, int]] = LAUNCHES,
    repeats: int = 20,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Forward without saving, forward that saves states, and backward of every launch, ms; fastest backward first.

    ``shape`` is batch, length, heads, channels per head, state size. A launch that does not fit the device has its
    error instead of times.
    """
    from recurra.kernels.ssd.triton import Launch, ssd_triton

    given, slope = scan_inputs(shape, dtype, device, torch.Generator(device).manual_seed(seed))
    leaves = {name: v.detach().clone().requires_grad_() for name, v in given.items()}

    def scan(tensors: dict[str, torch.Tensor], launch: tuple[int, int, int]) -> torch.Tensor:
        arguments: Any = tensors
        both = Launch(*launch), Launch(*launch)
        return ssd_triton(**arguments, precision=precision, launch=both)[0]

    def back(y: torch.Tensor) -> None:
        torch.autograd.grad(y, list(leaves.values()), slope, retain_graph=True)

    found: list[dict[str, Any]] = []
    for launch in launches:
        row: dict[str, Any] = dict(zip(("chunk", "warps", "stages"), launch, strict=True))
        try:
            row["forward"] = times_ms(partial(scan, given, launch), repeats)["ms"]
            row["saving"] = times_ms(partial(scan, leaves, launch), repeats)["ms"]
            row["backward"] = times_ms(partial(back, scan(leaves, launch)), repeats)["ms"]
        except RuntimeError as error:
            row["error"] = str(error)[:200]
        found.append(row)
    return sorted(found, key=lambda row: row.get("backward", float("inf")))
