"""Drift alarms: where a stream departs from what was learnt, seen by how its events rank and by what comes in."""

import importlib
import logging
from collections import Counter, deque
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..config import DriftConfig
from ..metrics import Metrics
from ..results import Alarm
from ..store import LATE, Applied

__all__ = ["KINDS", "Detector", "Drift", "Finding", "preload"]

_log = logging.getLogger(__name__)

Ints = list[int] | npt.NDArray[np.int64]

# the answers' and the model's NDCG@10 have fallen; the share of events of items, of users never seen before has risen
_QUALITY = ("answers", "model")
KINDS = (*_QUALITY, "new-items", "new-users")
# alarms that are kept for reading
_KEPT = 100
# values that a mean is taken from
_ENOUGH = 100
_TINY = 1e-6


def preload() -> None:
    """Import what takes a second before it is needed."""
    importlib.import_module("river.drift")


class Finding(NamedTuple):
    """A change that the value at ``place`` completed, with the means before and after."""

    place: int
    before: float
    after: float


class Detector:
    """Detects that the mean of values in [0, 1] has fallen (``falls``) or else risen: ADWIN (Bifet and Gavalda 2007).

    It compares every older with every newer part of a window, which restarts after every finding. A change in the
    other direction moves the window and is not reported: a rise of quality is what learning looks like. ``delta`` is
    ADWIN's confidence.
    """

    def __init__(self, delta: float, *, falls: bool) -> None:
        # imported here: many an engine is only read
        from river.drift import ADWIN

        self._adwin = ADWIN(delta=delta)
        self._falls = falls

    @property
    def width(self) -> int:
        """How many values the window has."""
        return int(self._adwin.width)

    @property
    def mean(self) -> float:
        """The mean of the window."""
        return float(self._adwin.estimation)

    def add(self, values: Iterable[float]) -> list[Finding]:
        """Take values in their order and return what was found at which of them."""
        adwin, found = self._adwin, []
        for place, value in enumerate(values):
            before = adwin.estimation
            adwin.update(value)
            if adwin.drift_detected and (adwin.estimation < before) == self._falls:
                found.append(Finding(place, float(before), float(adwin.estimation)))
        return found


class Drift:
    """Watches the stream from the first version on: before it there is nothing that could be trained early.

    What is watched is a fold over the events alone, so that a replay raises the same alarms every time; the windows are
    held in memory and restart when the engine is opened. The writer calls it; reading ``alarms`` and ``counts`` is safe
    from any thread.
    """

    def __init__(self, config: DriftConfig, metrics: Metrics) -> None:
        self._config = config
        self._metrics = metrics
        self._version = 0
        self._detectors: dict[str, Detector] = {}
        self._early_seq: int | None = None
        self._falls: dict[str, Alarm] = {}
        self.alarms: deque[Alarm] = deque(maxlen=_KEPT)
        self.counts: Counter[str] = Counter()

    def set_version(self, version: int) -> None:
        """Set the version that serves: the model's ranking is compared within one version."""
        if version != self._version:
            self._version = version
            self._detectors.pop("model", None)

    def observe_quality(self, seq: int, time_ms: int, answers: float, model: float | None) -> None:
        """Take the NDCG@10 of an event before it was learnt; ``model`` None where the model was not asked."""
        if self._version:
            self._add("answers", [answers], [seq], [time_ms])
            if model is not None:
                self._add("model", [model], [seq], [time_ms])

    def observe_batch(self, applied: Applied) -> None:
        """Take what a micro-batch brought in."""
        changed = np.flatnonzero(applied.status <= LATE)
        if not (self._version and changed.size):
            return
        times_ms, seqs = applied.times_ms[changed], applied.seq[changed]
        self._add("new-items", _firsts(applied.item_rows[changed], applied.new_items), seqs, times_ms)
        self._add("new-users", _firsts(applied.user_rows[changed], applied.new_users), seqs, times_ms)

    def early(self, next_seq: int) -> bool:
        """Whether an alarm asks for a training now, enough having come in since to learn from."""
        return self._early_seq is not None and next_seq >= self._early_seq

    def effort(self, next_seq: int) -> float:
        """Return how many times the usual effort a training now is worth: what quality was before a fall by what it is.

        1 without a fall within the last ``effort_events``, ``config.effort`` at most.
        """
        recent = [fall for fall in self._falls.values() if next_seq <= fall.seq + self._config.effort_events]
        lost = (fall.before / max(self._now(fall), _TINY) for fall in recent)
        return min(self._config.effort, max(1.0, *lost, 1.0))

    def trained(self, next_seq: int) -> None:
        """Record a training on the events before ``next_seq``."""
        if self.early(next_seq):
            self._early_seq = None

    def reset(self) -> None:
        """Restart all windows and ask for no training: what was seen came from a version that is gone."""
        self._detectors.clear()
        self._early_seq = None
        self._falls.clear()

    def _now(self, fall: Alarm) -> float:
        detector = self._detectors.get(fall.kind)
        return fall.after if detector is None or detector.width < _ENOUGH else detector.mean

    def _add(self, kind: str, values: Iterable[float], seqs: Ints, times_ms: Ints) -> None:
        detector = self._detectors.get(kind)
        if detector is None:
            falls = kind in _QUALITY
            delta = self._config.delta if falls else self._config.input_delta
            detector = self._detectors[kind] = Detector(delta, falls=falls)
        for place, before, after in detector.add(values):
            self._raise(Alarm(kind, int(seqs[place]), int(times_ms[place]), round(before, 6), round(after, 6)))

    def _raise(self, alarm: Alarm) -> None:
        self.alarms.append(alarm)
        self.counts[alarm.kind] += 1
        if alarm.kind in _QUALITY:
            self._falls[alarm.kind] = alarm
        self._metrics.alarm(alarm)
        _log.warning("drift at event %d: %s from %.4f to %.4f", alarm.seq, alarm.kind, alarm.before, alarm.after)
        if self._early_seq is None and self._config.train_after:
            self._early_seq = alarm.seq + 1 + self._config.train_after


def _firsts(rows: npt.NDArray[np.int32], new: range) -> list[int]:
    """Return 1 where an event is the first one of a row that this batch gave out, else 0."""
    flags = np.zeros(rows.size, np.int64)
    if len(new):
        _, first = np.unique(rows, return_index=True)
        flags[first] = rows[first] >= new.start
    return flags.tolist()
