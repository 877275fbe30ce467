"""Continual training beside training from scratch, on a stream that changes at once; delay of the drift alarm.

The stream is `synthetic:abrupt` up to its second change: nothing in it is left after the first one of what follows
what, of what groups like and of what is popular. Versions are trained by the rounds of the live trainer, without the
gate: what a strategy forgets is to be seen, not refused. A tenth of the events is never learnt; these held-out events,
parted at the rounds, are the cohorts. *Joint* is a model trained from scratch at every round on everything until then.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from ...engine.config import Config, DriftConfig
from ...engine.monitoring.drift import Detector
from ...engine.training import STRATEGIES, Round, UserLog, cross_version_recall, event_ranks, last_windows, train_round
from ...engine.versions import Version, VersionFacts
from ...kernels.arrays import Int64s
from ..baselines import SequentialRules
from ..contest import ranks_alone
from ..datasets import Stream
from ..forgetting import backward_transfer, forgetting, forward_transfer
from ..prequential import MISS, gains
from ..synthetic import stream as synthetic_stream

__all__ = ["bench_continual"]

_EVENTS, _STATIONARY_EVENTS = 20_000, 100_000
# on one stream a version's quality between two rounds is known to a tenth only
_STREAMS = 3
# events after the change at which versions are trained: an alarm and 1,000 events, then as things go on
_ROUNDS = (1_250, 2_000, 3_000, 5_000)
# the oldest cohort begins here: before, hardly any user has a history
_FIRST_COHORT = 4_000
_HELD_OUT = 0.1
# as good as joint
_PAR = 0.95

Progress = Callable[[str], None]


def bench_continual(
    strategies: Sequence[str] | None = None, *, seed: int = 0, config: Config | None = None, progress: Progress = print
) -> dict[str, Any]:
    """Return the JSON of ``recurra bench continual``.

    ``strategies`` are names for ``training.strategy``, None for the default and every single one. Everything is done on
    three streams, of ``seed`` and the two seeds after it, and the figures are of means over them. Quality is NDCG@10 of
    the neural part alone among all items of the version, without the user's own. ``old_quality`` is that on the cohort
    before the change after the last round, as a share of joint's; ``adapt_events`` the events after the change until a
    version was trained whose quality up to the next round, on all events, is at least 95 % of joint's (None: never).
    ``effort`` is that of the rounds, greater after the alarm. ``alarm_events`` and ``false_alarms`` are of the engine's
    detector at its default settings, over the ranking by sequential rules: events from the first change of `abrupt` to
    its alarm, the most of the streams, and alarms on 100,000 events of each `stationary`.
    """
    config = config or Config()
    progress("alarms")
    seeds = range(seed, seed + _STREAMS)
    delays = [_delays(*_alarms("abrupt", _EVENTS, each)) for each in seeds]
    first_delays = [each[0] for each in delays]
    result: dict[str, Any] = {
        "alarm_events": None if None in first_delays else max(each for each in first_delays if each is not None),
        "alarm_events_by_change": delays,
        "false_alarms": sum(len(_alarms("stationary", _STATIONARY_EVENTS, each)[0]) for each in seeds),
    }
    worlds = [_World.of(each, config, first) for each, first in zip(seeds, first_delays, strict=True)]
    progress("joint")
    first = [world.train(world.ends[0], None) for world in worlds]
    joint = [_joint(world) for world in worlds]
    fresh = np.mean([each.reached for each in joint], axis=0)
    old = float(np.mean([each.old for each in joint]))
    result["joint"] = {"old_quality": old, "prequential": fresh.round(4).tolist()}
    result["strategy"] = {}
    for name in strategies or dict.fromkeys((config.training.strategy, *STRATEGIES)):
        progress(name)
        outcomes = [_outcome(world, name, version) for world, version in zip(worlds, first, strict=True)]
        result["strategy"][name] = _judged(outcomes, len(worlds[0].names), old, fresh)
    return result | {"rounds": list(_ROUNDS), "effort": [world.efforts for world in worlds], "seed": seed}


class _World(NamedTuple):
    """The stream as a log, what of it is held out, and after how many events versions are trained with what effort."""

    log: UserLog
    names: list[str]
    held_out: Int64s
    ends: list[int]
    efforts: list[float]
    config: Config

    @classmethod
    def of(cls, seed: int, config: Config, alarm: int | None) -> "_World":
        stream = synthetic_stream("abrupt", _EVENTS, seed)
        change, end = stream.drifts[0].start, stream.drifts[1].start
        log = _log(stream, end)
        rng = np.random.default_rng(seed)
        held_out = np.flatnonzero((log.seqs >= _FIRST_COHORT) & (rng.random(len(log)) < _HELD_OUT))
        settings = msgspec.structs.replace(
            config,
            gate=msgspec.structs.replace(config.gate, margin=-1e9),
            training=msgspec.structs.replace(config.training, seed=seed),
        )
        ends = [change, *(change + more for more in _ROUNDS)]
        # as the engine does after an alarm, so many events after the change
        hurried = [alarm is not None and alarm <= more <= alarm + config.drift.effort_events for more in _ROUNDS]
        efforts = [config.drift.effort if each else 1.0 for each in hurried]
        return cls(log, stream.item_ids, held_out, ends, efforts, settings)

    def train(self, end: int, parent: Version | None, strategy: str | None = None, *, effort: float = 1.0) -> Version:
        """Train a version on the first ``end`` events, without those held out."""
        config = self.config
        if strategy is not None:
            config = msgspec.structs.replace(
                config, training=msgspec.structs.replace(config.training, strategy=strategy)
            )
        log = self.log
        kept = log.seqs < end
        kept[self.held_out] = False
        learnt = UserLog.of(log.users[kept], log.items[kept], log.times_ms[kept], log.seqs[kept])
        attempted = -1 if parent is None else parent.facts.report.newest_seq
        outcome = train_round(Round(learnt, self.names, parent, config, attempted, effort=effort))
        assert outcome.model is not None, outcome.report.reason
        number = 1 if parent is None else parent.number + 1
        facts = VersionFacts(
            number,
            number - 1,
            outcome.report.cutoff_seq,
            outcome.model.items,
            "",
            outcome.report,
        )
        return Version(facts, list(outcome.vocabulary), outcome.model.eval())

    def cohort(self, number: int) -> Int64s:
        """Return the held-out events between two rounds; those before the change for 0."""
        seqs = self.log.seqs[self.held_out]
        begin = self.ends[number - 1] if number else 0
        return self.held_out[(seqs >= begin) & (seqs < self.ends[number])]

    def quality(self, version: Version, cohort: int) -> float:
        """Return NDCG@10 on a cohort."""
        return self._ndcg(version, self.cohort(cohort))

    def reached(self, versions: Sequence[Version]) -> list[float]:
        """Return NDCG@10 of the version of each round on all events up to the next, or to the end of the log."""
        seqs = self.log.seqs
        ends = [*self.ends[1:], int(seqs.max()) + 1]
        return [
            self._ndcg(version, np.flatnonzero((seqs >= begin) & (seqs < end)))
            for version, begin, end in zip(versions, ends[:-1], ends[1:], strict=True)
        ]

    def crossed(self, old: Version, new: Version, end: int) -> float:
        """Return recall@10 of the states of one version against the items of the next, for all users at ``end``."""
        seen = self.log.until(end - 1)
        windows = last_windows(seen, -1, self.config.store.anchor)
        return cross_version_recall(old.model(), new.model(), seen, windows, self.rows(new))

    def rows(self, version: Version) -> Int64s:
        """Map the stream's item codes to the rows of a version."""
        known = {item: row for row, item in enumerate(version.vocabulary)}
        return np.array([known.get(name, len(known)) for name in self.names], np.int64)

    def _ndcg(self, version: Version, targets: Int64s) -> float:
        if not len(targets):
            return 0.0
        found = event_ranks(version.model(), self.log, targets, self.rows(version), self.config.store.anchor)
        return float(gains(np.where(np.isfinite(found), found, MISS).astype(np.int32)).mean())


class _Joint(NamedTuple):
    """Train from scratch: quality of the last model on the cohort before the change, of each up to the next round."""

    old: float
    reached: list[float]


def _joint(world: _World) -> _Joint:
    versions = [world.train(end, None) for end in world.ends[1:]]
    return _Joint(world.quality(versions[-1], 0), world.reached(versions))


class _Outcome(NamedTuple):
    """What a strategy did on one stream.

    ``quality`` (versions, cohorts), ``reached`` (rounds) up to the next round, and cross-version recall@10 (rounds).
    """

    quality: NDArray[np.float64]
    reached: list[float]
    crossed: list[float]
    seconds: float


def _outcome(world: _World, name: str, first: Version) -> _Outcome:
    started = time.perf_counter()
    versions = [first]
    for end, effort in zip(world.ends[1:], world.efforts, strict=True):
        versions.append(world.train(end, versions[-1], name, effort=effort))
    seconds = time.perf_counter() - started
    quality = np.array([[world.quality(version, cohort) for cohort in range(len(versions))] for version in versions])
    crossed = [
        world.crossed(old, new, end) for old, new, end in zip(versions[:-1], versions[1:], world.ends[1:], strict=True)
    ]
    return _Outcome(quality, world.reached(versions[1:]), crossed, seconds)


def _judged(outcomes: Sequence[_Outcome], items: int, old: float, fresh: NDArray[np.float64]) -> dict[str, Any]:
    quality = np.mean([each.quality for each in outcomes], axis=0)
    reached = np.mean([each.reached for each in outcomes], axis=0)
    par = [after for after, mine, best in zip(_ROUNDS, reached, fresh, strict=True) if mine >= _PAR * best]
    # a random order of all items
    chance = float(gains(np.arange(1, items + 1, dtype=np.int32)).mean())
    return {
        "forgetting": round(forgetting(quality), 4),
        "backward_transfer": round(backward_transfer(quality), 4),
        "forward_transfer": round(forward_transfer(quality, np.full(len(quality), chance)), 4),
        "adapt_events": par[0] if par else None,
        "cross_version_recall@10": round(float(np.mean([each.crossed for each in outcomes])), 4),
        "old_quality": round(float(quality[-1, 0]) / old, 4),
        "new_quality": round(float(reached[-1] / fresh[-1]), 4),
        "prequential": reached.round(4).tolist(),
        "quality": quality.round(4).tolist(),
        "seconds": round(sum(each.seconds for each in outcomes), 2),
    }


def _delays(found: Sequence[int], changes: Sequence[int]) -> list[int | None]:
    return [min((at - change for at in found if at >= change), default=None) for change in changes]


def _log(stream: Stream, events: int) -> UserLog:
    part = slice(0, events)
    users, items = (codes[part].astype(np.int64) for codes in (stream.users, stream.items))
    return UserLog.of(users, items, stream.time_ms[part], np.arange(events))


def _alarms(kind: str, events: int, seed: int) -> tuple[list[int], list[int]]:
    """Return where the detector finds a fall of the ranking by sequential rules, and where the stream changes."""
    stream = synthetic_stream(kind, events, seed)
    warm = events // 5
    reached = gains(ranks_alone(SequentialRules(), stream, warm))
    found = Detector(DriftConfig().delta, falls=True).add(reached.tolist())
    return [warm + each.place for each in found], [drift.start for drift in stream.drifts]
