"""Offline evaluation of one model on one data set: train by epochs, keep the best by validation, test once."""

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import torch

from ..connectors.catalogue import Catalogue
from ..engine.config import Config, TrainingConfig
from ..engine.events import Features, item_features
from ..engine.model import SequenceModel, create_model
from ..engine.training import Learner, Sampler, batches, cosine, pack
from .baselines import BASELINES
from .datasets import Stream, catalogue_facts
from .leave_one_out import Ranks, Split, figures, rank_events, rank_scores, split

__all__ = ["COUNTING", "evaluate", "evaluate_counting", "reads_attributes"]

COUNTING = ("popularity", "item-knn")

Progress = Callable[[int, int, dict[str, float]], None]


class _Settings(NamedTuple):
    """How one model is trained; see ``evaluate``."""

    training: TrainingConfig
    max_len: int
    epochs: int
    minutes: float | None
    patience: int
    every: int
    permute_ties: bool
    seen_weight: float
    seed: int
    threads: int
    checkpoint: Path | None


@dataclass
class _Best:
    """The best epoch so far, by validation NDCG@10."""

    epoch: int = 0
    valid: dict[str, float] = field(default_factory=dict)
    weights: dict[str, torch.Tensor] = field(default_factory=dict)

    def look(self, epoch: int, valid: dict[str, float], model: SequenceModel) -> None:
        if valid["ndcg@10"] > self.valid.get("ndcg@10", -1.0):
            self.epoch, self.valid = epoch, valid
            self.weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def reads_attributes(model: str, buckets: int) -> bool:
    """Return whether the model of this name reads what a catalogue says of items, with so many buckets for it."""
    return model == "streaming" and buckets > 0


def evaluate(
    stream: Stream,
    *,
    config: Config,
    catalogue: Catalogue | None = None,
    max_len: int = 200,
    epochs: int = 100,
    minutes: float | None = None,
    patience: int = 10,
    every: int = 1,
    permute_ties: bool = True,
    seen_weight: float = 1.0,
    device: str = "cpu",
    seed: int = 0,
    threads: int = 1,
    checkpoint: Path | None = None,
    clock: Callable[[], float] = time.perf_counter,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train ``config.model`` on a stream and test it by protocol loo; the keys are those of the command line's JSON.

    A model that reads attributes takes them from ``catalogue``, for all items from the start; others ignore it.
    The learning rate rises and falls once over ``epochs``, or over ``minutes`` if these end first (then the result
    depends on the speed of the machine). ``permute_ties`` learns events of one user at one time in new orders; the
    test keeps the order of the file, from which some models learn more than from its times. ``seen_weight`` is the
    weight of what a user had as a negative of the next item: it is ranked with the rest. Validation every ``every``
    epochs; ``patience`` validations without a better NDCG@10 end the training. With ``checkpoint`` (a file) every epoch
    is kept and a run that was stopped goes on; the file is removed at the end. ``progress`` is called with the epoch,
    the epochs and the validation.
    """
    torch.set_num_threads(1 if config.model.name == "streaming" else threads)
    data = split(stream)
    if not stream.clock:
        config = _without_time(config)
    if not reads_attributes(config.model.name, config.model.attributes):
        catalogue = None
    features, described = _features(stream, data, catalogue, config.model.attributes)
    generator = torch.Generator().manual_seed(seed)
    model = create_model(config.model, data.items, features=features, generator=generator).to(device)
    settings = _Settings(
        training=config.training,
        max_len=max_len,
        epochs=epochs,
        minutes=minutes,
        patience=patience,
        every=every,
        permute_ties=permute_ties,
        seen_weight=seen_weight,
        seed=seed,
        threads=threads,
        checkpoint=checkpoint,
    )
    run = _Run(data, model, settings, clock)
    best, history = run.train(progress)
    model.load_state_dict(best.weights)
    test = rank_events(model, data.log, data.train_stops + 1, max_len)
    result = {
        "protocol": "loo",
        "dataset": stream.name,
        "model": config.model.name,
        "time": config.model.time,
        "users": len(data.log.starts) - 1,
        "items": data.items,
        "events": len(data.log),
        **catalogue_facts(catalogue, described, data.items),
        "test": figures(test.plain),
        "test_masked": figures(test.masked),
    }
    if model.query_time is not None:
        modulated = rank_events(model, data.log, data.train_stops + 1, max_len, query_time=True)
        result["test_query_time"] = figures(modulated.plain)
    return result | {
        "valid": best.valid,
        "best_epoch": best.epoch,
        "epochs": run.epoch,
        "epoch_s": round(run.train_s / max(1, run.epoch), 2),
        "train_events_per_s": round(run.events / max(1e-9, run.train_s)),
        "seconds": round(run.seconds, 1),
        "parameters": model.parameters_count,
        "seed": seed,
        "threads": threads,
        "device": device,
        "history": history,
        "settings": {"max_len": max_len, "epochs": epochs, "minutes": minutes, "patience": patience}
        | {"permute_ties": permute_ties, "seen_weight": seen_weight}
        | {"catalogue": None if catalogue is None else catalogue.name}
        | {"model": msgspec.to_builtins(config.model), "training": msgspec.to_builtins(config.training)},
    }


def _features(stream: Stream, data: Split, catalogue: Catalogue | None, buckets: int) -> tuple[Features | None, int]:
    """Return the features of the items of ``data``, and how many of them have a record."""
    if catalogue is None:
        return None, 0
    by_item = catalogue.by_item()
    records = [by_item.get(stream.item_ids[code]) for code in data.codes.tolist()]
    return item_features(records, buckets), sum(record is not None for record in records)


def evaluate_counting(stream: Stream, name: str, *, seed: int = 0) -> dict[str, Any]:
    """Test a counting model by the same protocol; for the test the validation events are learnt too."""
    began = time.perf_counter()
    data = split(stream)
    model = BASELINES[name]()
    log = data.log
    part = np.arange(len(log)) - data.train_stops[log.users]
    ranks = []
    for step in (0, 1):
        learnt = np.flatnonzero(part < 0) if step == 0 else data.train_stops
        for row in learnt[np.argsort(data.order[learnt])].tolist():
            model.learn(int(log.users[row]), int(log.items[row]))
        found = []
        for event in (data.train_stops + step).tolist():
            scores = np.full((1, data.items), -np.inf)
            known = model.scores(int(log.users[event]))
            scores[0, : len(known)] = known
            found.append(rank_scores(scores, log, np.array([event])))
        ranks.append(Ranks(*(np.concatenate(column) for column in zip(*found, strict=True))))
    return {
        "protocol": "loo",
        "dataset": stream.name,
        "model": name,
        "users": len(log.starts) - 1,
        "items": data.items,
        "events": len(log),
        "test": figures(ranks[1].plain),
        "test_masked": figures(ranks[1].masked),
        "valid": figures(ranks[0].plain),
        "seconds": round(time.perf_counter() - began, 1),
        "seed": seed,
    }


class _Run:
    """The epochs of one training."""

    def __init__(self, data: Split, model: SequenceModel, settings: _Settings, clock: Callable[[], float]) -> None:
        self._data, self._model, self._settings, self._clock = data, model, settings, clock
        self._rng = np.random.default_rng(settings.seed)
        self.epoch = self.events = self._worse = 0
        self.train_s = self.seconds = 0.0
        self._began: float | None = None
        training = settings.training
        if model.causal:
            passes = int((data.train_stops - data.log.starts[:-1]).sum())
        else:
            passes = int(data.prefix_windows(settings.max_len).lengths.sum())
        self._steps = max(1, settings.epochs * -(-passes // training.batch_events))
        shape = cosine(10_000)
        self._learner = Learner(
            model,
            training,
            rate=training.rate,
            shape=lambda step: shape(round(10_000 * self._share(step))),
            rng=self._rng,
            seen_weight=settings.seen_weight,
            sampler=Sampler.needed(data.log.items[data.learnt], data.items, training),
            threads=settings.threads,
        )

    def train(self, progress: Progress | None) -> tuple[_Best, list[dict[str, float]]]:
        """Train to the end of the epochs, the minutes or the patience."""
        best = _Best()
        history: list[dict[str, float]] = []
        settings = self._settings
        if settings.checkpoint is not None and settings.checkpoint.exists():
            history = self._restore(best)
        while self.epoch < settings.epochs and self._worse < settings.patience and self._share(0) < 1:
            self._began = began = self._clock()
            loss = self._pass()
            self.epoch += 1
            self.train_s += self._clock() - began
            if self.epoch % settings.every == 0 or self.epoch == settings.epochs or self._share(0) >= 1:
                valid = figures(
                    rank_events(self._model, self._data.log, self._data.train_stops, settings.max_len).plain
                )
                before = best.epoch
                best.look(self.epoch, valid, self._model)
                self._worse = 0 if best.epoch != before else self._worse + 1
                history.append({"epoch": self.epoch, "loss": round(loss, 4)} | valid)
                if progress is not None:
                    progress(self.epoch, settings.epochs, history[-1])
            self.seconds += self._clock() - began
            self._began = None
            if settings.checkpoint is not None:
                self._save(best, history)
        self._learner.close()
        if settings.checkpoint is not None:
            settings.checkpoint.unlink(missing_ok=True)
        return best, history

    def _share(self, step: int) -> float:
        running = 0.0 if self._began is None else self._clock() - self._began
        spent = 0.0 if self._settings.minutes is None else (self.seconds + running) / (60 * self._settings.minutes)
        return min(1.0, max(step / self._steps, spent))

    def _pass(self) -> float:
        data, rng = self._data, self._rng
        windows = (
            data.train_windows(self._settings.max_len, rng)
            if self._model.causal
            else data.prefix_windows(self._settings.max_len)
        )
        rows = np.arange(data.items)
        total = count = 0.0
        for part in batches(windows, self._settings.training.batch_events, rng, padded=not self._model.streams):
            batch = pack(data.log, part, rows, rng if self._settings.permute_ties else None)
            counted = None
            if not self._model.causal:
                counted = np.zeros(len(batch.items), np.bool_)
                counted[batch.offsets[1:] - 1] = True
            loss, events = self._learner.step(batch, counted=counted)
            total, count = total + loss * events, count + events
            if self._share(0) >= 1:
                break
        self.events += int(count)
        return total / max(1.0, count)

    def _save(self, best: _Best, history: list[dict[str, float]]) -> None:
        assert self._settings.checkpoint is not None
        facts: dict[str, Any] = {"epoch": self.epoch, "events": self.events, "worse": self._worse}
        facts |= {"train_s": self.train_s, "seconds": self.seconds, "history": history}
        kept = {"epoch": best.epoch, "valid": best.valid, "weights": best.weights}
        self._learner.save(self._settings.checkpoint, {"run": facts, "best": kept})

    def _restore(self, best: _Best) -> list[dict[str, float]]:
        assert self._settings.checkpoint is not None
        extra = self._learner.restore(self._settings.checkpoint)
        run, kept = extra["run"], extra["best"]
        self.epoch, self.events, self._worse = run["epoch"], run["events"], run["worse"]
        self.train_s, self.seconds = run["train_s"], run["seconds"]
        best.epoch, best.valid, best.weights = kept["epoch"], kept["valid"], kept["weights"]
        history: list[dict[str, float]] = copy.deepcopy(run["history"])
        return history


def _without_time(config: Config) -> Config:
    model = msgspec.structs.replace(config.model, time=False, query_time=False)
    return msgspec.structs.replace(config, model=model)
