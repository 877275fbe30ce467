"""A version that is forced in past the gate and worse than the one before does not stay; a good one does."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

import recurra
from recurra.engine.clock import EventClock
from recurra.engine.config import Config, DriftConfig, MixConfig, RetrievalConfig
from recurra.engine.engine import Engine
from recurra.engine.results import TrainReport
from recurra.engine.training.job import run_job
from recurra.engine.training.protocol import Request
from recurra.engine.training.windows import UserLog
from recurra.engine.versions import VersionStore
from recurra.simulations.datasets import Stream
from recurra.simulations.replay import replay

from ..training.conftest import CONFIG, walk

_CONFIG: Config = msgspec.structs.replace(
    CONFIG,
    training=msgspec.structs.replace(CONFIG.training, mode="off", every_events=800, first_passes=15),
    mix=MixConfig(sample=1.0),
    # a walk over few items comes back to each of them
    retrieval=RetrievalConfig(exclude_seen=False, candidates=20),
    gate=msgspec.structs.replace(CONFIG.gate, shadow_events=400, shadow_users=16),
)
_EVENTS = walk(3_000)
# of users, items, times and numbers of the events of a log that follows another of 1,500 events
_SHIFTS = (0, 0, 60_000 * 1_500, 1_500)
_LOG_ORDER = np.argsort(_EVENTS.seqs)


def _events(start: int, end: int) -> list[recurra.Event]:
    return [
        recurra.Event(f"u{_EVENTS.users[row]}", f"i{_EVENTS.items[row]}", int(_EVENTS.times_ms[row]))
        for row in _LOG_ORDER[start:end].tolist()
    ]


class _Trainer:
    """Trains here instead of in a process of its own; the trainings in ``bad`` publish a sabotaged version unjudged."""

    pid = None

    def __init__(self, path: Path, config: Config, epoch: int, bad: set[int]) -> None:
        self._path, self._config, self._epoch, self._bad = path, config, epoch, bad
        self._count = 0

    def train(self, *, effort: float = 1.0) -> TrainReport:
        self._count += 1
        versions, config = VersionStore(self._path / "models"), self._config
        request = Request(
            self._count,
            self._epoch,
            None,
            config.store,
            config.model,
            config.training,
            config.gate,
            config.retrieval,
            effort,
        )
        with versions.lock():
            if self._count in self._bad:
                return _sabotage(versions, self._count)
            return run_job(request, self._path / "store", versions, lambda _: None)

    def close(self) -> None:
        """There is no process to end."""


def _sabotage(versions: VersionStore, seed: int) -> TrainReport:
    """Publish the version that serves with the rows of its items shuffled."""
    parent = versions.load(versions.current())
    shuffled = np.random.default_rng(seed).permutation(parent.vocabulary).tolist()
    report = TrainReport(verdict="promoted", reason="forced in", parent=parent.number, steps=1)
    number = versions.publish(
        parent.model(),
        shuffled,
        parent=parent.number,
        cutoff_seq=parent.facts.cutoff_seq,
        store_id="",
        report=lambda number: msgspec.structs.replace(report, number=number),
        guard=lambda: None,
    )
    return msgspec.structs.replace(report, number=number)


@pytest.fixture
def sabotaged(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that says which trainings of all engines are sabotaged."""

    def sabotage(*bad: int) -> None:
        def made(engine: Any) -> _Trainer:
            return _Trainer(engine.path, engine.config, engine._store.epoch, set(bad))

        monkeypatch.setattr(Engine, "_new_trainer", made)

    return sabotage


def test_a_version_that_is_worse_is_taken_back(tmp_path: Path, sabotaged: Callable[..., None]) -> None:
    sabotaged(2)
    clock = EventClock(10**12)
    with recurra.open(tmp_path, _CONFIG, clock=clock) as engine:
        engine.ingest(_events(0, 1_000))
        assert engine.train().verdict == "promoted"
        engine.ingest(_events(1_000, 1_200))
        assert engine.train().number == engine.version == 2
        served = 0
        while engine.version == 2:
            engine.ingest(_events(1_200 + served, 1_220 + served))
            served += 20
            assert served <= 300
        assert engine.version == 1
        health = engine.health()
        assert health.training.rolled_back == 1
        assert health.training.last_rollback is not None
        assert "version 2 was rolled back to 1: NDCG 0." in health.training.last_rollback
        assert [info.rolled_back is None for info in engine.versions()] == [True, False]
        metrics = engine.registry.get_sample_value
        assert metrics("recurra_versions_total", {"verdict": "rolled_back"}) == 1
        assert metrics("recurra_version") == 1
        # it goes on as if nothing had been
        engine.ingest(_events(1_200 + served, 2_000))
        assert engine.recommend("u1").version == 1
    with recurra.open(tmp_path, _CONFIG, clock=clock) as engine:
        assert engine.version == 1


def test_a_good_version_stays(tmp_path: Path, sabotaged: Callable[..., None]) -> None:
    sabotaged()
    with recurra.open(tmp_path, _CONFIG, clock=EventClock(10**12)) as engine:
        engine.ingest(_events(0, 1_000))
        engine.train()
        engine.ingest(_events(1_000, 2_000))
        assert engine.train().verdict == "promoted"
        for start in range(2_000, 3_000, 100):
            engine.ingest(_events(start, start + 100))
        assert (engine.version, engine.health().training.rolled_back) == (2, 0)
        # judged often enough: nothing is kept of the version before
        assert engine._caches.shadow is None


def test_a_refused_candidate_leaves_its_reason(tmp_path: Path, sabotaged: Callable[..., None]) -> None:
    sabotaged()
    # nothing can be twice as good
    harsh = msgspec.structs.replace(_CONFIG, gate=msgspec.structs.replace(_CONFIG.gate, margin=1.0))
    with recurra.open(tmp_path, harsh, clock=EventClock(10**12)) as engine:
        engine.ingest(_events(0, 1_000))
        engine.train()
        assert engine.refusals() == []
        for end in (1_400, 1_800):
            engine.ingest(_events(end - 400, end))
            assert engine.train().verdict == "refused"
        refused = engine.refusals()
    assert [report.newest_seq for report in refused] == [1_399, 1_799]
    for report in refused:
        assert report.lower is not None
        assert report.required is not None
        assert report.lower <= report.required
        assert report.holdout >= 100
        assert report.reason.startswith("the NDCG difference has the lower bound")
    with recurra.open(tmp_path, harsh, read_only=True) as engine:
        assert engine.refusals() == refused


def test_a_choice_of_the_operator_is_not_undone(tmp_path: Path, sabotaged: Callable[..., None]) -> None:
    sabotaged(2)
    with recurra.open(tmp_path, _CONFIG, clock=EventClock(10**12)) as engine:
        engine.ingest(_events(0, 1_000))
        engine.train()
        engine.train()
        engine.rollback(1)
        engine.rollback(2)
        engine.ingest(_events(1_000, 1_600))
        assert engine.version == 2


def _stream(log: UserLog) -> Stream:
    rows = np.argsort(log.seqs)
    return Stream(
        name="walk",
        users=log.users[rows].astype(np.int32),
        items=log.items[rows].astype(np.int32),
        time_ms=log.times_ms[rows],
        types=np.full(len(rows), -1, np.int16),
        weights=np.full(len(rows), np.nan, np.float32),
        order=np.arange(len(rows)),
        user_ids=[f"u{row}" for row in range(40)],
        item_ids=[f"i{row}" for row in range(30)],
        type_names=[],
    )


def test_a_replay_takes_back_at_the_same_event(tmp_path: Path, sabotaged: Callable[..., None]) -> None:
    sabotaged(2)
    one, other = (
        replay(
            _stream(_EVENTS),
            config=_CONFIG,
            data_dir=tmp_path / name,
            warm=1 / 3,
            repeats=True,
            baselines="none",
            every=10,
        )
        for name in ("one", "other")
    )
    assert [training["verdict"] for training in one["trainings"]][:3] == ["promoted", "promoted", "rolled_back"]
    at = [training["position"] for training in one["trainings"]]
    assert at[1] < at[2] <= at[1] + 300
    # what was taken back is not trained again at once
    assert len(at) == 3 or at[3] >= at[2] + 800
    assert one["versions"]["rolled_back"] == 1
    assert [training["position"] for training in other["trainings"]] == at
    assert one["alarms"] == other["alarms"]
    assert one["drift"] == [alarm["position"] for alarm in one["alarms"]]


def test_an_alarm_brings_training_forward(sabotaged: Callable[..., None]) -> None:
    sabotaged()
    old, new = walk(1_500), walk(1_500, step=7, seed=3)
    # everybody begins to walk in longer steps
    log = UserLog.of(*(np.concatenate((old[column], new[column] + shift)) for column, shift in enumerate(_SHIFTS)))
    config = msgspec.structs.replace(
        _CONFIG,
        training=msgspec.structs.replace(_CONFIG.training, every_events=10_000),
        drift=DriftConfig(train_after=600),
    )
    result = replay(_stream(log), config=config, warm=1 / 3, repeats=True, baselines="none", every=10)
    first = result["alarms"][0]
    assert 1_500 < first["position"] < 1_600
    assert first["before"] > first["after"]
    assert result["drift"][0] == first["position"]
    early = [training for training in result["trainings"] if training["early"]]
    # 600 events after the one that raised the alarm
    assert early[0]["position"] == first["position"] + 601
    assert early[0]["verdict"] == "promoted"
    assert [training["early"] for training in result["trainings"]][:2] == [False, True]
