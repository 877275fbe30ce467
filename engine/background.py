"""Background work: training when enough events came in, syncs while none come, snapshots."""

import contextlib
import logging
import threading
from collections.abc import Callable
from typing import Literal

from .clock import Clock
from .config import TrainingConfig
from .errors import ClosedError, RecurraError, TrainingBusyError
from .metrics import Metrics
from .monitoring.drift import Drift, preload
from .results import TrainingHealth, TrainReport
from .serving.switch import Switch
from .store import Reader
from .training import Trainer

__all__ = ["Housekeeper", "Repair", "Training"]

_log = logging.getLogger(__name__)

# turns of the housekeeper between two tries to reopen a store
_LONGEST_PAUSE = 30
# between two turns of the housekeeper at least: where every commit is synced (store.sync_ms = 0) it must not spin
_LEAST_TURN_S = 0.01


class Training:
    """Runs the training program and switches to what it publishes; one training at a time.

    A training that fails leaves the old version serving; ``failure`` says why until one succeeds.
    """

    def __init__(
        self,
        trainer: Callable[[], Trainer],
        switch: Switch,
        store: Reader,
        sync: Callable[[], None],
        drift: Drift,
        metrics: Metrics,
        config: TrainingConfig,
        clock: Clock,
    ) -> None:
        self._new_trainer = trainer
        self._trainer: Trainer | None = None
        self._switch = switch
        self._store = store
        self._sync = sync
        self._drift = drift
        self._metrics = metrics
        self._config = config
        self._clock = clock
        self._turn = threading.Lock()
        self._guard = threading.Lock()
        self._last_seq = 0
        self._last_ms = clock.now_ms()
        self._wake = threading.Event()
        self._stop = False
        self._thread: threading.Thread | None = None
        self.running = False
        self._given_up = False
        self.failure: str | None = None
        self.last: TrainReport | None = None
        self.last_rollback: str | None = None
        self.counts = {"trained": 0, "promoted": 0, "refused": 0, "rolled_back": 0}

    @property
    def pid(self) -> int | None:
        """The process id of the training program, None while it does not run."""
        trainer = self._trainer
        return None if trainer is None else trainer.pid

    def start(self, trained_seq: int) -> None:
        """Train by itself from now on; ``trained_seq`` is the newest event that the serving version knows."""
        self._last_seq = trained_seq
        self._thread = threading.Thread(target=self._loop, name="recurra-training", daemon=True)
        self._thread.start()
        self.wake_if_due()

    def wake_if_due(self) -> None:
        """Wake the training thread if a training is due; cheap."""
        if self._thread is not None and self.due():
            self._wake.set()

    def due(self) -> Literal["drift", "events", "time"] | None:
        """Return why a training should start now: an alarm of drift, enough new events, or enough time with any."""
        seq = self._store.next_seq
        if self._drift.early(seq):
            return "drift"
        config, new = self._config, seq - self._last_seq
        if seq < config.min_events or new <= 0:
            return None
        first = self._switch.serving_number == 0
        if new >= (config.min_events if first else max(config.every_events, int(config.every_share * seq))):
            return "events"
        # a clock that was put back must not put the training off for as long
        self._last_ms = min(self._last_ms, self._clock.now_ms())
        passed_s = (self._clock.now_ms() - self._last_ms) / 1000
        return "time" if 0 < config.every_seconds <= passed_s else None

    def once(self, *, active_users: int | None = None) -> TrainReport:
        """Train now, wait for it, and switch if the candidate passed; raises ``TrainingError`` or ``VersionError``."""
        self._take_turn()
        return self._train(active_users)

    def begin(self) -> None:
        """Do `once` in a thread, and return as soon as it began; `health` says how it ended."""
        self._take_turn()
        threading.Thread(target=self._train_quietly, name="recurra-train-request", daemon=True).start()

    def _take_turn(self) -> None:
        if not self._turn.acquire(blocking=False):
            raise TrainingBusyError("a training is under way already; its end shows in the health")

    def _train(self, active_users: int | None = None) -> TrainReport:
        """Train and give the turn back."""
        seq = self._store.next_seq
        self._given_up = False
        try:
            trainer = self._program()
            self.running = True
            # a version must not know more than the store does after a power loss
            self._sync()
            report = trainer.train(effort=self._drift.effort(seq))
            self._note(report)
            if report.promoted:
                self._switch.to(report.number, active_users=active_users, watched=True)
            self.failure = None
            return report
        except Exception as error:
            self.failure = None if self._given_up else str(error)
            self._metrics.failures.labels("training").inc()
            raise
        finally:
            # one that was given up stays due
            if not self._given_up:
                self._last_seq = max(seq, self._last_seq)
                self._last_ms = self._clock.now_ms()
                self._drift.trained(seq)
            self.running = False
            self._turn.release()

    def health(self) -> TrainingHealth:
        """Return the state of training."""
        last = None if self.last is None else f"{self.last.verdict}: {self.last.reason}"
        return TrainingHealth(self.running, self.pid, **self.counts, last=last, last_rollback=self.last_rollback)

    def count_rollback(self) -> None:
        """Count a version that was replaced by one before it."""
        self.counts["rolled_back"] += 1
        self._metrics.versions.labels("rolled_back").inc()

    def on_rollback(self, reason: str) -> None:
        """Wait for new events after the engine rolled a version back: a training now would repeat the last one."""
        self.count_rollback()
        self.last_rollback = reason
        self._last_seq = self._store.next_seq
        self._drift.reset()

    def close(self) -> None:
        """Stop the program and the thread; a training under way is given up."""
        with self._guard:
            self._stop = True
            if self._trainer is not None:
                self._trainer.close()
        self._wake.set()
        if self._thread is not None:
            self._thread.join()

    def restart_trainer(self) -> None:
        """Give up a training under way and start the program again for the next: the store has a new epoch."""
        with self._guard:
            if self._trainer is not None:
                self._given_up = True
                self._trainer.close()
                self._trainer = None

    def _train_quietly(self) -> None:
        # `failure` keeps the reason
        with contextlib.suppress(RecurraError):
            self._train()

    def _program(self) -> Trainer:
        with self._guard:
            if self._stop:
                raise ClosedError("the engine is closed")
            if self._trainer is None:
                self._trainer = self._new_trainer()
            return self._trainer

    def _note(self, report: TrainReport) -> None:
        self.last = report
        self._metrics.versions.labels(report.verdict).inc()
        if report.steps:
            self.counts["trained"] += 1
        if report.verdict in self.counts:
            self.counts[report.verdict] += 1

    def _loop(self) -> None:
        # otherwise the writer would stand still for this import at the first event after the first version
        preload()
        while True:
            self._wake.wait()
            self._wake.clear()
            if self._stop:
                return
            if not self.due():
                continue
            self._turn.acquire()
            try:
                self._train()
            except RecurraError as error:
                if not self._stop:
                    _log.warning("training: %s", error)
            except Exception:
                # the serving version stays; health says why
                _log.exception("training")


class Repair:
    """Reopens a store that failed: at the next turn of the housekeeper, then ever more rarely while that fails.

    A source that waits for room does the same for itself; without one, HTTP alone, nothing else would.
    """

    def __init__(self, reopen: Callable[[], None]) -> None:
        self._reopen = reopen
        self._wait = self._pause = 1

    def turn(self, *, failed: bool) -> None:
        """Take one turn; raises the ``StoreError`` of a try that failed."""
        if not failed:
            self._wait = self._pause = 1
            return
        self._wait -= 1
        if self._wait <= 0:
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)
            self._wait = self._pause
            self._reopen()
            _log.warning("the store was reopened after a failure")


class Housekeeper:
    """Calls ``work`` every ``interval_s`` seconds, ten milliseconds at least, in its own thread until it is closed."""

    def __init__(self, interval_s: float, work: Callable[[], None]) -> None:
        self._interval_s = max(_LEAST_TURN_S, interval_s)
        self._work = work
        self._stop = threading.Event()
        self.failure: str | None = None
        self._thread = threading.Thread(target=self._loop, name="recurra-housekeeper", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop and wait for the thread."""
        self._stop.set()
        self._thread.join()

    def _loop(self) -> None:
        while not self._stop.wait(self._interval_s):
            try:
                self._work()
            except ClosedError:
                return
            except RecurraError as error:
                # the same failure meets the next writer, who reports it
                _log.warning("housekeeping: %s", error)
                self.failure = str(error)
            except Exception as error:
                # without this thread nothing is synced: it goes on, and health says why
                _log.exception("housekeeping")
                self.failure = f"{type(error).__name__}: {error}"
            else:
                self.failure = None
