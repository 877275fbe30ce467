"""One round of training: from the log and the parent version to a candidate and a verdict. No files, no clock."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from msgspec.structs import replace

from ...kernels.arrays import Int64s
from ..config import Config
from ..devices import device_of
from ..errors import TrainingError
from ..events import Features, Item, item_features
from ..model import StreamingModel
from ..ranking import ndcgs
from ..results import KEPT, PROMOTED, REFUSED, TrainReport
from ..versions import Version
from .fit import MIN_VALIDATION, fit
from .gate import chance_ndcg, event_ranks, judge, popularity_ndcg
from .strategies import FitData, create_strategy
from .windows import UserLog, all_windows, last_windows

__all__ = ["Outcome", "Round", "train_round"]

_VALIDATION_SHARE = 0.1
_GAP_QUANTILE = 0.999
_RETRY_GROWTH = 1.5
# rounds with fewer new events learn at a rate lower in proportion
_FULL_RATE_EVENTS = 3_000
# after a fall of quality events are read by this power of the effort: six times as many for one to a quarter
_READING = 1.3


class Outcome(NamedTuple):
    """A report, with the candidate and its vocabulary if that is to be published."""

    report: TrainReport
    model: StreamingModel | None = None
    vocabulary: Sequence[str] = ()


class Round(NamedTuple):
    """What a round is given. ``item_ids`` are the store's items by row; ``attempted_seq`` is the newest event that the
    round before saw, so that refused candidates do not make the next ones ever more expensive (-1: none was);
    ``records`` are the newest catalogue records by store row, read by models with attributes; a later version reads
    ``effort`` to the power of 1.3 times as much as usual, at ``effort`` times the rate: after a change there is more to
    learn."""

    log: UserLog
    item_ids: Sequence[str | None]
    parent: Version | None
    config: Config
    attempted_seq: int = -1
    records: Sequence[Item | None] = ()
    effort: float = 1.0


def train_round(given: Round, *, progress: Callable[[float], None] | None = None) -> Outcome:
    """Train a candidate on all but the newest events and compare it with the parent version on these.

    Deterministic: the seed of the configuration and the newest event decide every draw; torch's generator is seeded.
    Raises ``TrainingError`` if a loss is not finite, ``ConfigError`` if there is no such device.
    """
    config, parent = given.config, given.parent
    device = device_of(config.training.device, name="training.device")
    old_cutoff = -1 if parent is None else parent.facts.cutoff_seq
    cutoff = _cutoff(given.log, old_cutoff, config)
    trained = given.log.until(cutoff)
    report = TrainReport(
        verdict=KEPT,
        reason="",
        parent=0 if parent is None else parent.number,
        cutoff_seq=cutoff,
        newest_seq=int(given.log.seqs.max(initial=-1)),
        seed=config.training.seed,
    )
    kept = _too_few(given, trained, old_cutoff)
    if kept is not None:
        return Outcome(replace(report, reason=kept))
    sequence = np.random.SeedSequence([config.training.seed, cutoff])
    rng = np.random.default_rng(sequence)
    torch.manual_seed(int(sequence.generate_state(1)[0]))
    vocabulary, version_rows = _vocabulary(trained, given.item_ids, parent)
    generator = torch.Generator().manual_seed(int(sequence.generate_state(2)[1]))
    buckets = config.model.attributes if parent is None else parent.model().config.attributes or config.model.attributes
    features = _features(vocabulary, given, buckets) if buckets else None
    if parent is None:
        model = StreamingModel(config.model, len(vocabulary), features=features, generator=generator)
    else:
        model = parent.model().grown(len(vocabulary), attributes=buckets, features=features, generator=generator)
    _set_gap_clip(model, trained)
    model.to(device)
    report = replace(report, items=len(vocabulary), trained_events=len(trained), effort=given.effort)
    report = _fit(model, trained, version_rows, given, rng, progress, report)
    outcome = _judged(model, vocabulary, version_rows, given, report, rng)
    model.cpu()
    return outcome


def _cutoff(log: UserLog, old_cutoff: int, config: Config) -> int:
    """Return the sequence number up to which the candidate is trained."""
    seqs = np.sort(log.seqs)
    new = len(seqs) - int(np.searchsorted(seqs, old_cutoff, side="right"))
    # a first version is compared with nothing, so that a larger holdout would only cost it events
    share = 0.0 if old_cutoff < 0 else config.gate.holdout_share
    holdout = max(config.gate.holdout_events, round(share * new))
    return int(seqs[-holdout - 1]) if len(seqs) > holdout else -1


def _too_few(given: Round, trained: UserLog, old_cutoff: int) -> str | None:
    config = given.config
    if given.parent is None:
        if len(given.log) < config.training.min_events:
            return f"a first version needs {config.training.min_events} events, the log has {len(given.log)}"
        # it begins from nothing each time, so that trying at every occasion would cost without bound
        attempted = int((given.log.seqs <= given.attempted_seq).sum())
        if len(given.log) < _RETRY_GROWTH * attempted:
            return f"the first version was refused at {attempted} events; {_RETRY_GROWTH} times as many are waited for"
    if int((trained.seqs > old_cutoff).sum()) == 0:
        return (
            f"with {config.gate.holdout_events} events held out for the comparison no new ones are left to learn from; "
            "the serving version stays"
        )
    return None


def _vocabulary(log: UserLog, item_ids: Sequence[str | None], parent: Version | None) -> tuple[list[str], Int64s]:
    """Return the item ids by version row, the parent version's first, and the map from store rows to version rows."""
    vocabulary = [] if parent is None else list(parent.vocabulary)
    rows = {item: row for row, item in enumerate(vocabulary)}
    items, first = np.unique(log.items[np.argsort(log.seqs, kind="stable")], return_index=True)
    for item in items[np.argsort(first)].tolist():
        name = item_ids[item]
        if name is not None and name not in rows:
            rows[name] = len(vocabulary)
            vocabulary.append(name)
    unknown = len(vocabulary)
    return vocabulary, np.array([unknown if name is None else rows.get(name, unknown) for name in item_ids], np.int64)


def _features(vocabulary: Sequence[str], given: Round, buckets: int) -> Features:
    records = dict(zip(given.item_ids, given.records, strict=False))
    return item_features((records.get(item) for item in vocabulary), buckets)


def _set_gap_clip(model: StreamingModel, log: UserLog) -> None:
    gaps = np.diff(log.times_ms)[np.diff(log.users) == 0] / 1000
    if len(gaps):
        model.gap_clip_s.fill_(float(np.quantile(gaps, _GAP_QUANTILE)))


def _came_in(log: UserLog, given: Round, since: int) -> int:
    """Return how many events a later version is trained for: those since the last attempt, less the share held out.

    The held-out ones of the attempt before are learnt in their place, so that it is more than none in a round that
    holds all its own events out; refused candidates do not make the next ones more expensive.
    """
    untrained = int((log.seqs > since).sum())
    came = int((given.log.seqs > max(since, given.attempted_seq)).sum())
    return max(1, min(untrained, round((1 - given.config.gate.holdout_share) * came)))


def _fit(
    model: StreamingModel,
    log: UserLog,
    version_rows: Int64s,
    given: Round,
    rng: np.random.Generator,
    progress: Callable[[float], None] | None,
    report: TrainReport,
) -> TrainReport:
    """Train the model and return the report with what the fit did."""
    config, interval = given.config.training, given.config.store.anchor
    whole = all_windows(log, interval)
    since = -1 if given.parent is None else given.parent.facts.cutoff_seq
    # no user is left out for a validation that would say nothing
    share = _VALIDATION_SHARE if _VALIDATION_SHARE * int((log.seqs > since).sum()) >= MIN_VALIDATION else 0.0
    left_out = rng.random(int(log.users.max()) + 1) < share
    if given.parent is None:
        mine = left_out[log.users[whole.starts]]
        train, validation = whole.take(~mine), whole.take(mine)
        pass_events = int(train.lengths.sum())
        tokens = min(config.first_passes * pass_events, config.first_tokens)
        data = FitData(log, version_rows, train, validation, since)
        rate = config.first_rate
    else:
        recent = last_windows(log, since, interval)
        mine = left_out[log.users[recent.starts]]
        new = _came_in(log, given, since)
        tokens = round(config.tokens_per_event * new * given.effort**_READING)
        parent = given.parent.model().to(model.embedding.device)
        data = FitData(log, version_rows, recent.take(~mine), recent.take(mine), since, parent, whole)
        # a few users' windows pull at the full rate until the model overfits them
        rate = config.rate * given.effort * min(1.0, given.effort * new / _FULL_RATE_EVENTS)
    fitted = fit(
        model,
        data,
        config,
        tokens=tokens,
        rate=rate,
        rng=rng,
        strategy=create_strategy(config.strategy, config),
        effort=given.effort,
        exclude_own=given.config.retrieval.exclude_seen,
        progress=progress,
    )
    return replace(
        report,
        steps=fitted.steps,
        best_step=fitted.best_step,
        fitted_events=fitted.events,
        loss=fitted.loss,
        validation_loss=fitted.validation_loss,
    )


def _judged(
    model: StreamingModel,
    vocabulary: list[str],
    version_rows: Int64s,
    given: Round,
    report: TrainReport,
    rng: np.random.Generator,
) -> Outcome:
    config, parent, log = given.config, given.parent, given.log
    interval, exclude_own = config.store.anchor, config.retrieval.exclude_seen
    targets = np.flatnonzero(log.seqs > report.cutoff_seq)
    reached = event_ranks(model, log, targets, version_rows, interval, exclude_own=exclude_own)
    candidate = ndcgs(reached, np.inf)
    report = replace(report, holdout=len(targets), users=len(np.unique(log.users[targets])))
    if len(targets) < config.gate.holdout_events:
        reason = f"{len(targets)} held-out events are fewer than the {config.gate.holdout_events} that the gate needs"
        mean = float(candidate.mean()) if len(targets) else None
        return Outcome(replace(report, reason=reason, ndcg_candidate=mean))
    report = replace(report, ndcg_candidate=float(candidate.mean()))
    if parent is None:
        # an item that came after the cutoff cannot be ranked, in no order
        chance = chance_ndcg(len(vocabulary)) * float(np.isfinite(reached).mean())
        return _judge_first_version(model, vocabulary, given, targets, chance, report)
    rows = {item: row for row, item in enumerate(parent.vocabulary)}
    parent_rows = np.array([rows.get(name or "", len(rows)) for name in given.item_ids], np.int64)
    parent_model = parent.model().to(model.embedding.device)
    before = ndcgs(event_ranks(parent_model, log, targets, parent_rows, interval, exclude_own=exclude_own), np.inf)
    passed, difference = judge(before, candidate, log.users[targets], config.gate, rng)
    required = config.gate.margin * float(before.mean())
    relation = "above" if passed else "not above"
    report = replace(
        report,
        verdict=PROMOTED if passed else REFUSED,
        reason=f"the NDCG difference has the lower bound {difference.lower:+.4f}, {relation} {required:+.4f}",
        ndcg_parent=float(before.mean()),
        difference=difference.difference,
        lower=difference.lower,
        required=required,
        confidence=config.gate.confidence,
    )
    return Outcome(report, model, vocabulary) if passed else Outcome(report)


def _judge_first_version(
    model: StreamingModel,
    vocabulary: list[str],
    given: Round,
    targets: Int64s,
    chance: float,
    report: TrainReport,
) -> Outcome:
    """Judge a version without a parent to compare it with: it must beat a random order."""
    exclude_own = given.config.retrieval.exclude_seen
    popularity = popularity_ndcg(given.log, targets, report.cutoff_seq, exclude_own=exclude_own)
    reached = report.ndcg_candidate or 0.0
    if not all(bool(torch.isfinite(tensor).all()) for tensor in model.state_dict().values()):
        raise TrainingError("the first version has weights that are not finite; none is promoted")
    passed = reached > chance
    report = replace(
        report,
        verdict=PROMOTED if passed else REFUSED,
        reason=(
            f"nothing to compare with: NDCG {reached:.4f}, a random order has {chance:.4f}, popularity {popularity:.4f}"
        ),
        ndcg_popularity=popularity,
    )
    return Outcome(report, model, vocabulary) if passed else Outcome(report)
