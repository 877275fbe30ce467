"""The engine's side of training: starts the program, asks it, and copes with its death."""

import contextlib
import itertools
import os
import queue
import subprocess
import sys
import threading
from collections import deque
from pathlib import Path

import msgspec

from ..config import Config
from ..errors import ClosedError, TrainingError
from ..results import TrainReport
from .protocol import Reply, Request

__all__ = ["Trainer"]

# the program proper watches its input too, but only once its imports, which take seconds, are done
_PROGRAM = """
import os, runpy, select, threading
def watch():
    poll = select.poll()
    poll.register(0, 0)
    poll.poll()
    os._exit(0)
threading.Thread(target=watch, daemon=True).start()
runpy.run_module("recurra.engine.training", run_name="__main__", alter_sys=True)
"""
_EXIT_WAIT_S = 2.0
_STDERR_LINES = 20


class Trainer:
    """Trains in a separate program, one request at a time; thread-safe.

    The program is started at the first request and lives on for the next ones. It ends when this object is closed and
    also when this process ends in any way, since its standard input closes then. If it dies on its own, the
    request under way fails with ``TrainingError`` and the next one starts it again.

    ``data_dir`` is the engine's directory (``store/``, ``models/``); ``epoch`` the store's epoch: nothing is published
    once the store has another. What is learnt is what the store has committed; the caller syncs it before, if a loss of
    power must not leave a version that knows more than the store.
    """

    def __init__(self, data_dir: str | Path, config: Config, epoch: int) -> None:
        self._data_dir = Path(data_dir)
        self._config = config
        self._epoch = epoch
        self._lock = threading.Lock()
        self._child: _Child | None = None
        self._pending: int | None = None
        self._numbers = itertools.count(1)
        self._closed = False
        self.progress = 0.0

    @property
    def busy(self) -> bool:
        """Whether a request is under way."""
        return self._pending is not None

    @property
    def pid(self) -> int | None:
        """The program's process id, None while it does not run."""
        child = self._child
        return None if child is None or child.process.poll() is not None else child.process.pid

    def train(self, until_seq: int | None = None, *, effort: float = 1.0) -> TrainReport:
        """Train on the log up to and including event ``until_seq`` (None: all of it) and wait for the report.

        ``effort`` is that of `rounds.Round`. Raises ``TrainingError`` with the reason if it failed; the serving version
        stays then.
        """
        self.start(until_seq, effort=effort)
        while True:
            report = self.poll(wait_s=None)
            if report is not None:
                return report

    def start(self, until_seq: int | None = None, *, effort: float = 1.0) -> None:
        """Begin a training without waiting; `poll` says how it goes. Raises ``TrainingError`` if one is under way."""
        with self._lock:
            if self._closed:
                raise ClosedError("the trainer is closed")
            if self._pending is not None:
                raise TrainingError("a training is under way already; poll it first")
            if self.pid is None:
                self._drop()
                self._child = _Child(self._data_dir, self._config)
            assert self._child is not None
            config = self._config
            request = Request(
                next(self._numbers),
                self._epoch,
                until_seq,
                config.store,
                config.model,
                config.training,
                config.gate,
                config.retrieval,
                effort,
            )
            self._child.send(request)
            self._pending, self.progress = request.id, 0.0

    def poll(self, wait_s: float | None = 0.0) -> TrainReport | None:
        """Return the report if the training is done, None if not yet; raises ``TrainingError`` if it failed.

        ``wait_s`` is how long to wait for news, None as long as it takes.
        """
        child = self._child
        if self._pending is None or child is None:
            raise TrainingError("no training is under way; start one first")
        try:
            reply = child.replies.get(wait_s != 0.0, wait_s)
        except queue.Empty:
            return None
        if reply is None:
            with self._lock:
                self._pending = None
                reason = child.reason()
                self._drop()
            closed = "it was closed" if self._closed else reason
            raise TrainingError(f"the training program ended before it answered: {closed}; the serving version stays")
        if reply.progress is not None:
            self.progress = reply.progress
            return None
        self._pending = None
        if reply.report is None:
            raise TrainingError(reply.error or "the training program gave neither a report nor a reason")
        return reply.report

    def close(self) -> None:
        """End the program; a training under way is given up and publishes nothing more. May be repeated."""
        with self._lock:
            self._closed = True
            if self._child is not None:
                self._child.end()

    def _drop(self) -> None:
        if self._child is not None:
            self._child.end()
            self._child = None


class _Child:
    """The running program with the threads that read what it writes."""

    def __init__(self, data_dir: Path, config: Config) -> None:
        threads = str(config.training.threads)
        environment = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "PYTHONSAFEPATH": "1"}
        # oneDNN keeps code for 1,024 shapes of products, a megabyte each, and every new item makes new shapes
        environment.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
        command = [sys.executable, "-c", _PROGRAM, "--data", str(data_dir), "--nice", str(config.training.nice)]
        try:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
            )
        except OSError as error:
            raise TrainingError(
                f"cannot start the training program: {error.strerror}; the serving version stays"
            ) from None
        # None at the end: the program will say nothing more
        self.replies: queue.SimpleQueue[Reply | None] = queue.SimpleQueue()
        self._said: deque[str] = deque(maxlen=_STDERR_LINES)
        self._readers = [threading.Thread(target=target, daemon=True) for target in (self._listen, self._drain)]
        for reader in self._readers:
            reader.start()

    def send(self, request: Request) -> None:
        """Hand a request over; if the program is gone the replies say so."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.write(msgspec.json.encode(request) + b"\n")
            self.process.stdin.flush()

    def reason(self) -> str:
        """Say how the program ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(_EXIT_WAIT_S)
        code = self.process.returncode
        how = "it closed its output" if code is None else f"signal {-code}" if code < 0 else f"exit status {code}"
        self._readers[1].join(_EXIT_WAIT_S)
        said = [line for line in self._said if line.strip()]
        return f"{how} ({said[-1].strip()})" if said else how

    def end(self) -> None:
        """Close its input, which ends it, and wait; kill it if that does not help."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        try:
            self.process.wait(_EXIT_WAIT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for reader in self._readers:
            reader.join(_EXIT_WAIT_S)

    def _listen(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as output:
            for line in output:
                try:
                    self.replies.put(msgspec.json.decode(line, type=Reply))
                except msgspec.DecodeError:
                    # cut off in the middle by the program's death
                    break
        self.replies.put(None)

    def _drain(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as errors:
            for line in errors:
                self._said.append(line.decode(errors="replace"))
