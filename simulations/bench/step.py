"""`bench step`: the cost of advancing a user's state by one event, beside re-encoding the user's last 200 items."""

import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ...engine.config import ModelConfig, StoreConfig
from ...engine.model import StepWeights, StreamingModel
from ...engine.states import StateSlab
from ...kernels.arrays import Int64s
from .machine import Clock, clock_of, compute_threads, copy_bytes_per_us, machine, multiply_adds_per_us, timed
from .peers import SASRecEncoder

__all__ = ["bench_step", "step_multiply_adds"]

_BATCHES = (1, 256, 1024)
_PEER_BATCHES = (1, 256)
_PEER_LENGTH = 200
# the arguments of one StateSlab.advance
_Call = tuple[Int64s, Int64s, Int64s, NDArray[np.bool_], Int64s, Int64s]

# calls per round, and how many before them do not count: caches hold what ran before, the processor has slowed down
_CALLS = {1: 200, 256: 24, 1024: 8}
_WARM = {1: 50, 256: 4, 1024: 2}


def bench_step(
    *,
    slab: int = 100_000,
    threads: int = 1,
    state_dtype: str = "float32",
    items: int = 3_416,
    rounds: int = 7,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Measure the step, the re-encoding at anchors and the peer in one run, interleaved, ``rounds`` times each.

    ``slab`` users hold a state (float32: 3.8 GB for 100,000); a batch is that many distinct users drawn at random.
    ``us_per_event`` is the median, the amortised re-encoding at anchors included: every A events a user's last A events
    are read once more. With one thread the clock is CPU time, so that a busy machine does not count; with more it is
    wall time, and the slab, BLAS and torch get ``threads`` each. The keys are those of the command line's JSON.
    """
    say = progress or (lambda _: None)
    with compute_threads(threads):
        say(f"filling a slab of {slab:,} states")
        ours = _Ours(slab, items, state_dtype, threads, seed)
        peer = SASRecEncoder(items).eval()
        clock = clock_of("cpu", threads)
        figures: dict[str, list[float]] = {}
        # the first round compiles and warms up
        for place in range(rounds + 1):
            say(f"round {place} of {rounds}")
            for name, value in _round(ours, peer, items, clock, seed + place).items():
                figures.setdefault(name, []).append(value)
        return _report(
            {name: values[1:] for name, values in figures.items()},
            ours.slab,
            {"slab": slab, "threads": threads, "state_dtype": state_dtype, "items": items, "rounds": rounds},
        )


def step_multiply_adds(weights: StepWeights) -> int:
    """Multiply-adds of an event: the matrix products, the convolution and three per number of the scan's state."""
    maps = weights.layers
    products = (
        maps.in_weight,
        maps.time_in,
        maps.time_out,
        maps.conv_weight,
        maps.out_weight,
        maps.ffn_in,
        maps.ffn_out,
    )
    return sum(part.size for part in products) + 3 * maps.gate_norm.size * weights.config.d_state


class _Ours:
    """A slab in which every user has a state, with random events for them."""

    def __init__(self, users: int, items: int, dtype: str, threads: int, seed: int) -> None:
        weights = StepWeights.of(StreamingModel(ModelConfig(), items))
        self.slab = StateSlab(weights, users, dtype, threads=threads)
        self.rng = np.random.default_rng(seed)
        self.items = items
        self.now_ms = 0
        for begin in range(0, users, 4096):
            slots = np.arange(begin, min(begin + 4096, users))
            self.slab.advance(*self._call(slots, 1, reset=True))

    def events(self, batch: int, length: int) -> _Call:
        """Draw distinct users, each with ``length`` new events."""
        return self._call(self.rng.choice(self.slab.slots, batch, replace=False), length, reset=False)

    def anchors(self, batch: int, length: int) -> _Call:
        """Draw distinct users, each to be read again from an anchor ``length`` events ago."""
        return self._call(self.rng.choice(self.slab.slots, batch, replace=False), length, reset=True)

    def _call(self, slots: Int64s, length: int, *, reset: bool) -> _Call:
        self.now_ms += 1000
        events = len(slots) * length
        return (
            slots,
            np.arange(len(slots)) * length,
            np.full(len(slots), length),
            np.full(len(slots), reset),
            self.rng.integers(0, self.items, events),
            np.full(events, self.now_ms),
        )


def _round(ours: _Ours, peer: SASRecEncoder, items: int, clock: Clock, seed: int) -> dict[str, float]:
    # microseconds per event of every part, once
    figures = {}
    for batch in _BATCHES:
        calls = [ours.events(batch, 1) for _ in range(_WARM[batch] + _CALLS[batch])]
        timing = timed(lambda call: ours.slab.advance(*call), calls, clock, warm=_WARM[batch])
        figures[f"step_{batch}"] = timing / batch
    anchor = StoreConfig().anchor
    calls = [ours.anchors(8, anchor) for _ in range(5)]
    figures["anchor"] = timed(lambda call: ours.slab.advance(*call), calls, clock, warm=1) / (8 * anchor)
    generator = torch.Generator().manual_seed(seed)
    with torch.inference_mode():
        for batch in _PEER_BATCHES:
            rows = [torch.randint(items, (batch, _PEER_LENGTH), generator=generator) for _ in range(20 // batch + 2)]
            figures[f"peer_{batch}"] = timed(lambda row: peer(row, every_position=True), rows, clock, warm=1) / batch
            figures[f"peer_pruned_{batch}"] = timed(peer, rows, clock, warm=1) / batch
    figures["copy"] = copy_bytes_per_us("cpu", clock)
    figures["multiply_adds"] = multiply_adds_per_us("cpu", clock)
    return figures


def _report(figures: dict[str, list[float]], slab: StateSlab, settings: dict[str, Any]) -> dict[str, Any]:
    middle = {name: statistics.median(values) for name, values in figures.items()}
    batches: dict[str, dict[str, Any]] = {}
    for batch in _BATCHES:
        each = [step + anchor for step, anchor in zip(figures[f"step_{batch}"], figures["anchor"], strict=True)]
        cost = statistics.median(each)
        batches[str(batch)] = {
            "us_per_event": round(cost, 3),
            "events_per_s": round(1e6 / cost),
            "spread_us": [round(min(each), 3), round(max(each), 3)],
            "step_only_us": round(middle[f"step_{batch}"], 3),
        }

    def peer(name: str) -> dict[str, Any]:
        return {
            "us_per_event": round(middle[f"{name}_256"], 1),
            "us_per_event_batch_1": round(middle[f"{name}_1"], 1),
            "spread_us": [round(min(figures[f"{name}_256"]), 1), round(max(figures[f"{name}_256"]), 1)],
        }

    def ratio(name: str, batch: int) -> float:
        return float(round(middle[f"{name}_{batch}"] / batches[str(batch)]["us_per_event"], 1))

    # an event reads and writes its user's whole state once: no step can be faster than that copy
    limit_us = 2 * slab.nbytes_per_slot / middle["copy"]
    multiply_adds = step_multiply_adds(slab.weights)
    compute_us = multiply_adds / middle["multiply_adds"]
    return {
        "batch": batches,
        "anchor_us_per_event": round(middle["anchor"], 3),
        "reencode_200": peer("peer"),
        "reencode_200_pruned": peer("peer_pruned"),
        "ratio_256": ratio("peer", 256),
        "ratio_1": ratio("peer", 1),
        "ratio_256_pruned": ratio("peer_pruned", 256),
        "ratio_1_pruned": ratio("peer_pruned", 1),
        "state_bytes": slab.nbytes_per_slot,
        "copy_gb_per_s": round(middle["copy"] / 1e3, 1),
        "limit_us": round(limit_us, 3),
        "limit_share": round(limit_us / middle["step_1024"], 3),
        "multiply_adds": multiply_adds,
        "multiply_adds_g_per_s": round(middle["multiply_adds"] / 1e3, 1),
        "multiply_add_limit_us": round(compute_us, 3),
        # the larger of the two limits: nothing that does one after the other can reach it
        "floor_us": round(max(limit_us, compute_us), 3),
        "floor_share": round(max(limit_us, compute_us) / middle["step_1024"], 3),
        "settings": settings,
        "clock": "cpu" if settings["threads"] == 1 else "wall",
        "machine": machine(),
    }
