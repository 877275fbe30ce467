"""``recurra bench memories``: what learning the memories costs per event, and apart from it the mixture."""

import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from ...engine.config import Config
from ...engine.engine import Engine
from ...engine.engine import open as open_engine
from ...engine.fast import Context, FastMemory
from .fixtures import made_events, publish_random

__all__ = ["bench_memories"]

_BATCH = 512
_LOOSE = 2_000


def bench_memories(
    *, events: int = 40_000, users: int = 5_000, items: int = 10_000, rounds: int = 10, seed: int = 0
) -> dict[str, Any]:
    """Measure in microseconds of processor time per event, medians over ``rounds``; return the JSON of the command.

    Three engines with a version of random weights take in the same made-up events in batches of 512, in turns: one
    without the error memory and the mixture, one with the former, one that learns the mixture from every event, too.
    The counting memories learn the same events directly, in batches and one by one.
    """
    stream = made_events(events, users, items, seed)
    per_round = len(stream) // (rounds + 1)
    with ExitStack() as stack:
        engines = {
            name: _engine(stack, items, sample, errors, seed)
            for name, sample, errors in [("states", 0.0, False), ("errors", 0.0, True), ("mixture", 1.0, True)]
        }
        found: dict[str, list[float]] = {name: [] for name in engines}
        # the first round compiles kernels and fills caches
        for number in range(rounds + 1):
            part = stream[number * per_round : (number + 1) * per_round]
            for name, engine in engines.items():
                began_s = time.process_time()
                for start in range(0, len(part), _BATCH):
                    engine.ingest(part[start : start + _BATCH])
                if number:
                    found[name].append((time.process_time() - began_s) / len(part) * 1e6)
        taken = {name: statistics.median(values) for name, values in found.items()}
        error_us = statistics.median(b - a for a, b in zip(found["states"], found["errors"], strict=True))
        mixture_us = statistics.median(b - a for a, b in zip(found["errors"], found["mixture"], strict=True))
    counting = {
        name: _counting(events, users, items, batch, seed) for name, batch in [("batch_512", _BATCH), ("batch_1", 1)]
    }
    return {
        "learn_us": {
            "counting": {name: round(value, 1) for name, value in counting.items()},
            "error": round(error_us, 1),
            "all": round(counting["batch_512"] + error_us, 1),
        },
        "mixture_us": round(mixture_us, 1),
        "ingest_us": {name: round(value, 1) for name, value in taken.items()},
        "events": events,
        "users": users,
        "items": items,
        "rounds": rounds,
        "seed": seed,
    }


def _engine(stack: ExitStack, items: int, sample: float, errors: bool, seed: int) -> Engine:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="recurra-bench-")))
    publish_random(folder, items, seed)
    config, change = Config(seed=seed), msgspec.structs.replace
    config = change(
        config,
        training=change(config.training, mode="off"),
        mix=change(config.mix, budget=0.0, sample=sample),
        fast=config.fast if errors else change(config.fast, error_events=0),
    )
    return stack.enter_context(open_engine(folder, config))


def _counting(events: int, users: int, items: int, batch: int, seed: int) -> float:
    """Return the microseconds per event of the second half of a stream."""
    rng = np.random.default_rng(seed)
    who = np.minimum(users ** rng.random(events), users - 1).astype(np.int32)
    what = np.minimum(items ** rng.random(events), items - 1).astype(np.int32)
    times_ms = np.arange(events, dtype=np.int64) * 1_000
    memory = FastMemory(Config().fast)
    no_context = Context(np.empty(0, np.int32), np.empty(0, np.int64))
    half = events // 2
    for start in range(0, half, _BATCH):
        part = slice(start, min(half, start + _BATCH))
        memory.learn(who[part], what[part], times_ms[part], lambda _: no_context)
    # one by one a part is enough
    end = events if batch > 1 else min(events, half + _LOOSE)
    began_s = time.process_time()
    for start in range(half, end, batch):
        part = slice(start, min(end, start + batch))
        memory.learn(who[part], what[part], times_ms[part], lambda _: no_context)
    return (time.process_time() - began_s) / (end - half) * 1e6
