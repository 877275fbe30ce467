from collections.abc import Callable

import msgspec
import numpy as np
import pytest
import torch

from recurra.engine.config import Config, GateConfig
from recurra.engine.errors import TrainingError
from recurra.engine.training.gate import chance_ndcg
from recurra.engine.training.rounds import Outcome, Round, train_round
from recurra.engine.training.windows import UserLog
from recurra.engine.versions import Version, VersionFacts

_ITEMS = [f"i{row}" for row in range(30)]

Stream = Callable[..., UserLog]


def _version(outcome: Outcome, number: int = 1) -> Version:
    assert outcome.model is not None
    facts = VersionFacts(number, 0, outcome.report.cutoff_seq, outcome.model.items, "s", outcome.report)
    return Version(facts, list(outcome.vocabulary), outcome.model)


def _tensors(outcome: Outcome) -> dict[str, torch.Tensor]:
    assert outcome.model is not None
    return dict(outcome.model.state_dict())


def _training(config: Config, **changes: object) -> Config:
    return msgspec.structs.replace(config, training=msgspec.structs.replace(config.training, **changes))


@pytest.fixture(scope="module")
def first(stream: Stream, config: Config) -> Outcome:
    return train_round(Round(stream(800), _ITEMS, None, config))


def test_the_first_version_learns(first: Outcome) -> None:
    report = first.report
    assert (report.verdict, report.parent, report.holdout, report.trained_events) == ("promoted", 0, 100, 700)
    assert (report.cutoff_seq, report.newest_seq) == (699, 799)
    assert report.promoted
    # nine of ten next items follow from the one before
    assert report.ndcg_candidate is not None
    assert report.ndcg_popularity is not None
    assert report.ndcg_candidate > 0.6 > report.ndcg_popularity
    assert set(first.vocabulary) == set(_ITEMS)


def test_training_repeats_exactly(stream: Stream, config: Config, first: Outcome) -> None:
    # what torch's generator was used for before makes no difference
    torch.rand(7)
    again = train_round(Round(stream(800), _ITEMS, None, config))
    assert again.report == first.report
    for name, tensor in _tensors(again).items():
        assert torch.equal(tensor, _tensors(first)[name]), name
    other = train_round(Round(stream(800), _ITEMS, None, _training(config, seed=5)))
    assert not torch.equal(_tensors(other)["embedding"], _tensors(first)["embedding"])


def test_held_out_events_leave_no_trace(stream: Stream, config: Config, first: Outcome) -> None:
    log = stream(800)
    held_out = log.seqs > first.report.cutoff_seq
    changed = UserLog.of(
        log.users, np.where(held_out, 29 - log.items, log.items), log.times_ms + 10**6 * held_out, log.seqs
    )
    again = train_round(Round(changed, _ITEMS, None, config)).report
    # every step leads up to the last loss, so that the smallest difference in one would show in it
    assert (again.steps, again.fitted_events, again.loss) == (
        first.report.steps,
        first.report.fitted_events,
        first.report.loss,
    )
    assert again.ndcg_candidate != first.report.ndcg_candidate


def test_a_later_version_learns_what_has_changed(stream: Stream, config: Config, first: Outcome) -> None:
    old, new = stream(800), stream(1200, step=7, seed=3)
    # other users come and walk in longer steps
    log = UserLog.of(
        np.concatenate((old.users, 40 + new.users)),
        np.concatenate((old.items, new.items)),
        np.concatenate((old.times_ms, 10**8 + new.times_ms)),
        np.concatenate((old.seqs, 800 + new.seqs)),
    )
    outcome = train_round(Round(log, _ITEMS, _version(first), config, attempted_seq=799))
    report = outcome.report
    assert (report.verdict, report.parent, report.cutoff_seq) == ("promoted", 1, 1999 - report.holdout)
    assert report.ndcg_parent is not None
    assert report.ndcg_candidate is not None
    assert report.required is not None
    assert report.lower is not None
    assert report.ndcg_candidate > report.ndcg_parent + 0.1
    assert report.lower > report.required
    assert report.trained_events == 2000 - report.holdout


def test_a_sabotaged_candidate_is_refused(stream: Stream, config: Config, first: Outcome) -> None:
    log = stream(1600)
    shuffled = np.random.default_rng(0).permutation(log.items)
    # what it learns from is shuffled, what it is judged by is not
    learnt = log.seqs <= 1300
    sabotaged = UserLog.of(log.users, np.where(learnt, shuffled, log.items), log.times_ms, log.seqs)

    def trained(**changes: str) -> Outcome:
        harsh = _training(config, tokens_per_event=100, **changes)
        return train_round(Round(sabotaged, _ITEMS, _version(first), harsh, attempted_seq=799))

    # the default holds on to the parent, and so loses nothing to what is without sense
    held = trained().report
    assert held.ndcg_candidate is not None
    for outcome in (trained(strategy="finetune"), trained(strategy="replay")):
        report = outcome.report
        assert (report.verdict, outcome.model) == ("refused", None)
        assert not report.promoted
        assert "not above" in report.reason
        assert report.ndcg_candidate is not None
        assert report.ndcg_parent is not None
        assert report.ndcg_candidate < 0.95 * report.ndcg_parent < held.ndcg_candidate


def test_new_items_are_known_once_they_were_learnt(stream: Stream, config: Config, first: Outcome) -> None:
    log = stream(1600)
    items = log.items.copy()
    items[(log.seqs >= 800) & (log.seqs < 1000) & (items == 4)] = 30
    items[log.seqs == 1599] = 31
    grown = UserLog.of(log.users, items, log.times_ms, log.seqs)
    outcome = train_round(Round(grown, [*_ITEMS, "new", "held out"], _version(first), config, attempted_seq=799))
    assert outcome.report.items == 31
    if outcome.model is not None:
        assert list(outcome.vocabulary) == [*first.vocabulary, "new"]


def test_items_are_mapped_by_id(stream: Stream, config: Config, first: Outcome) -> None:
    log = stream(1600)
    permuted = np.random.default_rng(2).permutation(30)
    other = UserLog.of(log.users, permuted[log.items], log.times_ms, log.seqs)
    names = [_ITEMS[row] for row in np.argsort(permuted).tolist()]
    straight = train_round(Round(log, _ITEMS, _version(first), config, attempted_seq=799)).report
    mapped = train_round(Round(other, names, _version(first), config, attempted_seq=799)).report
    assert mapped.ndcg_parent == pytest.approx(straight.ndcg_parent, abs=1e-9)
    assert mapped.ndcg_candidate == pytest.approx(straight.ndcg_candidate, abs=1e-6)


def test_too_little_to_go_by_changes_nothing(stream: Stream, config: Config, first: Outcome) -> None:
    few = train_round(Round(stream(300), _ITEMS, None, config))
    assert (few.report.verdict, few.model) == ("kept", None)
    assert "needs 400 events, the log has 300" in few.report.reason
    soon = train_round(Round(stream(790), _ITEMS, _version(first), config))
    assert (soon.report.verdict, soon.report.steps) == ("kept", 0)
    retry = train_round(Round(stream(900), _ITEMS, None, config, attempted_seq=799))
    assert (retry.report.verdict, retry.report.steps) == ("kept", 0)
    assert train_round(Round(UserLog.read([]), [], None, config)).report.verdict == "kept"


def test_a_first_version_need_not_rank_what_nobody_can_rank(stream: Stream, config: Config) -> None:
    # from event 700 on three of four events are of items that came after the cutoff
    log = stream(800)
    fresh = (log.seqs >= 700) & (log.seqs % 4 > 0)
    items = np.where(fresh, len(_ITEMS) + log.seqs, log.items)
    log = UserLog.of(log.users, items, log.times_ms, log.seqs)
    names = [*_ITEMS, *(f"new{number}" for number in range(800))]
    report = train_round(Round(log, names, None, config)).report
    assert report.ndcg_candidate is not None
    assert report.ndcg_candidate < chance_ndcg(len(_ITEMS))
    assert report.verdict == "promoted", report.reason


def test_the_effort_is_bounded_by_what_came_in(stream: Stream, config: Config, first: Outcome) -> None:
    parent, training = _version(first), config.training
    for count, attempted in ((1200, 799), (1600, 799), (1600, 1199)):
        report = train_round(Round(stream(count), _ITEMS, parent, config, attempted_seq=attempted)).report
        new = 0.8 * (count - 1 - attempted)
        assert report.steps == round(training.tokens_per_event * new / training.batch_events)
    # a round that holds out all that came in learns what the last one held out
    soon = train_round(Round(stream(900), _ITEMS, parent, config, attempted_seq=799)).report
    assert (soon.holdout, soon.trained_events) == (100, 800)
    assert soon.steps == round(training.tokens_per_event * 80 / training.batch_events)


def test_after_a_change_a_round_learns_more_and_faster(stream: Stream, config: Config, first: Outcome) -> None:
    parent, lenient = _version(first), msgspec.structs.replace(config, gate=GateConfig(100, margin=-10.0))
    usual, hurried = (
        train_round(Round(stream(1600), _ITEMS, parent, lenient, attempted_seq=799, effort=effort)) for effort in (1, 3)
    )
    training, new = config.training, 0.8 * 800
    assert usual.report.steps == round(training.tokens_per_event * new / training.batch_events)
    assert hurried.report.steps == round(training.tokens_per_event * new * 3**1.3 / training.batch_events)
    assert (usual.report.effort, hurried.report.effort) == (1, 3)
    before = parent.model().layers[0].get_parameter("in_proj.weight")
    few, many = (
        float((_tensors(outcome)["layers.0.in_proj.weight"] - before).detach().norm()) for outcome in (usual, hurried)
    )
    assert many > 2 * few


def test_small_rounds_learn_gently(stream: Stream, config: Config, first: Outcome) -> None:
    parent, lenient = _version(first), msgspec.structs.replace(config, gate=GateConfig(100, margin=-10.0))

    def moved(count: int, rate: float) -> float:
        changed = _training(lenient, rate=rate, tokens_per_event=24 * 800 // (count - 800))
        outcome = train_round(Round(stream(count), _ITEMS, parent, changed, attempted_seq=799))
        before = parent.model().layers[0].get_parameter("in_proj.weight")
        return float((_tensors(outcome)["layers.0.in_proj.weight"] - before).detach().norm())

    # the same number of steps: a quarter of the events at four times the rate moves the weights as far
    few, many = moved(1000, 4e-2), moved(1600, 1e-2)
    assert 0.5 < few / many < 2
    assert moved(1000, 1e-2) < 0.6 * few


def test_a_loss_that_is_not_finite_is_an_error(stream: Stream, config: Config) -> None:
    wild = _training(config)
    # beyond what a configuration may say
    msgspec.structs.force_setattr(wild.training, "first_rate", 1e30)
    with pytest.raises(TrainingError, match=r"loss became .*; the serving version stays"):
        train_round(Round(stream(800), _ITEMS, None, wild))


def test_large_catalogues_are_sampled(stream: Stream, config: Config) -> None:
    sampled = _training(config, sampled_above=20, negatives=16)
    report = train_round(Round(stream(800), _ITEMS, None, sampled)).report
    assert report.ndcg_candidate is not None
    assert report.ndcg_candidate > 0.6


def test_progress_rises_to_the_end(stream: Stream, config: Config) -> None:
    told: list[float] = []
    train_round(Round(stream(500), _ITEMS, None, _training(config, first_passes=2)), progress=told.append)
    assert told == sorted(told)
    assert told[-1] == 1.0
