"""Drift, found where it is and nowhere else."""

import numpy as np
import pytest

from recurra.engine.config import DriftConfig
from recurra.engine.metrics import Metrics
from recurra.engine.monitoring.drift import Detector, Drift
from recurra.engine.store import APPLIED, DUPLICATE, Applied
from recurra.simulations import synthetic
from recurra.simulations.baselines import SequentialRules
from recurra.simulations.contest import ranks_alone
from recurra.simulations.prequential import gains

_DELTA = DriftConfig().delta


def _found(kind: str, events: int, seed: int) -> tuple[synthetic.SyntheticStream, list[int]]:
    """Rank the events after the first fifth by rules, and look for drift in that."""
    stream = synthetic.stream(kind, events, seed)
    warm = events // 5
    reached = gains(ranks_alone(SequentialRules(), stream, warm))
    return stream, [warm + found.place for found in Detector(_DELTA, falls=True).add(reached.tolist())]


def test_a_long_stationary_stream_raises_no_alarm() -> None:
    assert _found("stationary", 100_000, 0)[1] == []


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_an_abrupt_change_is_found_soon(seed: int) -> None:
    stream, found = _found("abrupt", 20_000, seed)
    assert len(found) == len(stream.drifts) == 2
    for position, drift in zip(found, stream.drifts, strict=True):
        assert drift.start < position < drift.start + 1_500


def test_a_gradual_change_is_found_while_it_goes_on() -> None:
    stream, found = _found("gradual", 20_000, 0)
    assert found
    assert all(stream.drifts[0].start < position < stream.drifts[0].end for position in found)


def test_learning_is_no_drift_and_forgetting_is() -> None:
    good, bad = [1.0, 0.63] * 1_000, [0.0] * 2_000
    assert Detector(_DELTA, falls=True).add(bad + good) == []
    (found,) = Detector(_DELTA, falls=True).add(good + bad)
    assert 2_000 < found.place < 2_100
    assert found.before > found.after
    (found,) = Detector(_DELTA, falls=False).add(bad + good)
    assert found.before < found.after
    assert Detector(_DELTA, falls=False).add(good + bad) == []


def _batch(users: range, items: range, *, known_users: int, known_items: int, seq: int) -> Applied:
    """Return the outcome of a batch of one event per user and item; every fourth was there before."""
    count = len(users)
    status = np.where(np.arange(count) % 4 == 3, DUPLICATE, APPLIED).astype(np.uint8)
    user_rows, item_rows = np.array(users, np.int32), np.array(items, np.int32)
    seqs = np.where(status == APPLIED, seq + np.cumsum(status == APPLIED) - 1, -1)
    empty = np.zeros(0, np.int64)
    return Applied(
        status=status,
        user_rows=user_rows,
        item_rows=item_rows,
        times_ms=1_000 * np.arange(count) + seq,
        n=np.ones(count, np.int64),
        seq=seqs,
        touch=np.arange(count, dtype=np.int32),
        touched=user_rows,
        n_before=empty,
        n_after=empty,
        late=np.zeros(count, np.bool_),
        new_users=range(known_users, max(known_users, users.stop)),
        new_items=range(known_items, max(known_items, items.stop)),
        catalogue=(),
        forgotten=(),
        moved=0,
        next_seq=0,
        synced=True,
    )


def test_a_flood_of_new_users_or_items_raises_an_alarm() -> None:
    old, seq = range(400), 0
    metrics = Metrics()
    drift = Drift(DriftConfig(), metrics)
    drift.set_version(1)
    for _ in range(10):
        drift.observe_batch(_batch(old, old, known_users=400, known_items=400, seq=seq))
        seq += 300
    assert not drift.alarms
    drift.observe_batch(_batch(range(400, 800), old, known_users=400, known_items=400, seq=seq))
    assert set(drift.counts) == {"new-users"}
    first = drift.alarms[0]
    assert (first.kind, first.before < 0.1) == ("new-users", True)
    assert seq <= first.seq < seq + 300
    seq += 300
    drift.observe_batch(_batch(old, range(400, 800), known_users=800, known_items=400, seq=seq))
    assert set(drift.counts) == {"new-users", "new-items"}
    labels = {"kind": "new-users"}
    assert metrics.registry.get_sample_value("recurra_drift_alarms_total", labels) == drift.counts["new-users"]
    assert metrics.registry.get_sample_value("recurra_drift_event", labels) == drift.alarms[0].seq


def test_how_a_stream_is_cut_changes_nothing() -> None:
    whole, parts = Drift(DriftConfig(), Metrics()), Drift(DriftConfig(), Metrics())
    for drift in (whole, parts):
        drift.set_version(1)
        for turn in range(5):
            drift.observe_batch(_batch(range(200), range(200), known_users=200, known_items=200, seq=150 * turn))
    batch = _batch(range(200, 600), range(200, 600), known_users=200, known_items=200, seq=750)
    whole.observe_batch(batch)
    for start in range(0, 400, 50):
        part = slice(start, start + 50)
        cut = {name: getattr(batch, name)[part] for name in ("status", "user_rows", "item_rows", "times_ms", "seq")}
        new = range(200 + start, 250 + start)
        parts.observe_batch(batch._replace(**cut, new_users=new, new_items=new))
    assert whole.alarms
    # of one event, either kind may come first
    assert sorted(whole.alarms, key=str) == sorted(parts.alarms, key=str)


def test_an_alarm_asks_for_a_training_once_there_is_something_to_learn() -> None:
    drift = Drift(DriftConfig(train_after=100), Metrics())
    for seq in range(2_000):
        drift.observe_quality(seq, seq, 1.0, 1.0)
    # nothing serves: there is no version that anything could be wrong with
    assert not drift.counts
    drift.set_version(1)
    for seq in range(2_000, 3_000):
        drift.observe_quality(seq, seq, 1.0, 1.0)
    for seq in range(3_000, 3_100):
        drift.observe_quality(seq, seq, 0.0, None)
    assert drift.counts == {"answers": 1}
    due = drift.alarms[0].seq + 101
    assert not drift.early(due - 1)
    assert drift.early(due)
    drift.trained(due)
    assert not drift.early(due + 1_000)


@pytest.mark.parametrize(("level", "effort"), [(0.8, 1.25), (0.5, 2.0), (0.1, 4.0), (0.0, 4.0)])
def test_after_a_fall_trainings_are_worth_more_effort_for_a_while(level: float, effort: float) -> None:
    drift = Drift(DriftConfig(effort=4, effort_events=2_500), Metrics())
    drift.set_version(1)
    for seq in range(6_000):
        drift.observe_quality(seq, seq, 1.0 if seq < 4_000 else level, None)
    assert set(drift.counts) == {"answers"}
    first = drift.alarms[0].seq
    assert drift.effort(6_000) == pytest.approx(effort, rel=0.03)
    assert drift.effort(first + 10_000) == 1


def test_new_users_are_no_reason_to_doubt_what_was_learnt() -> None:
    drift, old = Drift(DriftConfig(), Metrics()), range(400)
    drift.set_version(1)
    for batch in range(10):
        drift.observe_batch(_batch(old, old, known_users=400, known_items=400, seq=300 * batch))
    drift.observe_batch(_batch(range(400, 800), old, known_users=400, known_items=400, seq=3_000))
    assert set(drift.counts) == {"new-users"}
    assert drift.effort(3_300) == 1


def test_a_switch_is_no_drift_of_the_model() -> None:
    drift = Drift(DriftConfig(), Metrics())
    drift.set_version(1)
    for seq in range(1_000):
        drift.observe_quality(seq, seq, 0.5, 0.9)
    drift.set_version(2)
    for seq in range(1_000, 2_000):
        drift.observe_quality(seq, seq, 0.5, 0.3)
    assert not drift.alarms
