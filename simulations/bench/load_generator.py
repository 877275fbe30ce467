"""A load generator: the same call from several threads, as fast as answers come or at a given rate."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Load", "drive"]

_KEPT_ERRORS = 5


class Load(NamedTuple):
    """What a load did: latencies of the calls that succeeded, how many failed, and the first few reasons."""

    latencies_ms: NDArray[np.float64]
    failed: int
    errors: list[str]
    seconds: float

    @property
    def qps(self) -> float:
        """Answers per second."""
        return len(self.latencies_ms) / max(self.seconds, 1e-9)

    def percentile_ms(self, percent: float) -> float:
        """Return a percentile of the latencies, nan when no call succeeded."""
        return float(np.percentile(self.latencies_ms, percent)) if len(self.latencies_ms) else float("nan")


def drive(
    connections: Sequence[Callable[[int], Any]],
    *,
    seconds: float | None = None,
    calls: int | None = None,
    rate: float | None = None,
    stop: threading.Event | None = None,
) -> Load:
    """Call every connection from its own thread until ``seconds`` passed, ``calls`` were made, or ``stop`` is set.

    A connection is called with the number of the call, from 0 and different for each; what it raises is a failure. With
    ``rate`` (calls per second of all together) call n is due n / rate seconds after the start, and its latency counts
    from then: a service that stalls is charged for the calls that waited. Without, each thread calls again at once.
    """
    if seconds is None and calls is None and stop is None:
        raise ValueError("a load needs an end: seconds, calls or stop")
    started = time.perf_counter()
    end = started + seconds if seconds is not None else float("inf")
    stop = stop or threading.Event()
    workers = [_Worker(call, place, len(connections), started) for place, call in enumerate(connections)]
    threads = [threading.Thread(target=worker.run, args=(end, calls, rate, stop)) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Load(
        np.array([latency for worker in workers for latency in worker.latencies_ms]),
        sum(worker.failed for worker in workers),
        [error for worker in workers for error in worker.errors][:_KEPT_ERRORS],
        time.perf_counter() - started,
    )


class _Worker:
    def __init__(self, call: Callable[[int], Any], first: int, stride: int, started: float) -> None:
        self._call = call
        self._first = first
        self._stride = stride
        self._started = started
        self.latencies_ms: list[float] = []
        self.failed = 0
        self.errors: list[str] = []

    def run(self, end: float, calls: int | None, rate: float | None, stop: threading.Event) -> None:
        number = self._first
        while not stop.is_set() and (calls is None or number < calls):
            due = time.perf_counter()
            if rate is not None:
                due = self._started + number / rate
                if due < end:
                    stop.wait(max(0.0, due - time.perf_counter()))
            if max(due, time.perf_counter()) >= end or stop.is_set():
                return
            try:
                self._call(number)
                self.latencies_ms.append((time.perf_counter() - due) * 1000)
            except Exception as error:
                self.failed += 1
                if len(self.errors) < _KEPT_ERRORS:
                    self.errors.append(f"{type(error).__name__}: {error}")
            number += self._stride
