"""Caches are folds over durable truth: however the events came and whatever was restarted, the answers are the same."""

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import recurra
from recurra import Event, Recommendation
from recurra.engine.clock import EventClock
from recurra.engine.config import Config, FastConfig, RetrievalConfig, StateConfig

from .conftest import publish, small_config, stream, vocabulary

EVENTS = stream(400)
AT = EVENTS[-1].time_ms + 60_000
USERS = sorted({event.user for event in EVENTS})


def _open(path: Path, config: Config | None = None, events: Sequence[Event] = EVENTS) -> recurra.Engine:
    if not (path / "models").exists():
        publish(path, vocabulary(events))
    return recurra.open(path, config or small_config(), clock=EventClock(10**12))


def _answers(engine: recurra.Engine) -> list[Recommendation]:
    return [engine.recommend(user, 10, at=AT, explain=True) for user in [*USERS, "nobody"]]


def _same(left: Sequence[Recommendation], right: Sequence[Recommendation], parts: Sequence[str] | None = None) -> None:
    for a, b in zip(left, right, strict=True):
        assert (a.version, a.source) == (b.version, b.source)
        assert a.explain is not None
        assert b.explain is not None
        if parts is None:
            assert a.items == b.items
            np.testing.assert_allclose(a.scores, b.scores, rtol=1e-4, atol=1e-4)
        ours, theirs = dict(zip(a.items, a.explain, strict=True)), dict(zip(b.items, b.explain, strict=True))
        for item in ours.keys() & theirs.keys():
            for part in parts or ours[item]:
                x, y = ours[item].get(part), theirs[item].get(part)
                assert (x is None) == (y is None)
                if x is not None and y is not None:
                    assert abs(x - y) <= 1e-4 * max(1.0, abs(x))


class Plain:
    """What comes out when every event came in one call and nothing else happened."""

    def __init__(self, path: Path, config: Config | None = None) -> None:
        with _open(path, config) as engine:
            engine.ingest(EVENTS)
            self.digest, self.answers = engine.digest(), _answers(engine)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Plain:
    return Plain(tmp_path_factory.mktemp("plain"))


@settings(deadline=None, max_examples=12)
@given(st.lists(st.tuples(st.sampled_from((1, 7, 60, 512)), st.sampled_from(("go on", "close", "crash"))), max_size=6))
def test_batches_and_restarts_change_nothing(plain: Plain, steps: list[tuple[int, str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "0"
        engine = _open(path)
        done = 0
        for number, (size, then) in enumerate([*steps, (512, "go on")], 1):
            for start in range(done, min(done + 2 * size, len(EVENTS)), size):
                engine.ingest(EVENTS[start : start + size])
                done = min(start + size, len(EVENTS))
            if then != "go on":
                # a crash: what a copy of the files gives, taken while the engine runs and knows nothing of it
                if then == "close":
                    engine.close()
                after = path.with_name(str(number))
                shutil.copytree(path, after)
                engine.close()
                path = after
                engine = _open(path)
        with engine:
            assert engine.digest() == plain.digest
            _same(_answers(engine), plain.answers)


def test_few_slots_and_few_hot_histories_change_nothing(tmp_path: Path) -> None:
    # the error memory does not learn of a user whose state is neither hot nor short
    fast = FastConfig(half_lives=(50.0, 500.0), neighbours=16, error_events=0)
    plain = Plain(tmp_path / "plain", small_config(fast=fast))
    with _open(tmp_path / "few", small_config(fast=fast, states=StateConfig(hot_users=4))) as engine:
        for start in range(0, len(EVENTS), 20):
            engine.ingest(EVENTS[start : start + 20])
        assert engine.digest() == plain.digest
        _same(_answers(engine), plain.answers)


def test_repeats_change_nothing(plain: Plain, tmp_path: Path) -> None:
    with _open(tmp_path) as engine:
        # within what every user's history still holds
        for start in range(0, len(EVENTS), 4):
            report = engine.ingest(EVENTS[start : start + 4])
            assert report.applied == len(EVENTS[start : start + 4])
            assert engine.ingest(EVENTS[start : start + 4]).duplicate == report.applied
        assert engine.digest() == plain.digest
        _same(_answers(engine), plain.answers)


@settings(deadline=None, max_examples=8)
@given(st.lists(st.integers(0, 12), min_size=60, max_size=60))
def test_a_late_event_gives_the_state_of_one_in_time(plain: Plain, delays: list[int]) -> None:
    # an event comes up to twelve events too late, so a history of 16 still reaches back to its place
    order = [EVENTS[-60 + i] for i in sorted(range(60), key=lambda i: (i + delays[i], i))]
    with tempfile.TemporaryDirectory() as folder, _open(Path(folder)) as engine:
        engine.ingest(EVENTS[:-60])
        report = engine.ingest(order)
        assert report.applied == len(order)
        assert engine.digest() == plain.digest
        _same(_answers(engine), plain.answers, parts=["slow"])


@settings(deadline=None, max_examples=8)
@given(st.integers(0, 2**31))
def test_the_order_of_different_users_changes_no_record_and_no_slow_score(plain: Plain, seed: int) -> None:
    rng = np.random.default_rng(seed)
    partitions: list[list[Event]] = [[], [], [], []]
    for event in EVENTS:
        partitions[int(event.user[1:]) % 4].append(event)
    mixed: list[Event] = []
    while any(partitions):
        chosen = partitions[rng.integers(4)]
        take = int(rng.integers(1, 30))
        mixed += chosen[:take]
        del chosen[:take]
    with tempfile.TemporaryDirectory() as folder, _open(Path(folder)) as engine:
        engine.ingest(mixed)
        assert engine.digest() == plain.digest
        _same(_answers(engine), plain.answers, parts=["slow"])


def test_a_version_serves_the_same_lists_from_a_store_in_another_order(tmp_path: Path) -> None:
    # only the model answers: everybody's candidates are all items, and the mixture has learnt nothing
    config = small_config(retrieval=RetrievalConfig(candidates=100))
    by_user = sorted(EVENTS, key=lambda event: event.user)
    lists = []
    for name, events in (("a", EVENTS), ("b", by_user)):
        with _open(tmp_path / name, config) as engine:
            engine.ingest(events)
            scores = [engine.scores(user, AT) for user in USERS]
            ids = {engine.item_row(item): item for item in vocabulary(EVENTS)}
            lists.append(
                [[ids[row] for row in np.lexsort((-found.parts["slow"],)) if found.allowed[row]] for found in scores]
            )
    assert lists[0] == lists[1]
    assert any(lists[0])


def test_a_changed_version_gives_what_a_cold_start_with_it_gives(tmp_path: Path) -> None:
    with _open(tmp_path / "warm") as engine:
        engine.ingest(EVENTS[:300])
        _answers(engine)
        publish(tmp_path / "warm", vocabulary(EVENTS)[::-1], seed=1)
        engine.rollback(2)
        engine.ingest(EVENTS[300:])
        warm = _answers(engine)
        assert {answer.version for answer in warm} == {0, 2}
    with _open(tmp_path / "warm") as engine:
        assert engine.version == 2
        _same(warm, _answers(engine))
        engine.rollback(1)
        assert engine.recommend(USERS[0]).version == 1
