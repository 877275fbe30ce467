"""``recurra bench contention``: what training in the background takes from serving."""

import contextlib
import os
import signal
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from ...engine.config import Config
from ...engine.engine import Engine
from ...engine.engine import open as open_engine
from ...engine.errors import ClosedError, TrainingError
from ...engine.events import Event
from .fixtures import made_events, publish_random
from .load_generator import drive

__all__ = ["bench_contention"]

_USERS, _ITEMS = 5_000, 10_000
_EVENTS = 60_000
_BATCH = 512
# a round that reads each event so often outlasts every measurement
_ENDLESS = 5_000
_START_S = 120.0
_IMPORTS_S = 20.0


def bench_contention(
    share: float = 1.0, threads: int = 1, *, rounds: int = 6, seconds: float = 3.0, seed: int = 0
) -> dict[str, Any]:
    """Ask and take in as fast as possible while the training program runs, and while it is held; return the JSON.

    An engine of 10,000 items and 5,000 users trains a round that does not end. ``rounds`` times, for ``seconds`` each,
    one thread asks for lists, then one takes in durable batches of 512 events: with the program running, and with it
    stopped by a signal, in turns. ``share`` and ``threads`` are the settings of ``[training]``. Figures are medians
    over the rounds, a percentile being that of a round. Raises ``TrainingError`` if training does not begin.
    """
    with tempfile.TemporaryDirectory(prefix="recurra-bench-") as name:
        folder = Path(name)
        publish_random(folder, _ITEMS, seed)
        with open_engine(folder, _config(share, threads, seed)) as engine:
            stream = made_events(_EVENTS, _USERS, _ITEMS, seed)
            for start in range(0, _EVENTS, _BATCH):
                engine.ingest(stream[start : start + _BATCH])
            # every state folded and every kernel compiled before anything is measured
            _ask(engine, seconds, seed)
            with _training(engine) as program:
                return _measured(engine, program, rounds, seconds, seed) | {
                    "share": share,
                    "threads": threads,
                    "nice": engine.config.training.nice,
                    "processors": os.cpu_count(),
                    "rounds": rounds,
                    "items": _ITEMS,
                    "users": _USERS,
                    "seed": seed,
                }


def _config(share: float, threads: int, seed: int) -> Config:
    config = Config(seed=seed)
    training = msgspec.structs.replace(
        config.training, mode="off", share=share, threads=threads, tokens_per_event=_ENDLESS, seed=seed
    )
    return msgspec.structs.replace(config, training=training)


@contextlib.contextmanager
def _training(engine: Engine) -> Iterator[int]:
    """Train during the block; gives the program's process id once it computes its steps."""
    failures: list[str] = []

    def train() -> None:
        try:
            report = engine.train()
            failures.append(f"the round ended: {report.verdict}, {report.reason}")
        except (ClosedError, TrainingError) as error:
            failures.append(str(error))

    thread = threading.Thread(target=train, name="recurra-bench-training", daemon=True)
    thread.start()
    deadline = time.monotonic() + _START_S
    program: int | None = None
    # it has read the log and takes its steps when it has computed for so long that imports are behind it
    while program is None or _computed_s(program) < _IMPORTS_S:
        if failures or time.monotonic() > deadline:
            raise TrainingError(failures[0] if failures else "the training program did not begin")
        time.sleep(0.1)
        program = engine.health().training.pid
    try:
        yield program
    finally:
        os.kill(program, signal.SIGCONT)
    if failures:
        raise TrainingError(failures[0])


def _measured(engine: Engine, program: int, rounds: int, seconds: float, seed: int) -> dict[str, Any]:
    found: dict[bool, list[dict[str, float]]] = {False: [], True: []}
    for number in range(2 * rounds):
        training = number % 2 == 1
        os.kill(program, signal.SIGCONT if training else signal.SIGSTOP)
        computed_s, began_s = _computed_s(program), time.perf_counter()
        figures = _ask(engine, seconds, seed + number) | _take_in(engine, seconds, seed + number)
        passed_s = time.perf_counter() - began_s
        found[training].append(figures | {"training_processors": (_computed_s(program) - computed_s) / passed_s})
    off, on = (
        {key: round(statistics.median(each[key] for each in found[training]), 3) for key in found[training][0]}
        for training in (False, True)
    )
    return {
        "training_off": off,
        "training_on": on,
        "query_p99_ratio": round(on["query_p99_ms"] / off["query_p99_ms"], 3),
        "ingest_ratio": round(on["ingest_events_per_s"] / off["ingest_events_per_s"], 3),
    }


def _ask(engine: Engine, seconds: float, seed: int) -> dict[str, float]:
    rng = np.random.default_rng(seed)
    load = drive([lambda _: engine.recommend(f"user-{rng.integers(_USERS)}", 10)], seconds=seconds)
    return {
        "query_p50_ms": load.percentile_ms(50),
        "query_p99_ms": load.percentile_ms(99),
        "queries_per_s": load.qps,
    }


def _take_in(engine: Engine, seconds: float, seed: int) -> dict[str, float]:
    rng = np.random.default_rng(seed)
    began_s, taken = time.perf_counter(), 0
    while time.perf_counter() < began_s + seconds:
        now_ms = time.time_ns() // 1_000_000
        users, items = (np.minimum(count ** rng.random(_BATCH), count - 1).astype(int) for count in (_USERS, _ITEMS))
        pairs = zip(users.tolist(), items.tolist(), strict=True)
        engine.ingest(
            [Event(f"user-{user}", f"item-{item}", now_ms + place) for place, (user, item) in enumerate(pairs)]
        )
        taken += _BATCH
    engine.sync()
    return {"ingest_events_per_s": taken / (time.perf_counter() - began_s)}


def _computed_s(process: int) -> float:
    """Return the processor time that a process has used."""
    # the name, in brackets, may hold blanks; user and system time are the 14th and 15th field
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
