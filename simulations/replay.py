"""``recurra replay``: a data set as a stream through the engine, judged by the protocol preq-v1.

The engine is the one that serves live: it is opened on a data directory, asked before every event and given the event
afterwards, with the configuration that a live engine has. Two things differ: its clock is the time of the events, and
training, which starts at the same events, is waited for. So the result depends on the seed and not on the speed of the
machine.
"""

import itertools
import math
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from ..connectors.catalogue import Catalogue
from ..engine.clock import EventClock
from ..engine.config import Config
from ..engine.engine import Engine
from ..engine.errors import InputError
from ..engine.results import Alarm
from .baselines import chosen
from .contest import Contest
from .datasets import Stream, catalogue_facts
from .feeds import Feed, FirstRecords, open_feed
from .usage import Usage

__all__ = ["PROTOCOL", "Progress", "replay"]

PROTOCOL = "preq-v1"
# events that are handed over at once, at most
_BATCH = 4_096

# called with (events done, events in all, recent metrics of recurra) about every hundred events
Progress = Callable[[int, int, dict[str, float]], None]


def replay(
    stream: Stream,
    *,
    catalogue: Catalogue | None = None,
    config: Config | None = None,
    data_dir: str | Path | None = None,
    warm: float = 0.2,
    repeats: bool = False,
    every: int = 1,
    via: str = "memory",
    speed: str | float = "max",
    label_delay_ms: int = 0,
    train: str = "auto",
    strategy: str | None = None,
    query_time: bool = True,
    baselines: str = "all",
    seed: int = 0,
    threads: int = 1,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Replay ``stream`` and return the JSON of ``recurra replay``.

    The record of an item in ``catalogue`` reaches the engine together with the item's first event.
    The first ``warm`` share is learnt only; then every event is learnt and every ``every``-th is ranked before.
    ``repeats`` keeps the user's own items candidates. ``train`` is ``auto`` (when a live engine would) or ``off`` (one
    version at the end of the warm part, which then stays). ``strategy``
    replaces the configuration's ``training.strategy``, None leaves it. ``via`` is
    ``memory`` or ``kafka://HOST:PORT/TOPIC``: events then reach the engine through the topic. ``speed`` is ``max`` or
    how many times faster than event time to go. ``label_delay_ms``: an event is learnt only when that much event time
    has passed. ``data_dir`` must be new; None uses a temporary one. Raises ``InputError`` for arguments that are not
    acceptable, ``ConfigError`` for an unknown strategy.
    """
    pace = _pace(speed)
    _check(warm, every, label_delay_ms, train)
    settings = _configured(config or Config(), repeats, query_time and stream.clock, seed, threads)
    if strategy is not None:
        settings = msgspec.structs.replace(
            settings, training=msgspec.structs.replace(settings.training, strategy=strategy)
        )
    first = int(len(stream) * warm)
    contest = Contest(stream, chosen(baselines), np.arange(first, len(stream), every), repeats=repeats)
    clock = EventClock(int(stream.time_ms[0]))
    records = FirstRecords(stream, {} if catalogue is None else catalogue.by_item())
    with Usage() as usage, _folder(data_dir) as folder, Engine(folder, settings, clock=clock) as engine:
        with open_feed(via, engine, stream, clock, records) as feed:
            run = _Run(stream, engine, clock, contest, feed, records, usage, settings)
            learning = train == "auto"
            run.warm_up(_due(stream, first, label_delay_ms), learning=learning)
            run.go(first, every, pace, label_delay_ms, learning=learning, progress=progress)
        result = {
            **_facts(stream, seed),
            **catalogue_facts(catalogue, len(records), records.items),
            **contest.result(),
            **run.result(),
        }
    result["timeline"]["mix_weights"] = run.mix_weights
    result["settings"] = {
        "warm": warm,
        "repeats": repeats,
        "every": every,
        "via": via,
        "speed": speed,
        "label_delay_ms": label_delay_ms,
        "train": train,
        "strategy": settings.training.strategy,
        "query_time": settings.model.query_time,
        "baselines": baselines,
        "catalogue": None if catalogue is None else catalogue.name,
        "threads": threads,
        "config": msgspec.json.decode(msgspec.json.encode(settings)),
    }
    return result | {
        "seconds": round(usage.seconds, 2),
        "events_per_s": round(len(stream) / usage.seconds, 1),
        "train_s": round(run.train_s, 2),
        "train_cpu_s": round(usage.children_cpu_s, 2),
        "peak_rss_mb": round(usage.peak_mb, 1),
    }


def _check(warm: float, every: int, label_delay_ms: int, train: str) -> None:
    if not 0 <= warm < 1:
        raise InputError(f"expected a warm share of at least 0 and below 1, got {warm}")
    if every < 1:
        raise InputError(f"expected to rank every K-th event with K at least 1, got {every}")
    if label_delay_ms < 0:
        raise InputError(f"expected a label delay of at least 0, got {label_delay_ms} ms")
    if train not in ("auto", "off"):
        raise InputError(f"expected training to be auto or off, got {train!r}")


def _facts(stream: Stream, seed: int) -> dict[str, Any]:
    return {
        "protocol": PROTOCOL,
        "dataset": stream.name,
        "seed": seed,
        "events": len(stream),
        "users": len(stream.user_ids),
        "items": len(stream.item_ids),
    }


def _due(stream: Stream, position: int, delay_ms: int) -> int:
    """Return how many events are to be learnt before the one at ``position``."""
    if delay_ms == 0:
        return position
    passed_ms = int(stream.time_ms[position]) - delay_ms
    return min(position, int(np.searchsorted(stream.time_ms, passed_ms, side="right")))


class _Run:
    """One pass over the stream."""

    def __init__(
        self,
        stream: Stream,
        engine: Engine,
        clock: EventClock,
        contest: Contest,
        feed: Feed,
        records: FirstRecords,
        usage: Usage,
        config: Config,
    ) -> None:
        self._stream = stream
        self._engine = engine
        self._clock = clock
        self._contest = contest
        self._feed = feed
        self._records = records
        self._usage = usage
        self._config = config
        self.train_s = 0.0
        # one entry per training: position in the stream and what came of it
        self.trainings: list[dict[str, Any]] = []
        self.mix_weights: list[dict[str, Any]] = []
        self.alarms: list[dict[str, Any]] = []
        self._last_alarm: Alarm | None = None
        self._version = 0
        self._learnt = 0

    def warm_up(self, events: int, *, learning: bool) -> None:
        """Learn the first events without ranking them; without ``learning`` train the one version at their end."""
        if learning:
            self._learn_up_to(events, learning=True)
            return
        self._learn(events)
        if events >= self._config.training.min_events:
            self._train()

    def go(
        self, first: int, every: int, pace: "_Pace", delay_ms: int, *, learning: bool, progress: Progress | None
    ) -> None:
        """Rank and learn the events from ``first`` on."""
        stream = self._stream
        # the mixture is looked at as often as there are points in the report's curves
        look = max(1, (len(stream) - first) // 40)
        for position in range(first, len(stream)):
            pace.wait(int(stream.time_ms[position]))
            self._learn_up_to(_due(stream, position, delay_ms), learning=learning)
            if (position - first) % every == 0:
                self._judge(position)
            done = position + 1
            if (done - first) % look == 0:
                self.mix_weights.append({"position": done, **self._mix_weights()})
            if progress is not None and (done % 100 == 0 or done == len(stream)):
                progress(done, len(stream), self._contest.recent())
        self._learn(len(stream))

    def result(self) -> dict[str, Any]:
        """Return the parts of the JSON that the engine knows."""
        return {
            "mix_weights": self._mix_weights(),
            "versions": self._engine.health().training.counts,
            "drift": [alarm["position"] for alarm in self.alarms],
            "alarms": self.alarms,
            "trainings": self.trainings,
        }

    def _mix_weights(self) -> dict[str, Any]:
        # as JSON has them: lists
        found: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(self._engine.mix_weights()))
        return found

    def _judge(self, position: int) -> None:
        stream = self._stream
        now_ms = int(stream.time_ms[position])
        self._clock.advance(now_ms)
        scores = self._engine.scores(stream.user_ids[stream.users[position]], now_ms)
        self._contest.judge(position, scores, self._engine.item_row(stream.item_ids[stream.items[position]]))

    def _learn_up_to(self, end: int, *, learning: bool) -> None:
        while self._learnt < end:
            self._learn(self._learnt + 1)
            self._look()
            if learning and self._engine.training_due:
                self._train()

    def _look(self) -> None:
        """Record what the last event caused: alarms, and a version rolled back."""
        alarms = self._engine.alarms()
        new = itertools.takewhile(lambda alarm: alarm is not self._last_alarm, reversed(alarms))
        self.alarms += [
            {"position": self._learnt - 1, "kind": alarm.kind, "before": alarm.before, "after": alarm.after}
            for alarm in reversed(list(new))
        ]
        self._last_alarm = alarms[-1] if alarms else None
        if self._engine.version != self._version:
            self._version = self._engine.version
            reason = self._engine.health().training.last_rollback
            self.trainings.append(
                {"position": self._learnt, "verdict": "rolled_back", "seconds": 0.0, "reason": reason}
            )

    def _learn(self, end: int) -> None:
        """Learn what is missing of the first ``end`` events."""
        stream = self._stream
        while self._learnt < end:
            start = self._learnt
            self._learnt = min(end, start + _BATCH, self._records.next_after(start) or end)
            if self._records.at(start):
                # the lesson of this event is then this ranking, whether it is judged or not. Of all items without an
                # event the engine would know the one that comes: the mixture would learn that such items do
                self._engine.scores(stream.user_ids[stream.users[start]], int(stream.time_ms[start]))
            self._feed.learn(start, self._learnt)
            for position in range(start, self._learnt):
                self._contest.learn(position, self._engine.item_row(stream.item_ids[stream.items[position]]))

    def _train(self) -> None:
        early = self._engine.training_due == "drift"
        started = time.perf_counter()
        # states are folded under the new version when their users come again, instead of all at once
        report = self._engine.train(active_users=0)
        seconds = time.perf_counter() - started
        self.train_s += seconds
        self._usage.sample()
        self._version = self._engine.version
        self.trainings.append(
            {
                "position": self._learnt,
                "verdict": report.verdict,
                "seconds": round(seconds, 2),
                "early": early,
                "reason": report.reason,
            }
        )


class _Pace:
    """Waits until an event is due; ``factor`` is how many times faster than event time, infinity never waits."""

    def __init__(self, factor: float) -> None:
        self._factor = factor
        self._first: tuple[int, float] | None = None

    def wait(self, time_ms: int) -> None:
        """Return when ``time_ms`` is due; the first call is due at once."""
        if math.isinf(self._factor):
            return
        if self._first is None:
            self._first = (time_ms, time.monotonic())
        start_ms, started = self._first
        due_s = started + (time_ms - start_ms) / 1000 / self._factor
        time.sleep(max(0.0, due_s - time.monotonic()))


def _pace(speed: str | float) -> _Pace:
    try:
        factor = math.inf if speed == "max" else float(speed)
    except ValueError:
        factor = math.nan
    if not factor > 0:
        raise InputError(f"expected a speed of max or a positive number, got {speed!r}")
    return _Pace(factor)


def _configured(config: Config, repeats: bool, query_time: bool, seed: int, threads: int) -> Config:
    """Return the configuration of a replay: seeded, its trainings waited for."""
    change = msgspec.structs.replace
    return change(
        config,
        seed=seed,
        threads=threads,
        model=change(config.model, query_time=query_time and config.model.query_time),
        training=change(config.training, mode="off", seed=seed, threads=threads),
        retrieval=change(
            config.retrieval,
            exclude_seen=not repeats,
            query_time=query_time and config.retrieval.query_time,
        ),
    )


@contextmanager
def _folder(data_dir: str | Path | None) -> Iterator[Path]:
    """Give the engine's directory: the one asked for, which must be new, or one that goes away afterwards."""
    if data_dir is None:
        with tempfile.TemporaryDirectory(prefix="recurra-replay-") as made:
            yield Path(made)
        return
    folder = Path(data_dir)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"expected a new data directory, but {folder} is not empty; a replay begins with nothing")
    yield folder
