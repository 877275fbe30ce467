from collections.abc import Callable
from statistics import NormalDist
from typing import NamedTuple

import msgspec
import numpy as np
import pytest
import torch

from recurra.engine.config import Config, GateConfig, ModelConfig
from recurra.engine.model import StreamingModel, gap_features
from recurra.engine.ranking import ndcgs
from recurra.engine.states import anchor
from recurra.engine.training.gate import chance_ndcg, event_ranks, judge, popularity_ndcg, user_bootstrap
from recurra.engine.training.rounds import Round, train_round
from recurra.engine.training.windows import UserLog

_GATE = GateConfig(resamples=400)
_ANCHOR = 4


def _ndcg(rng: np.random.Generator, users: np.ndarray, spread: float) -> np.ndarray:
    """Paired outcomes of a version: those of one user are alike."""
    taste = rng.normal(0.3, spread, size=users.max() + 1)
    return np.asarray(np.clip(taste[users] + rng.normal(0, 0.2, size=len(users)), 0, 1))


def test_the_interval_is_as_wide_as_it_says() -> None:
    below = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        users = rng.integers(60, size=600)
        # whole users differ between the versions, on average by nothing
        difference = rng.normal(0, 0.1, size=60)[users] + rng.normal(0, 0.1, size=600)
        below += user_bootstrap(difference, users, _GATE, rng).lower <= 0
    # one-sided at 90 %: the bound is below the truth in about nine of ten; the bootstrap is a little optimistic
    assert 0.85 <= below / 300 <= 0.95


def test_single_events_would_claim_too_much() -> None:
    rng = np.random.default_rng(0)
    users = np.repeat(np.arange(20), 50)
    difference = rng.normal(0, 0.1, size=20)[users]
    by_user = user_bootstrap(difference, users, _GATE, rng)
    by_event = user_bootstrap(difference, np.arange(1000), _GATE, rng)
    assert by_user.difference == pytest.approx(by_event.difference)
    assert by_user.difference - by_user.lower > 4 * (by_event.difference - by_event.lower)


def test_the_same_version_passes() -> None:
    rng = np.random.default_rng(0)
    users = rng.integers(40, size=800)
    parent = _ndcg(rng, users, 0.1)
    passed, interval = judge(parent, parent.copy(), users, _GATE, rng)
    assert passed
    assert tuple(interval) == (0.0, 0.0)


def test_versions_that_differ_by_noise_mostly_pass_and_a_better_one_always() -> None:
    passed = better = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        users = rng.integers(300, size=4000)
        parent = _ndcg(rng, users, 0.1)
        candidate = np.clip(parent + rng.normal(0, 0.1, size=4000), 0, 1)
        passed += judge(parent, candidate, users, _GATE, rng)[0]
        better += judge(parent, np.clip(candidate + 0.02, 0, 1), users, _GATE, rng)[0]
    assert passed >= 80
    assert better == 100


class _Trials(NamedTuple):
    """Real NDCG per event of two versions of one quality, and what the level of the gate implies for them."""

    users: np.ndarray
    one: np.ndarray
    other: np.ndarray

    def published(self, worse: float, trials: int) -> float:
        """Return the share of candidates that are published, each worse than the parent by ``worse``, a share of it.

        A trial is a separate stretch of events: users drawn again, and of each, which version is the candidate. So
        the candidate's quality is that of the parent but for what is taken off, whatever the two were worth.
        """
        passed = 0
        rows = [np.flatnonzero(self.users == user) for user in np.unique(self.users)]
        for trial in range(trials):
            rng = np.random.default_rng(trial)
            drawn = rng.integers(len(rows), size=len(rows))
            owners = np.repeat(np.arange(len(rows)), [len(rows[user]) for user in drawn])
            events = np.concatenate([rows[user] for user in drawn])
            swapped = rng.random(len(rows))[owners] < 0.5
            parent = np.where(swapped, self.one[events], self.other[events])
            candidate = np.where(swapped, self.other[events], self.one[events])
            passed += judge(parent, candidate - worse * parent.mean(), owners, _GATE, rng)[0]
        return passed / trials

    def implied(self, worse: float) -> float:
        """Return the share that the level implies: the bound is 1.28 standard errors below the difference found."""
        difference = self.one - self.other
        sums = np.bincount(np.unique(self.users, return_inverse=True)[1], difference)
        error = float(np.sqrt((sums**2).sum()) / len(difference))
        slack = (-_GATE.margin - worse) * float((self.one.mean() + self.other.mean()) / 2)
        return NormalDist().cdf(slack / error - NormalDist().inv_cdf(_GATE.confidence))


@pytest.fixture(scope="module")
def equals(stream: Callable[..., UserLog], config: Config) -> _Trials:
    """Train two versions that differ in their seeds alone, and rank the same events by both."""
    log = stream(2_000, users=150)
    names = [f"i{row}" for row in range(30)]
    targets, found = np.flatnonzero(log.seqs >= 900), []
    for seed in (0, 1):
        training = msgspec.structs.replace(config.training, seed=seed)
        outcome = train_round(
            Round(log.until(999), names, None, msgspec.structs.replace(config, training=training)),
        )
        assert outcome.model is not None
        rows = {item: row for row, item in enumerate(outcome.vocabulary)}
        version_rows = np.array([rows.get(name, len(rows)) for name in names])
        found.append(ndcgs(event_ranks(outcome.model, log, targets, version_rows, 8, exclude_own=False), np.inf))
    assert found[0].mean() == pytest.approx(found[1].mean(), rel=0.15)
    return _Trials(log.users[targets], found[0], found[1])


def test_fifty_identical_candidates_are_published(equals: _Trials) -> None:
    same = equals._replace(other=equals.one)
    assert same.published(0.0, 50) == 1.0


@pytest.mark.parametrize("worse", [0.0, 0.01, 0.02])
def test_equals_are_published_as_often_as_the_level_implies(equals: _Trials, worse: float) -> None:
    share, implied = equals.published(worse, 200), equals.implied(worse)
    # a binomial share of 200 trials, and a bootstrap that is a little optimistic
    assert share == pytest.approx(implied, abs=2.5 * np.sqrt(max(implied * (1 - implied), 0.05) / 200) + 0.02)


def test_what_is_worse_by_the_margin_is_published_once_in_ten(equals: _Trials) -> None:
    # that is what the level says: the share is 1 - confidence where the difference is the margin
    assert equals.implied(-_GATE.margin) == pytest.approx(0.1)
    assert equals.published(-_GATE.margin, 300) == pytest.approx(0.1, abs=0.06)
    assert equals.published(0.1, 100) <= 0.01


def test_a_sabotaged_version_is_refused() -> None:
    for seed in range(30):
        rng = np.random.default_rng(seed)
        users = rng.integers(40, size=800)
        parent = _ndcg(rng, users, 0.1)
        assert not judge(parent, 0.7 * rng.permutation(parent), users, _GATE, rng)[0]


def _model(items: int) -> StreamingModel:
    config = ModelConfig(d_model=8, layers=1, heads=1, head_dim=8, d_state=4)
    model = StreamingModel(config, items, generator=torch.Generator().manual_seed(3))
    torch.manual_seed(4)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


def _naive_rank(model: StreamingModel, log: UserLog, row: int, rows: np.ndarray, exclude_own: bool) -> float:
    """Rank one event as serving would: fold from the anchor, query at its time, leave out the user's own items."""
    first = int(log.starts[log.users[row]])
    n = row - first
    begin = first + anchor(n, _ANCHOR)
    items = torch.from_numpy(rows[log.items[begin : row + 1]])[None]
    times = torch.from_numpy(log.times_ms[begin : row + 1])[None]
    hidden = model(items[:, :-1], times[:, :-1])[:, -1]
    scores = (model.query(hidden, gap_features(times)[:, -1]) @ model.item_table().T)[0].detach().numpy()
    own = set(rows[log.items[first:row]].tolist()) if exclude_own else set()
    target = int(rows[log.items[row]])
    if target >= model.items or target in own:
        return float("inf")
    return float(sum(scores[item] >= scores[target] for item in range(model.items) if item not in own))


@pytest.mark.parametrize("exclude_own", [True, False])
def test_ranks_are_those_of_serving(exclude_own: bool) -> None:
    rng = np.random.default_rng(1)
    events = 150
    log = UserLog.of(
        rng.integers(6, size=events), rng.integers(40, size=events), rng.integers(10**6, size=events), np.arange(events)
    )
    # the model knows 30 of the 40 items, in another order
    model, rows = _model(30), np.minimum(rng.permutation(40), 30)
    targets = np.flatnonzero(log.seqs >= 60)
    got = event_ranks(model, log, targets, rows, _ANCHOR, exclude_own=exclude_own)
    want = [_naive_rank(model, log, row, rows, exclude_own) for row in targets.tolist()]
    assert got.tolist() == want
    assert np.isinf(got).any()
    assert (got < 10).any()


def test_ties_count_against() -> None:
    log = UserLog.of(np.zeros(1, np.int64), np.zeros(1, np.int64), np.zeros(1, np.int64), np.zeros(1, np.int64))
    model = _model(7)
    with torch.no_grad():
        # sums of zeros are equal in whatever order a product adds them
        model.embedding[:] = 0.0
    assert event_ranks(model, log, np.array([0]), np.arange(7), _ANCHOR).tolist() == [7.0]


def test_popularity_ranks_by_the_events_up_to_the_cutoff() -> None:
    # items 1, 1, 0 before; then a user without events takes 0, and the first user a new item and 1 again
    log = UserLog.of(np.array([0, 1, 1, 2, 0, 0]), np.array([1, 1, 0, 0, 2, 1]), np.arange(6), np.arange(6))
    targets = np.flatnonzero(log.seqs > 2)
    # 0 is second of three; 2 is last of those left, 0 and 2; the repeat is a miss
    want = (1 / np.log2(3) + 1 / np.log2(3) + 0) / 3
    assert popularity_ndcg(log, targets, 2) == pytest.approx(want)


def test_chance_is_the_mean_over_all_ranks() -> None:
    assert chance_ndcg(1) == 1.0
    assert chance_ndcg(3) == pytest.approx((1 + 1 / np.log2(3) + 0.5) / 3)
    assert ndcgs(np.array([1.0, 3.0, np.inf]), np.inf).tolist() == [1.0, 0.5, 0.0]
