"""The optimisation of one candidate: bounded steps, a warm-up and a decay, early stop, the best weights so far."""

import contextlib
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from ..config import TrainingConfig
from ..errors import TrainingError
from ..model import SequenceModel
from .learner import Learner, cosine
from .loss import Sampler, targets, window_loss
from .strategies import FitContext, FitData, Strategy
from .windows import Windows, batches, pack

__all__ = ["MIN_VALIDATION", "Fitted", "fit"]

# the validation loss is looked at so often in one fit, and this many times without a better one end it
_CHECKS = 10
_PATIENCE = 3
# fewer validation events than this say nothing about a few steps more or less
MIN_VALIDATION = 1_000
_MIN_BATCH = 256
_BATCHES_PER_PASS = 10


class Fitted(NamedTuple):
    """What a fit did; ``best_step`` is the step whose weights it left in the model."""

    steps: int
    best_step: int
    events: int
    loss: float
    validation_loss: float | None


def fit(
    model: SequenceModel,
    data: FitData,
    config: TrainingConfig,
    *,
    tokens: int,
    rate: float,
    rng: np.random.Generator,
    strategy: Strategy | None = None,
    effort: float = 1.0,
    exclude_own: bool = True,
    progress: Callable[[float], None] | None = None,
) -> Fitted:
    """Train ``model`` in place on about ``tokens`` events with the peak learning rate ``rate``.

    ``strategy``, new for this fit, says how it keeps what the parent knew; None is plain fine-tuning, and a first
    version has nothing to keep; ``effort`` is that of `FitContext`. With ``exclude_own`` the items that a user had are
    no negatives. Raises ``TrainingError`` if the loss is not finite.
    """
    seen_weight = 0.0 if exclude_own else 1.0
    strategy = strategy if strategy is not None and data.parent is not None else Strategy()
    passes = _Passes(data, strategy, tokens, rng)
    # a short log read in large batches would be over in a few steps
    batch_events = min(config.batch_events, max(_MIN_BATCH, passes.events // _BATCHES_PER_PASS))
    steps = max(1, round(tokens / batch_events))
    if data.parent is not None:
        # asked by strategies what it knows: without dropout
        data.parent.eval()
        strategy.begin(_context_of(model, data.parent, data, steps, config, rng, effort))
    sampler = Sampler.needed(data.version_rows[data.log.items], model.items, config)
    learner = Learner(
        model,
        config,
        rate=rate,
        shape=cosine(steps),
        rng=rng,
        seen_weight=seen_weight,
        sampler=sampler,
        threads=config.threads,
        strategy=strategy,
        parent=data.parent,
    )
    best = _Best(model, strategy, _validation(model, data, config, seen_weight))
    events = 0
    loss = math.nan
    with contextlib.closing(learner):
        while learner.done < steps and not best.exhausted:
            for windows in batches(passes.draw(), batch_events, rng, padded=not model.streams):
                loss, counted = learner.step(pack(data.log, windows, data.version_rows, rng))
                events += counted
                if progress is not None:
                    progress(learner.done / steps)
                if learner.done >= steps or learner.done % max(1, steps // _CHECKS) == 0:
                    best.look(learner.done)
                if learner.done >= steps or best.exhausted:
                    break
    strategy.end()
    return best.finish(learner.done, events, loss)


def _context_of(
    model: SequenceModel,
    parent: SequenceModel,
    given: FitData,
    steps: int,
    config: TrainingConfig,
    rng: np.random.Generator,
    effort: float,
) -> FitContext:
    old = given.recent if given.old is None else given.old
    return FitContext(model, parent, given.log, given.version_rows, old, given.since_seq, steps, config, rng, effort)


class _Passes:
    """Passes over the recent windows, each with the old ones that the strategy adds."""

    def __init__(self, data: FitData, strategy: Strategy, tokens: int, rng: np.random.Generator) -> None:
        self._recent, self._strategy, self._rng = data.recent, strategy, rng
        # a first version reads its whole log, however long
        self._tokens = tokens if data.parent is not None else int(data.recent.lengths.sum())

    @property
    def events(self) -> int:
        """About how many events a pass has."""
        return min(self._tokens, int(self._recent.lengths.sum() / (1 - self._strategy.share)))

    def draw(self) -> Windows:
        """Return the windows of the next pass."""
        recent, share = self._recent, self._strategy.share
        budget = int(self._tokens * (1 - share))
        if int(recent.lengths.sum()) > budget:
            # more than one fit can read: the windows of a random choice of users
            order = self._rng.permutation(len(recent.starts))
            recent = recent.take(order[: max(1, int(np.searchsorted(np.cumsum(recent.lengths[order]), budget)))])
        old = self._strategy.old_windows(int(recent.lengths.sum()) * share / (1 - share))
        return recent if old is None else recent.join(old)


def _validation(
    model: SequenceModel, data: FitData, config: TrainingConfig, seen_weight: float
) -> Callable[[], float] | None:
    """Return what measures the loss on the users left out, None if they have too few new events."""
    log, windows = data.log, data.validation
    new = log.seqs > data.since_seq
    cumulated = np.append(0, np.cumsum(new))
    if (cumulated[windows.stops] - cumulated[windows.starts]).sum() < MIN_VALIDATION:
        return None

    def measure() -> float:
        # the same batches and samples each time, independent of what training drew so far
        rng = np.random.default_rng(0)
        sampler = Sampler.needed(data.version_rows[data.log.items], model.items, config)
        drawn = None if sampler is None else sampler.draw(rng)
        total = count = 0.0
        model.eval()
        with torch.no_grad():
            table = model.item_table()
            for part in batches(windows, config.batch_events, rng, padded=not model.streams):
                batch = pack(log, part, data.version_rows)
                chosen = targets(batch, model.items, counted=new[batch.rows], seen_weight=seen_weight, drawn=drawn)
                mean = window_loss(model, table, batch, chosen, drawn=drawn).item()
                total, count = total + mean * len(chosen.events), count + len(chosen.events)
        return total / max(1.0, count)

    return measure


class _Best:
    """Keeps the weights with the least validation loss; without validation the last ones."""

    def __init__(self, model: SequenceModel, strategy: Strategy, measure: Callable[[], float] | None) -> None:
        self._model, self._strategy, self._measure = model, strategy, measure
        self._state: dict[str, torch.Tensor] = {}
        self._step, self._loss, self._worse = 0, math.inf, 0
        if measure is not None:
            self.look(0)

    @property
    def exhausted(self) -> bool:
        """Whether the loss has not improved for so long that going on is pointless."""
        return self._worse >= _PATIENCE

    def look(self, step: int) -> None:
        """Measure, and remember the weights if they are the best."""
        if self._measure is None:
            return
        with self._strategy.shown():
            self._look(step, self._measure())

    def _look(self, step: int, loss: float) -> None:
        if not math.isfinite(loss):
            raise TrainingError(f"the validation loss became {loss} at step {step}; the serving version stays")
        if loss < self._loss:
            self._state = {name: tensor.clone() for name, tensor in self._model.state_dict().items()}
            self._step, self._loss, self._worse = step, loss, 0
        else:
            self._worse += 1

    def finish(self, done: int, events: int, loss: float) -> Fitted:
        """Put the best weights back."""
        self._model.eval()
        if self._measure is None:
            return Fitted(done, done, events, loss, None)
        self._model.load_state_dict(self._state)
        return Fitted(done, self._step, events, loss, self._loss)
