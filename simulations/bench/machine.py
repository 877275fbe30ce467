"""Limits of the machine, and the clock: shared by the benchmarks that state a physical limit."""

import os
import platform
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from threadpoolctl import threadpool_limits

__all__ = ["Clock", "clock_of", "compute_threads", "copy_bytes_per_us", "machine", "multiply_adds_per_us", "timed"]

Clock = Callable[[], float]

_COPY_BYTES = 1 << 28
_PRODUCT = 1_024


@contextmanager
def compute_threads(threads: int) -> Iterator[None]:
    """Let torch and the linear algebra libraries compute with so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with threadpool_limits(limits=threads):
            yield
    finally:
        torch.set_num_threads(before)


def clock_of(device: str, threads: int) -> Clock:
    """CPU time for one thread on the CPU, so that a busy machine does not count; else wall time."""
    if device != "cpu":

        def settled() -> float:
            torch.cuda.synchronize(device)
            return time.perf_counter()

        return settled
    return time.process_time if threads == 1 else time.perf_counter


def timed(call: Callable[[Any], object], arguments: Iterable[Any], clock: Clock, *, warm: int = 0) -> float:
    """Microseconds per call, one call per argument; the first ``warm`` calls do not count."""
    given = list(arguments)
    for argument in given[:warm]:
        call(argument)
    begin = clock()
    for argument in given[warm:]:
        call(argument)
    return (clock() - begin) / (len(given) - warm) * 1e6


def copy_bytes_per_us(device: str, clock: Clock) -> float:
    """Bytes read plus bytes written per microsecond by a copy that fits no cache."""
    source, target = (torch.ones(_COPY_BYTES, dtype=torch.uint8, device=device) for _ in range(2))
    return 2 * _COPY_BYTES / timed(target.copy_, [source], clock)


def multiply_adds_per_us(device: str, clock: Clock) -> float:
    """Multiply-adds per microsecond of a large float32 matrix product."""
    a, b, out = (torch.ones(_PRODUCT, _PRODUCT, device=device) for _ in range(3))
    return _PRODUCT**3 / timed(lambda _: torch.mm(a, b, out=out), range(2), clock)


def machine(device: str = "cpu") -> dict[str, Any]:
    """Name the processor, and the device if it is another one."""
    described: dict[str, Any] = {"processor": platform.processor() or platform.machine(), "cpus": os.cpu_count()}
    if device != "cpu":
        described["device"] = torch.cuda.get_device_name(device)
    return described
