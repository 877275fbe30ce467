"""The optimisation of one candidate: bounded steps, a warm-up and a decay, early stop, the best weights so far."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ..config import TrainingConfig
from ..errors import TrainingError
from ..model import StreamingModel
from .loss import Sampler, window_loss
from .windows import UserLog, Windows, batches, cells

__all__ = ["MIN_VALIDATION", "Fitted", "Material", "fit"]

# the validation loss is looked at so often in one fit, and this many times without a better one end it
_CHECKS = 10
_PATIENCE = 3
# fewer validation events than this say nothing about a few steps more or less
MIN_VALIDATION = 1_000
_MIN_BATCH = 256
_BATCHES_PER_PASS = 10
_WARM_UP = 0.1
_CLIP = 1.0

Ints = NDArray[np.int64]


class Material(NamedTuple):
    """What a fit learns from.

    ``epoch`` returns the windows of one pass, ``validation`` those of users that it leaves out; of these only events
    after ``since_seq`` count. ``version_rows`` maps store rows to rows of the model. ``pass_events`` is about how many
    events a pass has.
    """

    log: UserLog
    version_rows: Ints
    epoch: Callable[[], Windows]
    validation: Windows
    since_seq: int
    pass_events: int


class Fitted(NamedTuple):
    """What a fit did; ``best_step`` is the step whose weights it left in the model."""

    steps: int
    best_step: int
    events: int
    loss: float
    validation_loss: float | None


def fit(
    model: StreamingModel,
    material: Material,
    config: TrainingConfig,
    *,
    tokens: int,
    rate: float,
    rng: np.random.Generator,
    progress: Callable[[float], None] | None = None,
) -> Fitted:
    """Train ``model`` in place on about ``tokens`` events with the peak learning rate ``rate``.

    Raises ``TrainingError`` if the loss is not finite. Dropout draws from torch's generator, the rest from ``rng``.
    """
    # a short log read in large batches would be over in a few steps
    batch_events = min(config.batch_events, max(_MIN_BATCH, material.pass_events // _BATCHES_PER_PASS))
    steps = max(1, round(tokens / batch_events))
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _shape(step, steps))
    sampler = _sampler(model, material, config)
    best = _Best(model, _validation(model, material, config))
    done = events = 0
    loss = math.nan
    while done < steps and not best.exhausted:
        for windows in batches(material.epoch(), batch_events, rng):
            model.train()
            batch = cells(material.log, windows, material.version_rows, rng)
            drawn = None if sampler is None else sampler.draw(rng)
            objective, counted = window_loss(model, batch, exclude_own=config.exclude_seen, negatives=drawn)
            loss = objective.item()
            if not math.isfinite(loss):
                raise TrainingError(f"the training loss became {loss} at step {done + 1}; the live version stays")
            optimizer.zero_grad(set_to_none=True)
            objective.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), _CLIP)
            optimizer.step()
            schedule.step()
            done, events = done + 1, events + counted
            if progress is not None:
                progress(done / steps)
            if done >= steps or done % max(1, steps // _CHECKS) == 0:
                best.look(done)
            if done >= steps or best.exhausted:
                break
    return best.finish(done, events, loss)


def _shape(step: int, steps: int) -> float:
    rise = min(1.0, (step + 1) / max(1.0, _WARM_UP * steps))
    return rise * max(0.02, 0.5 * (1 + math.cos(math.pi * step / steps)))


def _sampler(model: StreamingModel, material: Material, config: TrainingConfig) -> Sampler | None:
    if model.items <= config.sampled_above:
        return None
    rows = material.version_rows[material.log.items]
    return Sampler.of(np.bincount(rows[rows < model.items], minlength=model.items), config.negatives)


def _validation(model: StreamingModel, material: Material, config: TrainingConfig) -> Callable[[], float] | None:
    """Return what measures the loss on the users left out, None if they have too few new events."""
    log, windows = material.log, material.validation
    new = log.seqs > material.since_seq
    cumulated = np.append(0, np.cumsum(new))
    if (cumulated[windows.stops] - cumulated[windows.starts]).sum() < MIN_VALIDATION:
        return None

    def measure() -> float:
        # the same batches and samples each time, whatever training drew so far
        rng = np.random.default_rng(0)
        sampler = _sampler(model, material, config)
        drawn = None if sampler is None else sampler.draw(rng)
        total = count = 0.0
        model.eval()
        with torch.no_grad():
            for part in batches(windows, config.batch_events, rng):
                batch = cells(log, part, material.version_rows)
                counted = new[batch.rows]
                mean, events = window_loss(
                    model, batch, counted=counted, exclude_own=config.exclude_seen, negatives=drawn
                )
                total, count = total + mean.item() * events, count + events
        return total / max(1.0, count)

    return measure


class _Best:
    """Keeps the weights with the least validation loss; without validation the last ones."""

    def __init__(self, model: StreamingModel, measure: Callable[[], float] | None) -> None:
        self._model, self._measure = model, measure
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
        loss = self._measure()
        if not math.isfinite(loss):
            raise TrainingError(f"the validation loss became {loss} at step {step}; the live version stays")
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
