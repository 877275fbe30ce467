"""ADER's protocol (arXiv 2007.12000): a model learns one period after another and is tested on the next one.

Before period t = 1, 2, ... the model goes on from what it was, with the sessions of period t - 1 and what is kept of
those before: exemplars, sessions with at most 30,000 targets. A tenth of the sessions of period t - 1 is left out to
validate: settings are chosen by it, and a fit reads a fixed number of events.
Then every action of period t but a session's first is ranked, given the session's actions before it, among all items
that occurred so far. Actions with items that did not are removed, and so are sessions of one action.
"""

import pickle
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import torch

from ..engine.config import Config, ModelConfig, TrainingConfig
from ..engine.errors import InputError
from ..engine.model import SequenceModel, StreamingModel
from ..engine.training import FitData, UserLog, Windows, batches, create_strategy, fit, pack, vectors_before
from ..kernels.arrays import Bools, Float64s, Int64s
from .datasets import Stream

__all__ = ["EXEMPLARS", "JOINT", "Periods", "evaluate", "figures", "protocol_config", "rank_sessions"]

# at most so many targets of earlier periods are kept, as in the paper
EXEMPLARS = 30_000
# not a strategy: a new model for each period, from all sessions so far
JOINT = "joint"
_VALIDATION_SHARE = 0.1
# what may be added to the scores of items that the session had; the best on the validation part is
_OWN_BONUSES = (0.0, 2.0, 4.0, 8.0, 16.0)
_BATCH_EVENTS = 8_192
# scores of this many targets times items at a time
_BLOCK = 4 << 20
_FORMAT = 1

Progress = Callable[[int, int, dict[str, float]], None]


def protocol_config(base: Config | None = None) -> Config:
    """Return the settings that the published figures are compared with, chosen on validation parts."""
    base = Config() if base is None else base
    model = ModelConfig(time=False, query_time=False, dropout=0.5, item_length=1.5)
    training = TrainingConfig(first_passes=28, first_rate=3e-3, tokens_per_event=20, replay=0.4, sampled_above=0)
    return msgspec.structs.replace(base, model=model, training=training)


class Periods(NamedTuple):
    """Sessions of all periods, those of one period after another; a session in two periods is two.

    ``period`` (sessions) is ascending. Items are numbered by their first event.
    """

    log: UserLog
    period: Int64s

    @classmethod
    def of(cls, stream: Stream) -> "Periods":
        """Cut a stream at its times: what has one time is one period. Raises ``InputError`` if there is one only."""
        times, period = np.unique(stream.time_ms, return_inverse=True)
        if stream.clock or len(times) < 2:
            raise InputError(f"{stream.name}: expected a directory of at least two files period_K.txt")
        place = np.arange(len(stream))
        session = period * (int(stream.users.max()) + 1) + stream.users
        # one second apart: actions at one time would have no order
        log = UserLog.of(session, stream.items.astype(np.int64), 1_000 * place, place)
        return cls(log, period[log.seqs[log.starts[:-1]]])

    @property
    def last(self) -> int:
        """Return the number of the last period; the first one is 0."""
        return int(self.period[-1])

    @property
    def targets(self) -> Int64s:
        """Return how many targets each session has: its actions but the first."""
        counts: Int64s = np.diff(self.log.starts) - 1
        return counts

    def items_before(self, period: int) -> int:
        """Return how many items occurred before a period."""
        end = self.log.starts[np.searchsorted(self.period, period)]
        return int(self.log.items[:end].max(initial=-1)) + 1

    def test(self, period: int) -> UserLog:
        """Return the sessions that a period is tested on: without items that did not occur before it."""
        log = self.log
        return self.chosen((self.period == period)[log.users] & (log.items < self.items_before(period)))[0]

    def chosen(self, events: Bools) -> tuple[UserLog, Int64s]:
        """Return the chosen events of sessions that have two of them or more, and these sessions."""
        log = self.log
        kept = events & (np.bincount(log.users, events, minlength=len(self.period)) > 1)[log.users]
        part = UserLog.of(log.users[kept], log.items[kept], log.times_ms[kept], log.seqs[kept])
        return part, np.unique(log.users[kept])


def evaluate(
    stream: Stream,
    *,
    config: Config,
    strategy: str | None = None,
    periods: Sequence[int] | None = None,
    exemplars: int = EXEMPLARS,
    seed: int = 0,
    checkpoint: Path | None = None,
    clock: Callable[[], float] = time.perf_counter,
    cpu_clock: Callable[[], float] = time.process_time,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train and test period by period; the keys are those of the command line's JSON.

    ``strategy`` is one of ``STRATEGIES``, several joined by "+", or "joint"; None is that of ``config``. ``periods``
    are those that are tested, None for all; what comes before them is learnt all the same. ``exemplars`` are the
    targets of earlier periods that a strategy may use. With ``checkpoint`` (a file) every period is kept and a run that
    was stopped goes on, after the first period also with another strategy; the file is removed at the end.
    ``progress`` is called with the periods learnt, all of them, and the last figures. Raises ``InputError`` if the
    stream has no such periods, or the checkpoint is of another run, ``ConfigError`` for an unknown strategy.
    """
    torch.set_num_threads(1)
    data = Periods.of(stream)
    tested = range(1, data.last + 1) if periods is None else sorted(set(periods))
    if not tested or tested[0] < 1 or tested[-1] > data.last:
        raise InputError(f"{stream.name}: periods 1 to {data.last} can be tested, got {list(tested)}")
    strategy = config.training.strategy if strategy is None else strategy
    if strategy != JOINT:
        training = msgspec.structs.replace(config.training, strategy=strategy)
        config = msgspec.structs.replace(config, training=training)
        # says what is wrong with it before anything is learnt
        create_strategy(strategy, training)
    run = _Run(data, config, strategy, exemplars, seed, clock, cpu_clock)
    settings = {"strategy": strategy, "exemplars": exemplars, "seed": seed} | {
        section: msgspec.to_builtins(getattr(config, section)) for section in ("model", "training")
    }
    if checkpoint is not None and checkpoint.exists():
        run.restore(checkpoint, settings)
    learnt = tested if strategy == JOINT else range(1, tested[-1] + 1)
    for period in learnt:
        if period <= run.done:
            continue
        run.learn(period)
        if period in tested:
            run.test(period)
        if checkpoint is not None:
            run.save(checkpoint, settings)
        if progress is not None:
            progress(period, tested[-1], run.results[-1] if run.results else {})
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    measures = ("recall@20", "recall@10", "mrr@20")
    alone = [entry["without_bonus"] for entry in run.results]
    mean = _means(run.results, (*measures, "seconds", "cpu_s")) | {"without_bonus": _means(alone, measures)}
    return {
        "protocol": "ader",
        "dataset": stream.name,
        "strategy": strategy,
        "events": len(data.log),
        "sessions": len(data.period),
        "items": data.items_before(data.last + 1),
        "periods": run.results,
        "mean": mean,
        "seed": seed,
        "settings": settings,
    }


def _means(entries: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> dict[str, Any]:
    return {key: round(float(np.mean([entry[key] for entry in entries])), 5) for key in keys}


class _Run:
    """The model as it goes through the periods, with what it may look back on."""

    def __init__(
        self,
        data: Periods,
        config: Config,
        strategy: str,
        exemplars: int,
        seed: int,
        clock: Callable[[], float],
        cpu_clock: Callable[[], float],
    ) -> None:
        self._data, self._config, self._strategy, self._exemplars, self._seed = data, config, strategy, exemplars, seed
        self._clock, self._cpu_clock = clock, cpu_clock
        self._model: StreamingModel | None = None
        self._kept: Bools = np.zeros(len(data.period), np.bool_)
        self._facts: dict[str, Any] = {}
        self._own_bonus = 0.0
        self.results: list[dict[str, Any]] = []
        self.done = 0

    def learn(self, period: int) -> None:
        """Learn the period before ``period``, and choose what is kept of it."""
        began, cpu_began = self._clock(), self._cpu_clock()
        data, sequence = self._data, np.random.SeedSequence([self._seed, period])
        rng = np.random.default_rng(sequence)
        generator = torch.Generator().manual_seed(int(sequence.generate_state(1)[0]))
        items = data.items_before(period)
        parent = None if self._strategy == JOINT else self._model
        if parent is None:
            model = StreamingModel(self._config.model, items, generator=generator)
        else:
            model = parent.grown(items, generator=generator)
        new = data.period == period - 1
        left_out = new & (rng.random(len(new)) < _VALIDATION_SHARE)
        fit_data = self._fit_data(new & ~left_out, parent)
        fitted = self._fit(model, fit_data, rng)
        known = np.isin(data.log.items, fit_data.log.items) | (data.log.items < data.items_before(period - 1))
        # an item that occurs in what is left out only says nothing about what was learnt
        valid, _ = data.chosen(left_out[data.log.users] & known)
        self._model, self.done = model, period
        self._kept = _exemplars(data.log, new | self._kept, data.targets, self._exemplars, rng)
        self._facts = fitted | {
            "items": items,
            "trained_events": len(fit_data.log),
            "valid": self._choose_bonus(model, valid) if len(valid) else {},
            "seconds": round(self._clock() - began, 2),
            "cpu_s": round(self._cpu_clock() - cpu_began, 2),
        }

    def test(self, period: int) -> None:
        """Test on ``period``."""
        data, model = self._data, self._model
        assert model is not None
        began = self._clock()
        log = data.test(period)
        ranks = rank_sessions(model, log, own_bonus=self._own_bonus)
        facts = {"period": period} | figures(ranks) | {"targets": len(ranks), "own_bonus": self._own_bonus}
        facts |= {"without_bonus": figures(rank_sessions(model, log))} | self._facts
        self.results.append(facts | {"test_s": round(self._clock() - began, 2)})

    def _choose_bonus(self, model: StreamingModel, valid: UserLog) -> dict[str, float]:
        found = {bonus: figures(rank_sessions(model, valid, own_bonus=bonus)) for bonus in _OWN_BONUSES}
        self._own_bonus = max(found, key=lambda bonus: found[bonus]["recall@20"])
        return found[self._own_bonus] | {"without_bonus": found[0.0]["recall@20"]}

    def save(self, path: Path, settings: dict[str, Any]) -> None:
        """Write what going on needs, by an atomic rename."""
        assert self._model is not None
        state = {"format": _FORMAT, "settings": settings, "done": self.done, "items": self._model.items}
        state |= {"model": self._model.state_dict(), "kept": torch.from_numpy(self._kept), "results": self.results}
        partial = path.with_suffix(".part")
        torch.save(state, partial)
        partial.replace(path)

    def restore(self, path: Path, settings: dict[str, Any]) -> None:
        """Go on where ``save`` was called, with the same settings."""
        try:
            state = torch.load(path, weights_only=True)
            same = state["format"] == _FORMAT and _same(state["settings"], settings, state["done"])
            if same:
                self._model = StreamingModel(self._config.model, state["items"])
                self._model.load_state_dict(state["model"])
                self._kept = state["kept"].numpy()
                self.results, self.done = state["results"], state["done"]
        except (OSError, KeyError, RuntimeError, ValueError, TypeError, pickle.UnpicklingError) as error:
            raise InputError(f"cannot go on from the checkpoint {path}: {str(error).splitlines()[0]}") from None
        if not same:
            raise InputError(f"cannot go on from the checkpoint {path}: it is of a run with other settings")

    def _fit_data(self, new: Bools, parent: StreamingModel | None) -> FitData:
        data = self._data
        old = data.period < data.period[new][0] if self._strategy == JOINT else self._kept
        log, owners = data.chosen((new | old)[data.log.users])
        windows = Windows(log.starts[:-1], log.starts[1:])
        recent, rest = windows.take(new[owners]), windows.take(~new[owners])
        since = int(log.seqs[recent.starts].min()) - 1
        rows = np.arange(int(data.log.items.max()) + 1)
        none = windows.take(np.zeros(len(owners), np.bool_))
        if parent is None:
            return FitData(log, rows, recent.join(rest), none, since)
        return FitData(log, rows, recent, none, since, parent, rest if len(rest.starts) else None)

    def _fit(self, model: StreamingModel, fit_data: FitData, rng: np.random.Generator) -> dict[str, Any]:
        config = self._config.training
        first = fit_data.parent is None
        passes, rate = (config.first_passes, config.first_rate) if first else (config.tokens_per_event, config.rate)
        fitted = fit(
            model,
            fit_data,
            config,
            tokens=passes * int(fit_data.recent.lengths.sum()),
            rate=rate,
            rng=rng,
            strategy=create_strategy(config.strategy, config),
            exclude_own=False,
        )
        return {
            "steps": fitted.steps,
            "fitted_events": fitted.events,
            "loss": fitted.loss,
        }


def _same(one: dict[str, Any], other: dict[str, Any], done: int) -> bool:
    if done > 1 or JOINT in (one["strategy"], other["strategy"]):
        return one == other
    # the first period has nothing to keep: it is learnt alike by every strategy
    unnamed = {"strategy": ""}
    first, second = (settings | unnamed | {"training": settings["training"] | unnamed} for settings in (one, other))
    return first == second


def _exemplars(log: UserLog, sessions: Bools, targets: Int64s, budget: int, rng: np.random.Generator) -> Bools:
    """Choose sessions with at most ``budget`` targets in all, those with rare items among ``sessions`` first.

    So most items stay in some session. Drawn without replacement, with weights (Efraimidis and Spirakis 2006).
    """
    counts = np.bincount(log.items[sessions[log.users]], minlength=int(log.items.max()) + 1)
    rarity = np.bincount(log.users, 1 / np.maximum(1, counts[log.items])) / (targets + 1)
    candidates = np.flatnonzero(sessions & (targets > 0))
    order = candidates[np.argsort(rng.exponential(size=len(candidates)) / rarity[candidates])]
    kept = np.zeros_like(sessions)
    kept[order[np.cumsum(targets[order]) <= budget]] = True
    return kept


def rank_sessions(model: SequenceModel, log: UserLog, *, own_bonus: float = 0.0) -> Float64s:
    """Rank every action but the first of a session among all items of the model, given those before; ties against.

    ``own_bonus`` is added to the scores of what the session had before. Leaves the model in evaluation mode.
    """
    windows = Windows(log.starts[:-1], log.starts[1:])
    rows = np.arange(model.items)
    result = np.empty(len(log))
    model.eval()
    with torch.no_grad():
        table = model.item_table().T
        for part in batches(windows, _BATCH_EVENTS, np.random.default_rng(0), padded=not model.streams):
            batch = pack(log, part, rows)
            hidden = vectors_before(model, batch)
            wanted = torch.from_numpy(batch.items).to(hidden.device)
            later, earlier = _pairs(batch.offsets)
            for block in np.array_split(np.arange(len(batch.items)), 1 + len(batch.items) * model.items // _BLOCK):
                scores = hidden[block] @ table
                inside = slice(*np.searchsorted(later, (block[0], block[-1] + 1)))
                # an item that the session had twice is written twice, with the same score
                scores[later[inside] - block[0], batch.items[earlier[inside]]] += own_bonus
                # the true one is counted too
                ranks = (scores >= scores.gather(1, wanted[block, None])).sum(1)
                result[batch.rows[block]] = ranks.cpu().numpy()
    return np.delete(result, log.starts[:-1])


def _pairs(offsets: Int64s) -> tuple[Int64s, Int64s]:
    """Return the pairs (t, j) of events of one window with j before t, ordered by t."""
    first = np.repeat(offsets[:-1], np.diff(offsets))
    count = np.arange(offsets[-1]) - first
    later = np.repeat(np.arange(offsets[-1]), count)
    return later, first[later] + np.arange(len(later)) - np.repeat(np.cumsum(count) - count, count)


def figures(ranks: Float64s) -> dict[str, float]:
    """Return the figures of the protocol; shares, not percent."""
    twenty = ranks <= 20
    return {
        "recall@20": round(float(twenty.mean()), 5),
        "recall@10": round(float((ranks <= 10).mean()), 5),
        "mrr@20": round(float((twenty / ranks).mean()), 5),
    }
