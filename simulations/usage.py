"""Cost of a run: time, processor seconds of child processes, and peak memory."""

import os
import resource
import time
from pathlib import Path
from types import TracebackType
from typing import Self

__all__ = ["Usage"]


class Usage:
    """Measures from entry to exit of a ``with`` block; the figures are final after it.

    ``children_cpu_s`` counts child processes that ended within the block. ``peak_mb`` is the peak of this process plus
    the highest peak among child processes that were alive at a call of ``sample``.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self.children_cpu_s = 0.0
        self.peak_mb = 0.0
        self._children_peak_mb = 0.0

    def __enter__(self) -> Self:
        self._started = time.perf_counter()
        self._children_before = _children_cpu_s()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.seconds = time.perf_counter() - self._started
        self.children_cpu_s = _children_cpu_s() - self._children_before
        self.peak_mb = _peak_mb(os.getpid()) + self._children_peak_mb

    def sample(self) -> None:
        """Look at the child processes that are alive now; called while they have done their work but not ended."""
        peaks = [_peak_mb(child) for child in _children()]
        self._children_peak_mb = max(self._children_peak_mb, max(peaks, default=0.0))


def _children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _children() -> list[int]:
    found: list[int] = []
    for thread in Path("/proc/self/task").glob("*/children"):
        try:
            found.extend(int(pid) for pid in thread.read_text().split())
        except OSError:
            # the thread ended meanwhile
            continue
    return found


def _peak_mb(pid: int) -> float:
    """Return the peak resident memory of a process, 0 when it is gone; ``ru_maxrss`` would include its parent's."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        if pid != os.getpid():
            return 0.0
        # no /proc on this system
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    lines = (line.split() for line in status.splitlines())
    return next((int(parts[1]) / 1024 for parts in lines if parts[0] == "VmHWM:"), 0.0)
