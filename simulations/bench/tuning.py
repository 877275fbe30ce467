"""Times of the GPU scan's launches: what `default_launch` should be on the device at hand."""

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch

from .gpu_timing import scan_inputs, times_ms

__all__ = ["LAUNCHES", "best_launches", "time_launches"]

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
        except Exception as error:
            # triton's errors and torch's have no other base
            row["error"] = f"{type(error).__name__}: {str(error)[:200]}"
        found.append(row)
    return sorted(found, key=lambda row: row.get("backward", float("inf")))


def best_launches(
    *,
    device: str = "cuda",
    shape: tuple[int, int, int, int, int] = (2048, 200, 4, 32, 32),
    dtype: torch.dtype = torch.bfloat16,
    precision: str = "tf32x3",
    launches: Iterable[tuple[int, int, int]] | None = None,
) -> Any:
    """Return the forward and the backward launch, of one chunk, that together are the fastest in training.

    ``launches`` None tries those that may fit. Raises ``RuntimeError`` with the first one's error if none works.
    """
    from recurra.kernels.ssd.triton import Launch

    if launches is None:
        # products in three parts need three times the room
        longest = 32 if dtype == torch.float32 and precision != "tf32" else 64
        launches = [launch for launch in LAUNCHES if launch[0] <= longest]
    rows = time_launches(device=device, shape=shape, dtype=dtype, precision=precision, launches=launches, repeats=10)
    good = [row for row in rows if "error" not in row]
    if not good:
        raise RuntimeError(f"no launch of the scan works on {device}: {rows[0]['error']}")

    def best(chunk: int, part: str) -> dict[str, Any]:
        return min((row for row in good if row["chunk"] == chunk), key=lambda row: float(row[part]))

    chunks = {row["chunk"] for row in good}
    chunk = min(chunks, key=lambda each: float(best(each, "saving")["saving"] + best(each, "backward")["backward"]))
    pair = best(chunk, "saving"), best(chunk, "backward")
    return tuple(Launch(row["chunk"], row["warps"], row["stages"]) for row in pair)
