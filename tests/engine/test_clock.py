"""A wall clock that jumps by a day: nothing expires, no age is negative, answers stay finite."""

import math
from pathlib import Path

import recurra
from recurra.engine.config import RetrievalConfig, TrainingConfig

from .conftest import publish, small_config, stream, vocabulary

DAY_MS = 86_400_000


class Jumping:
    """A clock that a test sets."""

    def __init__(self, now_ms: int) -> None:
        self.now = now_ms

    def now_ms(self) -> int:
        return self.now


def test_a_clock_that_jumps_a_day_back_and_forward(tmp_path: Path) -> None:
    events = stream(300)
    newest = events[-1].time_ms
    publish(tmp_path, vocabulary(events))
    clock = Jumping(newest)
    # with ages in the answers: how long ago the own items were
    config = small_config(retrieval=RetrievalConfig(candidates=20, exclude_seen=False))
    users = sorted({event.user for event in events})

    def check(engine: recurra.Engine, count: int) -> None:
        for user in [*users, "nobody"]:
            answer = engine.recommend(user, 10, explain=True)
            assert len(answer.items) == 10
            assert all(math.isfinite(score) for score in answer.scores)
            assert answer.explain is not None
            parts = [value for parts in answer.explain for value in parts.values() if value is not None]
            assert all(math.isfinite(value) for value in parts)
        weights = engine.mix_weights()
        assert all(math.isfinite(value) for value in weights.evidence.values())
        assert engine.health().status == "ok"
        assert engine.health().events == count

    with recurra.open(tmp_path, config, clock=clock) as engine:
        engine.ingest(events[:200])
        check(engine, 200)
        before, histories = engine.digest(), {user: engine.history(user) for user in users}
        for jump_ms in (-DAY_MS, DAY_MS, 0):
            clock.now = newest + jump_ms
            check(engine, 200)
            # nobody is forgotten, nothing expires
            assert engine.digest() == before
            assert {user: engine.history(user) for user in users} == histories
        # events of now come in while the clock is a day late, and while it is a day early
        clock.now = newest - DAY_MS
        assert engine.ingest(events[200:250]).applied == 50
        check(engine, 250)
        clock.now = newest + DAY_MS
        assert engine.ingest(events[250:]).applied == 50
        check(engine, 300)
        # what lies further ahead than the tolerance is refused, and the store does not change
        digest, seen = engine.digest(), []
        clock.now = newest - DAY_MS
        record = recurra.Record(recurra.Event("u0", "i1", newest + DAY_MS), "", 0)
        assert engine.apply([record], refused=lambda index, reason: seen.append(reason)).future == 1
        assert seen
        assert engine.digest() == digest
    with recurra.open(tmp_path / "plain", config, clock=Jumping(newest)) as plain:
        plain.ingest(events)
        assert plain.digest() == digest


def test_a_clock_that_is_put_back_puts_no_training_off(tmp_path: Path) -> None:
    events = stream(300)
    publish(tmp_path, vocabulary(events))
    clock = Jumping(events[-1].time_ms)
    training = TrainingConfig(mode="off", min_events=50, every_events=10**6, every_seconds=60)
    with recurra.open(tmp_path, small_config(training=training), clock=clock) as engine:
        engine.ingest(events)
        assert not engine._training.due()
        clock.now -= DAY_MS
        assert not engine._training.due()
        clock.now += 61_000
        assert engine._training.due()
