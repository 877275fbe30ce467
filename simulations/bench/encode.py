"""`bench encode`: a user's vector from the whole history, by ours and by its peers; one eager step of plain torch."""

import statistics
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch
from torch.nn import functional as F

from ...engine.config import ModelConfig
from ...engine.model import LayerState, StepWeights, StreamingLayer, StreamingModel
from ...engine.states import StateSlab
from .machine import clock_of, compute_threads, copy_bytes_per_us, machine, multiply_adds_per_us, timed
from .peers import SASRecEncoder
from .step import step_multiply_adds

__all__ = ["EagerStep", "bench_encode"]

_BATCHES = (1, 256)
_LENGTH = 200
_PEER_LENGTHS = (50, 200)


def bench_encode(
    *,
    device: str = "cpu",
    threads: int = 1,
    items: int = 3_416,
    batches: tuple[int, ...] = _BATCHES,
    rounds: int = 5,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Measure encoding histories of 200 events and single eager steps in one run, interleaved, ``rounds`` times each.

    ``fold`` is the slab's re-encoding at anchors (CPU only), ``scan`` the model's forward pass over whole rows, both in
    microseconds per event; the peers are SASRec over 50 and 200 events, microseconds per history, computing the last
    block whole and (``pruned``) for the last position only, and the step in plain torch operations. Shares compare the
    multiply-adds that a part needs, counted from the shapes, with what a large matrix product reaches in the same run.
    """
    say = progress or (lambda _: None)
    with compute_threads(threads), torch.no_grad():
        parts = _parts(device, threads, items, batches, torch.Generator().manual_seed(seed))
        clock = clock_of(device, threads)
        figures: dict[str, list[float]] = {}
        # the first round compiles and warms up
        for place in range(rounds + 1):
            say(f"round {place} of {rounds}")
            for name, (call, _) in parts.items():
                repeats = 1 if name.endswith("_256") else 5
                figures.setdefault(name, []).append(timed(lambda run: run(), [call] * repeats, clock))
            figures.setdefault("copy", []).append(copy_bytes_per_us(device, clock))
            figures.setdefault("multiply_adds", []).append(multiply_adds_per_us(device, clock))
    settings = {"device": device, "threads": threads, "items": items, "length": _LENGTH, "rounds": rounds}
    needed = {name: work for name, (_, work) in parts.items()}
    clock_name = "cpu" if device == "cpu" and threads == 1 else "wall"
    return _report({name: values[1:] for name, values in figures.items()}, needed, batches, settings, clock_name)


class EagerStep:
    """The streaming model's step in plain torch operations: states gathered by index, advanced, scattered back."""

    def __init__(self, model: StreamingModel, slots: int) -> None:
        self.model = model
        self._states = [LayerState.empty(slots, layer) for layer in self._layers]

    @property
    def _layers(self) -> list[StreamingLayer]:
        return cast(list[StreamingLayer], list(self.model.layers))

    @torch.inference_mode()
    def __call__(self, slots: torch.Tensor, items: torch.Tensor, phi: torch.Tensor) -> torch.Tensor:
        """Advance distinct ``slots`` (b) by an event each, ``items`` (b), features ``phi`` (b, 3): vectors (b, d)."""
        a: torch.Tensor = self.model.in_norm(F.embedding(items, self.model.embedding))
        for layer, states in zip(self._layers, self._states, strict=True):
            a, moved = layer.step(a, phi, LayerState(states.scan[slots], states.window[slots]))
            states.scan[slots], states.window[slots] = moved
        return a


def _parts(
    device: str, threads: int, items: int, batches: tuple[int, ...], generator: torch.Generator
) -> dict[str, tuple[Callable[[], object], int]]:
    # what is measured, each with the multiply-adds that it needs
    model = StreamingModel(ModelConfig(), items).eval()
    weights = StepWeights.of(model)
    step = step_multiply_adds(weights)
    # of the last layer z and all behind the scan are needed once per history
    maps = weights.layers
    spared = maps.out_weight[-1].size * 2 + maps.ffn_in[-1].size + maps.ffn_out[-1].size
    fold = step - spared * (_LENGTH - 1) // _LENGTH
    model.to(device)
    encode = torch.inference_mode()(SASRecEncoder(items).eval().to(device).forward)
    parts: dict[str, tuple[Callable[[], object], int]] = {}
    for batch in batches:
        rows = torch.randint(items, (batch, _LENGTH), generator=generator)
        times_ms = torch.randint(3_600_000, (batch, _LENGTH), generator=generator).cumsum(1)
        if device == "cpu":
            parts[f"fold_{batch}"] = _fold(weights, threads, rows, times_ms), fold * batch * _LENGTH
        rows, times_ms = rows.to(device), times_ms.to(device)
        parts[f"scan_{batch}"] = _bound(model, rows, times_ms), step * batch * _LENGTH
        eager = EagerStep(model, 4 * batch)
        slots = torch.randperm(4 * batch, generator=generator)[:batch].to(device)
        parts[f"eager_{batch}"] = _bound(eager, slots, rows[:, 0], torch.zeros(batch, 3, device=device)), step * batch
        for length in _PEER_LENGTHS:
            for whole in (True, False):
                name = f"sasrec_{length}{'' if whole else '_pruned'}_{batch}"
                work = _sasrec_multiply_adds(length, whole=whole) * batch
                parts[name] = _bound(encode, rows[:, :length], every_position=whole), work
    return parts


def _bound(call: Callable[..., object], *arguments: Any, **settings: Any) -> Callable[[], object]:
    return lambda: call(*arguments, **settings)


def _fold(weights: StepWeights, threads: int, rows: torch.Tensor, times_ms: torch.Tensor) -> Callable[[], object]:
    batch, length = rows.shape
    slab = StateSlab(weights, batch, threads=threads)
    runs = np.arange(batch), np.arange(batch) * length, np.full(batch, length), np.ones(batch, bool)
    return _bound(slab.advance, *runs, rows.numpy().ravel(), times_ms.numpy().ravel())


def _sasrec_multiply_adds(length: int, *, whole: bool, d: int = 64, layers: int = 2) -> int:
    # keys and values of all positions; query, output and feed-forward of those that are asked for; the causal half
    def layer(asked: int, pairs: int) -> int:
        return 2 * d * d * length + (2 + 8) * d * d * asked + 2 * d * pairs

    every = layer(length, length * (length + 1) // 2)
    return (layers - 1) * every + (every if whole else layer(1, length))


def _report(
    figures: dict[str, list[float]],
    needed: dict[str, int],
    batches: tuple[int, ...],
    settings: dict[str, Any],
    clock: str,
) -> dict[str, Any]:
    rate = statistics.median(figures["multiply_adds"])

    def entry(kind: str, events: int, unit: str) -> dict[str, Any]:
        found = {}
        for batch in batches:
            values = [value / (batch * events) for value in figures[f"{kind}_{batch}"]]
            work = needed[f"{kind}_{batch}"]
            found[str(batch)] = {
                unit: round(statistics.median(values), 3),
                "spread_us": [round(min(values), 3), round(max(values), 3)],
                "multiply_adds": work // (batch * events),
                "limit_share": round(work / rate / statistics.median(figures[f"{kind}_{batch}"]), 3),
            }
        return found

    peers = {kind: entry(kind, 1, "us_per_history") for kind in _kinds(figures, "sasrec")}
    ours = {
        kind: entry(kind, _LENGTH, "us_per_event") for kind in ("fold", "scan") if f"{kind}_{batches[0]}" in figures
    }
    best = next(iter(ours.values()))

    def ratio(batch: int, peer: str) -> float:
        return float(round(peers[peer][str(batch)]["us_per_history"] / best[str(batch)]["us_per_event"] / _LENGTH, 2))

    return {
        "ours": ours,
        "peers": {**peers, "eager_step": entry("eager", 1, "us_per_event")},
        # a whole history of 200 by the first of ours beside the peer's
        **{
            f"ratio_{batch}{tail}": ratio(batch, f"sasrec_{_LENGTH}{tail}")
            for batch in batches
            for tail in ("", "_pruned")
        },
        "limit": {
            "multiply_adds_g_per_s": round(rate / 1e3, 1),
            "copy_gb_per_s": round(statistics.median(figures["copy"]) / 1e3, 1),
            "scan_us_per_event": round(needed[f"scan_{batches[0]}"] / (batches[0] * _LENGTH) / rate, 3),
        },
        "settings": settings,
        "clock": clock,
        "machine": machine(settings["device"]),
    }


def _kinds(figures: dict[str, list[float]], start: str) -> list[str]:
    return list(dict.fromkeys(name.rsplit("_", 1)[0] for name in figures if name.startswith(start)))
