"""`bench train`: events learnt per second, every position of a window a target, beside training by prefixes."""

import os
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import torch
from threadpoolctl import threadpool_limits

from ...engine.config import ModelConfig, TrainingConfig
from ...engine.model import create_model
from ...engine.training import Learner, PackedWindows

__all__ = ["bench_train"]

# rows of a step of the peers; RecBole's default of 2,048 costs the same per row and needs 16 GB here
_PREFIX_ROWS = 64
_WINDOWS = 20
# of the product that says what the machine can do: float32 on a CPU, bfloat16 on a GPU, as the layers' products are
_PEAK_SIZE = {"cpu": 1_024, "cuda": 8_192}


def bench_train(
    *,
    items: int = 3_416,
    length: int = 200,
    threads: int = 1,
    device: str = "cpu",
    rounds: int = 5,
    round_s: float = 1.0,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Measure optimiser steps of ours and of the peers in one run, interleaved, ``rounds`` times ``round_s`` seconds.

    A step of ours learns all events of windows of ``length`` events with a softmax over all ``items``. A peer learns
    one event from each row: the events before it, padded to ``length``, as RecBole trains sequential models; so it
    learns as many events as it has rows. ``sasrec_windows`` is SASRec trained as ours is. Peers run with one of torch's
    threads and with ``threads``; the better counts. Wall time. On a GPU batches are 30 to 50 times as large, and all
    models multiply in bfloat16. The keys are those of the command line's JSON.
    """
    say = progress or (lambda _: None)
    before = torch.get_num_threads()
    try:
        with threadpool_limits(limits=1):
            runs = _runs(items, length, threads, device, seed)
            figures: dict[str, list[float]] = {name: [] for name in [*runs, "peak"]}
            for place in range(rounds + 1):
                say(f"round {place} of {rounds}")
                for name, run in runs.items():
                    figures[name].append(_rate(run, device, round_s))
                figures["peak"].append(_peak(threads, device))
        # the first round compiles and warms up
        return _report({name: values[1:] for name, values in figures.items()}, items, length, threads, device, rounds)
    finally:
        torch.set_num_threads(before)


Run = Callable[[], int]


def _runs(items: int, length: int, threads: int, device: str, seed: int) -> dict[str, Run]:
    """Return what learns a batch and says how many events these were."""
    rng = np.random.default_rng(seed)
    windows = _windows(items, length, _WINDOWS if device == "cpu" else 50 * _WINDOWS, rng)
    prefixes = _windows(items, length, _PREFIX_ROWS if device == "cpu" else 2_048, rng)
    last = np.zeros(len(prefixes.items), np.bool_)
    last[prefixes.offsets[1:] - 1] = True
    runs: dict[str, Run] = {"streaming": _stepping("streaming", items, length, windows, None, 1, threads, device)}
    for name, batch, counted in (
        ("sasrec_windows", windows, None),
        ("sasrec_prefixes", prefixes, last),
        ("streaming_prefixes", prefixes, last),
    ):
        for used in sorted({1, threads}):
            model = name.split("_")[0]
            parts = used if model == "streaming" else 1
            runs[f"{name}@{used}"] = _stepping(model, items, length, batch, counted, used, parts, device)
    return runs


def _windows(items: int, length: int, count: int, rng: np.random.Generator) -> PackedWindows:
    total = count * length
    times_ms = rng.integers(1_000, 86_400_000, total).cumsum()
    return PackedWindows(rng.integers(0, items, total), times_ms, np.arange(count + 1) * length, np.arange(total))


def _stepping(
    name: str,
    items: int,
    length: int,
    batch: PackedWindows,
    counted: Any,
    torch_threads: int,
    parts: int,
    device: str,
) -> Run:
    config = msgspec.structs.replace(ModelConfig(), name=name, max_length=length)
    model = create_model(config, items, generator=torch.Generator().manual_seed(0)).to(device)
    learner = Learner(
        model,
        TrainingConfig(),
        rate=1e-3,
        shape=lambda _: 1.0,
        rng=np.random.default_rng(0),
        seen_weight=1.0,
        threads=parts,
    )

    def run() -> int:
        torch.set_num_threads(1 if name == "streaming" else torch_threads)
        return learner.step(batch, counted=counted).events

    return run


def _rate(run: Run, device: str, round_s: float) -> float:
    # events per second over enough steps for the clock
    begin, events = time.perf_counter(), 0
    while time.perf_counter() - begin < round_s:
        events += run()
        _settle(device)
    return events / (time.perf_counter() - begin)


def _peak(threads: int, device: str) -> float:
    # multiply-adds per second of a large product
    torch.set_num_threads(threads)
    size, dtype = _PEAK_SIZE[device], torch.float32 if device == "cpu" else torch.bfloat16
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    torch.mm(left, right)
    _settle(device)
    begin = time.perf_counter()
    for _ in range(5):
        torch.mm(left, right)
    _settle(device)
    return 5 * size**3 / (time.perf_counter() - begin)


def _settle(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _multiply_adds(items: int) -> int:
    """Multiply-adds of learning one event: forward once, backward twice as many."""
    config = ModelConfig()
    d, e, n = config.d_model, config.heads * config.head_dim, config.d_state
    width = e + 2 * n
    layer = d * (e + width + config.heads) + config.d_conv * width + 3 * n * e + e * d + 8 * d * d
    return 3 * (config.layers * layer + items * d)


def _report(
    figures: dict[str, list[float]], items: int, length: int, threads: int, device: str, rounds: int
) -> dict[str, Any]:
    middle = {name: statistics.median(values) for name, values in figures.items()}
    names = ("sasrec_prefixes", "streaming_prefixes", "sasrec_windows")
    better = {name: max((key for key in middle if key.split("@")[0] == name), key=middle.__getitem__) for name in names}

    def entry(key: str) -> dict[str, Any]:
        values = figures[key]
        return {"train_events_per_s": round(middle[key], 1), "spread": [round(min(values), 1), round(max(values), 1)]}

    ours = middle["streaming"]
    peers = {name: entry(key) | {"torch_threads": int(key.split("@")[1])} for name, key in better.items()}
    fastest = max(names[:2], key=lambda name: middle[better[name]])
    limit = middle["peak"] / _multiply_adds(items)
    return {
        **entry("streaming"),
        "peer": {"name": fastest, **peers[fastest]},
        "ratio": round(ours / middle[better[fastest]], 1),
        "others": peers,
        "ratio_sasrec_windows": round(ours / middle[better["sasrec_windows"]], 1),
        "multiply_adds_per_event": _multiply_adds(items),
        "peak_gmac_per_s": round(middle["peak"] / 1e9, 1),
        "limit_events_per_s": round(limit),
        "limit_share": round(ours / limit, 3),
        "settings": {"items": items, "length": length, "threads": threads, "device": device, "rounds": rounds},
        "machine": {"processor": platform.processor() or platform.machine(), "cpus": os.cpu_count()}
        | ({} if device == "cpu" else {"device": torch.cuda.get_device_name()}),
    }
