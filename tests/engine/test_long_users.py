"""Long users and rounded states, with real events and a model trained on others; figures: docs/research/states.md."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from recurra.engine.config import Config, GateConfig, TrainingConfig
from recurra.engine.model import StepWeights
from recurra.engine.states import StateSlab, anchor
from recurra.engine.training import UserLog
from recurra.engine.training.rounds import Round, train_round

pytestmark = pytest.mark.slow

A = Config().store.anchor
EVENTS = 20_000
LOOKS = (1_000, 5_000, 10_000, 20_000)
LAST = 20
# no entry of a state comes near this (1.5 was seen)
BOUND = 10.0
# differences of NDCG@10 over two thousand events that mean nothing
NOISE = 0.002

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]


class People(NamedTuple):
    """Events by person, in their order; version rows by item; weights trained on neither ``held`` nor anybody's end."""

    items: list[Ints]
    times_ms: list[Ints]
    held: list[int]
    weights: StepWeights


@pytest.fixture(scope="module")
def people(shared_data: Callable[[str], Path]) -> People:
    path = shared_data("ml-100k/ml-100k.inter")
    frame = pl.read_csv(path, separator="\t", new_columns=["user", "item", "rating", "second"])
    frame = frame.with_row_index().sort("second", "index")
    users, items = (
        np.unique(frame[name].to_numpy(), return_inverse=True)[1].astype(np.int64) for name in ("user", "item")
    )
    times_ms = frame["second"].cast(pl.Int64).to_numpy() * 1_000
    by_user = [np.flatnonzero(users == user) for user in range(users.max() + 1)]
    rng = np.random.default_rng(0)
    held = np.flatnonzero(rng.random(len(by_user)) < 0.2).tolist()
    learnt = np.sort(np.concatenate([rows[:-LAST] for user, rows in enumerate(by_user) if user not in set(held)]))
    log = UserLog.of(users[learnt], items[learnt], times_ms[learnt], np.arange(len(learnt)))
    names = [str(item) for item in range(items.max() + 1)]
    config = Config(training=TrainingConfig(first_tokens=300_000), gate=GateConfig(holdout_events=1))
    outcome = train_round(Round(log, names, None, config))
    assert outcome.model is not None
    rows = {int(name): row for row, name in enumerate(outcome.vocabulary)}
    version_rows = np.array([rows.get(item, len(rows)) for item in range(len(names))])
    return People(
        [version_rows[items[mine]] for mine in by_user],
        [times_ms[mine] for mine in by_user],
        held,
        StepWeights.of(outcome.model),
    )


def _fold(slab: StateSlab, slot: int, items: Ints, times_ms: Ints, *, reset: bool) -> None:
    slab.advance([slot], [0], [len(items)], [reset], items, times_ms)


def _rank(vector: Floats, table: Floats, item: int, own: Ints) -> float:
    """Rank an item among all that the person did not have yet; an item that the version does not know is a miss."""
    if item >= len(table):
        return np.inf
    scores = table @ vector
    true = scores[item]
    scores[own[own < len(table)]] = -np.inf
    return float((scores >= true).sum() + (scores[item] < true))


def _ndcg_10(ranks: list[float]) -> float:
    rank = np.array(ranks)
    return float(np.where(rank <= 10, 1 / np.log2(1 + rank), 0).mean())


class Long(NamedTuple):
    """One user of 20,000 events; ``starts`` is where each event's person began."""

    items: Ints
    times_ms: Ints
    starts: Ints


def _long_user(people: People) -> Long:
    """Put people whom the model never saw one behind another, always the one whose taste is nearest to the last's.

    Everybody keeps their own gaps and begins a day after the one before. Who has been used up begins again: the model
    has learnt from none of them, and no state reaches back that far.
    """
    table = people.weights.item_table
    tastes = np.stack(
        [table[items[items < len(table)]].mean(axis=0) for items in (people.items[u] for u in people.held)]
    )
    tastes /= np.linalg.norm(tastes, axis=1, keepdims=True)
    free, at = set(range(len(tastes))), 0
    parts: list[tuple[Ints, Ints]] = []
    now = 0
    while sum(len(items) for items, _ in parts) < EVENTS:
        free = free - {at} or set(range(len(tastes))) - {at}
        own = people.held[at]
        times_ms = people.times_ms[own] - people.times_ms[own][0] + now
        parts.append((people.items[own], times_ms))
        now = int(times_ms[-1]) + 86_400_000
        at = max(free, key=lambda other: float(tastes[other] @ tastes[at]))
    lengths = [len(items) for items, _ in parts]
    starts = np.repeat(np.cumsum(lengths) - lengths, lengths)
    items, times = (np.concatenate([part[column] for part in parts])[:EVENTS] for column in (0, 1))
    return Long(items, times, starts[:EVENTS].astype(np.int64))


def _size(slab: StateSlab, slot: int) -> float:
    return float(np.sqrt(np.mean(np.square(slab.state[slot], dtype=np.float64))))


def _step(slab: StateSlab, slot: int, user: Long, before: int, after: int, *, anchors: bool) -> None:
    """Bring a state from ``before`` to ``after`` events as serving does, or without ever beginning again."""
    first = anchor(after, A)
    if anchors and first != anchor(before, A):
        _fold(slab, slot, user.items[first:after], user.times_ms[first:after], reset=True)
    else:
        _fold(slab, slot, user.items[before:after], user.times_ms[before:after], reset=before == 0)


def test_a_long_user_keeps_its_quality(people: People, capsys: pytest.CaptureFixture[str]) -> None:
    user, table = _long_user(people), people.weights.item_table
    slab = StateSlab(people.weights, 3)
    slots = {"anchors": 0, "no anchors": 1, f"from the last {A}": 2}
    kept = {name: slot for name, slot in slots.items() if slot < 2}
    largest = dict.fromkeys(kept, 0.0)
    ranks: dict[str, list[float]] = {name: [] for name in slots}
    lines, n, tenth = [], 0, EVENTS - EVENTS // 10
    while n < EVENTS:
        if n >= tenth:
            _fold(slab, 2, user.items[n - A : n], user.times_ms[n - A : n], reset=True)
            own = user.items[user.starts[n] : n]
            for name, slot in slots.items():
                vector = slab.query([slot], user.times_ms[n])[0]
                ranks[name].append(_rank(vector, table, int(user.items[n]), own))
        after = n + (1 if n >= tenth else 25)
        for name, slot in kept.items():
            _step(slab, slot, user, n, after, anchors=name == "anchors")
            largest[name] = max(largest[name], float(np.abs(slab.state[slot]).max()))
        n = after
        if n in LOOKS:
            lines += [
                f"{n:6} events, {name}: root mean square of the state {_size(slab, slot):.4f}, largest entry so far "
                f"{largest[name]:.2f}"
                for name, slot in kept.items()
            ]
    found = {name: _ndcg_10(each) for name, each in ranks.items()}
    lines += [f"NDCG@10 of the last {EVENTS // 10}, {name}: {value:.4f}" for name, value in found.items()]
    with capsys.disabled():
        print("", *lines, sep="\n")
    assert np.isfinite(slab.state).all()
    assert largest["anchors"] < BOUND
    assert found["anchors"] >= found[f"from the last {A}"] - NOISE


def test_bfloat16_states_cost_next_to_nothing(people: People, capsys: pytest.CaptureFixture[str]) -> None:
    table = people.weights.item_table
    users = len(people.items)
    first = [anchor(len(items), A) for items in people.items]
    slabs = [StateSlab(people.weights, users, dtype) for dtype in ("float32", "bfloat16")]
    for slab in slabs:
        for user, (items, times_ms) in enumerate(zip(people.items, people.times_ms, strict=True)):
            _fold(slab, user, items[first[user] : -LAST], times_ms[first[user] : -LAST], reset=True)
    hits = np.zeros((2, users, LAST), bool)
    differ = 0
    for back in range(LAST, 0, -1):
        for user, (items, times_ms) in enumerate(zip(people.items, people.times_ms, strict=True)):
            at = len(items) - back
            lists = []
            for which, slab in enumerate(slabs):
                scores = table @ slab.query([user], times_ms[at])[0]
                own = items[:at]
                scores[own[own < len(table)]] = -np.inf
                best = np.argpartition(-scores, 10)[:10]
                lists.append(set(best.tolist()))
                hits[which, user, LAST - back] = items[at] in lists[-1]
                _fold(slab, user, items[at : at + 1], times_ms[at : at + 1], reset=False)
            differ += lists[0] != lists[1]
    last, many = hits[:, :, -1].mean(axis=1), hits.mean(axis=(1, 2))
    share = differ / (users * LAST)
    with capsys.disabled():
        print(
            f"\nHR@10 of the last event of {users}: float32 {last[0]:.4f}, bfloat16 {last[1]:.4f}; of the last {LAST}: "
            f"{many[0]:.4f}, {many[1]:.4f}; {share:.3f} of the lists hold other items"
        )
    assert abs(many[0] - many[1]) < 0.003
    assert share < 0.5
