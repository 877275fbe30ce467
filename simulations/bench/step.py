"""`bench step`: the cost of advancing a user's state by one event, beside re-encoding the user's last 200 items."""

import os
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from ...engine.config import ModelConfig, StoreConfig
from ...engine.model import StepWeights, StreamingModel
from ...engine.states import StateSlab
from .peers import SASRecEncoder

__all__ = ["bench_step"]

_BATCHES = (1, 256, 1024)
_PEER_BATCHES = (1, 256)
_PEER_LENGTH = 200
Longs = NDArray[np.int64]
# the arguments of one StateSlab.advance
_Call = tuple[Longs, Longs, Longs, NDArray[np.bool_], Longs, Longs]

# events measured per round at batch 1, where one call is too short for the clock
_REPEATS_AT_1 = 50
_COPY_BYTES = 1 << 28


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
    wall time, and BLAS and torch get ``threads`` each. The keys are those of the command line's JSON.
    """
    say = progress or (lambda _: None)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with threadpool_limits(limits=threads):
            say(f"filling a slab of {slab:,} states")
            ours = _Ours(slab, items, state_dtype, seed)
            peer = SASRecEncoder(items).eval()
            clock = time.process_time if threads == 1 else time.perf_counter
            figures: dict[str, list[float]] = {}
            # the first round compiles and warms up
            for place in range(rounds + 1):
                say(f"round {place} of {rounds}")
                for name, value in _round(ours, peer, items, clock, seed + place).items():
                    figures.setdefault(name, []).append(value)
            return _report(
                {name: values[1:] for name, values in figures.items()},
                ours.slab.nbytes_per_slot,
                {"slab": slab, "threads": threads, "state_dtype": state_dtype, "items": items, "rounds": rounds},
            )
    finally:
        torch.set_num_threads(before)


class _Ours:
    """A slab in which every user has a state, with random events for them."""

    def __init__(self, users: int, items: int, dtype: str, seed: int) -> None:
        weights = StepWeights.of(StreamingModel(ModelConfig(), items))
        self.slab = StateSlab(weights, users, dtype)
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

    def _call(self, slots: Longs, length: int, *, reset: bool) -> _Call:
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


def _round(ours: _Ours, peer: SASRecEncoder, items: int, clock: Callable[[], float], seed: int) -> dict[str, float]:
    # microseconds per event of every part, once
    figures = {}
    for batch in _BATCHES:
        calls = [ours.events(batch, 1) for _ in range(_REPEATS_AT_1 if batch == 1 else 4)]
        figures[f"step_{batch}"] = _timed(lambda call: ours.slab.advance(*call), calls, clock) / batch
    anchor = StoreConfig().anchor
    calls = [ours.anchors(8, anchor) for _ in range(2)]
    figures["anchor"] = _timed(lambda call: ours.slab.advance(*call), calls, clock) / (8 * anchor)
    generator = torch.Generator().manual_seed(seed)
    with torch.inference_mode():
        for batch in _PEER_BATCHES:
            repeats = _REPEATS_AT_1 // 5 if batch == 1 else 1
            rows = [torch.randint(items, (batch, _PEER_LENGTH), generator=generator) for _ in range(repeats)]
            figures[f"peer_{batch}"] = _timed(lambda row: peer(row, every_position=True), rows, clock) / batch
            figures[f"peer_pruned_{batch}"] = _timed(peer, rows, clock) / batch
    source = np.ones(_COPY_BYTES, np.uint8)
    target = np.ones(_COPY_BYTES, np.uint8)
    # bytes read plus bytes written per microsecond
    figures["copy"] = 2 * _COPY_BYTES / _timed(lambda _: np.copyto(target, source), [None], clock)
    return figures


def _timed(call: Callable[[Any], object], arguments: list[Any], clock: Callable[[], float]) -> float:
    # microseconds per call
    begin = clock()
    for argument in arguments:
        call(argument)
    return (clock() - begin) / len(arguments) * 1e6


def _report(figures: dict[str, list[float]], slot_bytes: int, settings: dict[str, Any]) -> dict[str, Any]:
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
    limit_us = 2 * slot_bytes / middle["copy"]
    return {
        "batch": batches,
        "anchor_us_per_event": round(middle["anchor"], 3),
        "reencode_200": peer("peer"),
        "reencode_200_pruned": peer("peer_pruned"),
        "ratio_256": ratio("peer", 256),
        "ratio_1": ratio("peer", 1),
        "ratio_256_pruned": ratio("peer_pruned", 256),
        "ratio_1_pruned": ratio("peer_pruned", 1),
        "state_bytes": slot_bytes,
        "copy_gb_per_s": round(middle["copy"] / 1e3, 1),
        "limit_us": round(limit_us, 3),
        "limit_share": round(limit_us / middle["step_1024"], 3),
        "settings": settings,
        "clock": "cpu" if settings["threads"] == 1 else "wall",
        "machine": {"processor": platform.processor() or platform.machine(), "cpus": os.cpu_count()},
    }
