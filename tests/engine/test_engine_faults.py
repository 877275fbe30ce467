"""Killed right after each numbered step of the commit order, the engine loses nothing and counts nothing twice."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

import recurra
from recurra import Event, Recommendation, Record
from recurra.engine.config import FastConfig, StoreConfig, TrainingConfig

from .conftest import publish, small_config, stream, vocabulary

EVENTS = stream(200)
AT = EVENTS[-1].time_ms

# reads its source from the stored offset on, as every connector does
_CHILD = """
import sys
import msgspec
import recurra
from recurra import Config, Event, Record
from recurra.engine.clock import EventClock

path, source, config = sys.argv[1:]
events = [msgspec.json.decode(line, type=Event) for line in open(source)]
with recurra.open(path, msgspec.json.decode(open(config).read(), type=Config), clock=EventClock(10**12)) as engine:
    start = engine.offsets().get("s", 0)
    for first in range(start, len(events), 9):
        part = events[first : first + 9]
        engine.apply([Record(event, "s", first + i + 1) for i, event in enumerate(part)])
"""


class Child:
    """Runs the child over one directory until it ends, or is killed at a named step."""

    def __init__(self, folder: Path, forker: Any) -> None:
        self._forker = forker
        self._log = folder / "log"
        self.path = folder / "engine"
        publish(self.path, vocabulary(EVENTS))
        self._source, self._config = folder / "events.jsonl", folder / "config.json"
        self._source.write_bytes(b"\n".join(msgspec.json.encode(event) for event in EVENTS))
        self._config.write_bytes(msgspec.json.encode(small_config()))

    def run(self, failpoint: str = "", **environment: str) -> int:
        arguments = [self.path, self._source, self._config]
        status: int = self._forker.run(_CHILD, arguments, self._log, RECURRA_FAILPOINT=failpoint, **environment)
        assert status in (0, -9), self._log.read_text()
        return status


def _outcome(engine: recurra.Engine) -> tuple[str, dict[str, int], int, list[Recommendation]]:
    answers = [engine.recommend(f"u{i}", 10, at=AT, explain=True) for i in range(12)]
    return engine.digest(), engine.offsets(), engine.health().events, answers


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, int], int, list[Recommendation]]:
    path = tmp_path_factory.mktemp("expected")
    publish(path, vocabulary(EVENTS))
    with recurra.open(path, small_config()) as engine:
        engine.apply([Record(event, "s", i + 1) for i, event in enumerate(EVENTS)])
        return _outcome(engine)


@pytest.mark.parametrize(
    "failpoint",
    [
        "engine.decoded:5",
        "store.after_commit:1",
        "engine.committed:8",
        "engine.advanced:9",
    ],
)
def test_killed_after_a_step(
    tmp_path: Path,
    forker: Any,
    opened: Callable[..., recurra.Engine],
    expected: tuple[str, dict[str, int], int, list[Recommendation]],
    failpoint: str,
) -> None:
    child = Child(tmp_path, forker)
    assert child.run(failpoint) == -9
    assert child.run() == 0
    engine = opened()
    assert _outcome(engine)[:3] == expected[:3]
    for ours, theirs in zip(_outcome(engine)[3], expected[3], strict=True):
        assert ours.items == theirs.items
        assert ours.scores == pytest.approx(theirs.scores, rel=1e-4, abs=1e-4)


def test_killed_again_and_again_while_it_recovers(
    tmp_path: Path,
    forker: Any,
    opened: Callable[..., recurra.Engine],
    expected: tuple[str, dict[str, int], int, list[Recommendation]],
) -> None:
    child = Child(tmp_path, forker)
    assert child.run("engine.advanced:12") == -9
    for _ in range(2):
        assert child.run("engine.recovered") == -9
    assert child.run() == 0
    assert _outcome(opened())[:3] == expected[:3]


def test_offsets_and_histories_in_two_writes_would_be_noticed(
    tmp_path: Path,
    forker: Any,
    opened: Callable[..., recurra.Engine],
    expected: tuple[str, dict[str, int], int, list[Recommendation]],
) -> None:
    # the deliberately broken build: the suite proves nothing if this passes the comparison
    child = Child(tmp_path, forker)
    assert child.run("store.between_writes:4", RECURRA_BREAK="two-writes") == -9
    assert child.run(RECURRA_BREAK="two-writes") == 0
    assert _outcome(opened())[:3] != expected[:3]


def test_states_that_cannot_be_advanced_are_folded_again(
    opened: Callable[..., recurra.Engine], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(tmp_path / "engine", vocabulary(EVENTS))
    # the error memory learns no events at which a state was lost, until it is folded again
    config = small_config(fast=FastConfig(half_lives=(50.0, 500.0), neighbours=16, error_events=0))
    engine = opened(config=config)
    engine.ingest(EVENTS[:100])
    before = engine.recommend("u0", at=AT)
    from recurra.engine.states import StateSlab

    def fail(*_: object) -> None:
        raise FloatingPointError("made for this test")

    with monkeypatch.context() as patch:
        patch.setattr(StateSlab, "advance", fail)
        assert engine.ingest(EVENTS[100:150]).applied == 50
        assert engine.recommend("u0", at=AT).source == "memory"
    engine.ingest(EVENTS[150:])
    assert before.version == engine.recommend("u0", at=AT).version == 1
    whole = engine.recommend("u0", at=AT, explain=True)
    engine.close()
    again = opened(config=config).recommend("u0", at=AT, explain=True)
    assert whole.items == again.items
    assert whole.scores == pytest.approx(again.scores, rel=1e-4, abs=1e-4)


def test_a_refused_event_teaches_the_mixture_nothing(opened: Callable[..., recurra.Engine]) -> None:
    once, twice = opened("once"), opened("twice")
    for engine in (once, twice):
        engine.ingest(EVENTS[:150])
    for _ in range(3):
        twice.ingest([EVENTS[149], Event("u0", "x", 5, id=EVENTS[0].id)])
    assert twice.mix_weights() == once.mix_weights()


def test_a_current_file_with_a_version_that_is_not_there_is_said(tmp_path: Path) -> None:
    publish(tmp_path, vocabulary(EVENTS))
    (tmp_path / "models" / "current.json").write_text('{"number": 7}')
    with recurra.open(tmp_path, small_config()) as engine:
        assert (engine.version, engine.health().status) == (1, "degraded")
        assert "names version 7, which is not there" in engine.health().problems["loading"]


def test_a_missing_current_file_beside_versions_is_said(tmp_path: Path) -> None:
    publish(tmp_path, vocabulary(EVENTS))
    publish(tmp_path, vocabulary(EVENTS), seed=1)
    (tmp_path / "models" / "current.json").unlink()
    with recurra.open(tmp_path, small_config()) as engine:
        engine.ingest(EVENTS)
        assert engine.version == 2
        assert engine.health().status == "degraded"
        assert "current.json is missing" in engine.health().problems["loading"]
        engine.rollback(2)
        assert engine.health().status == "ok"
    with recurra.open(tmp_path, small_config()) as engine:
        assert (engine.version, engine.health().status) == (2, "ok")


def test_the_housekeeper_survives_unexpected_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = small_config(store=StoreConfig(anchor=8, sync_ms=20))
    with recurra.open(tmp_path, config) as engine:
        real = engine._observe

        def broken() -> None:
            raise ZeroDivisionError("oops")

        monkeypatch.setattr(engine, "_observe", broken)
        _until(lambda: "ZeroDivisionError: oops" in engine.health().problems.get("housekeeping", ""))
        assert engine.health().status == "degraded"
        monkeypatch.setattr(engine, "_observe", real)
        _until(lambda: engine.health().status == "ok")


def _until(holds: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_trainings_start_by_time_too_where_that_is_configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training = TrainingConfig(mode="auto", min_events=50, every_events=10**6, every_seconds=0.2)
    config = small_config(store=StoreConfig(anchor=8, sync_ms=20), training=training)
    with recurra.open(tmp_path, config) as engine:
        asked: list[int] = []

        class Program:
            """A training program that keeps the serving version each time."""

            pid = 1

            def train(self, **_: object) -> recurra.TrainReport:
                asked.append(engine.health().events)
                return recurra.TrainReport(verdict="kept", reason="asked")

            def close(self) -> None: ...

        monkeypatch.setattr(engine._training, "_new_trainer", Program)
        engine.ingest(EVENTS[:40])
        time.sleep(0.6)
        assert asked == []
        engine.ingest(EVENTS[40:100])
        _until(lambda: asked[-1:] == [100])
        # a training that began before the last of them was applied is followed by another one
        time.sleep(0.6)
        before = len(asked)
        # without a new event there is nothing to learn
        time.sleep(0.6)
        assert len(asked) == before
        engine.ingest(EVENTS[100:101])
        _until(lambda: asked[before:] == [101])
