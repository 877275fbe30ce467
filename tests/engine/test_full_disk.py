"""A disk that is really full while the engine compacts, publishes, saves its caches, closes."""

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

import recurra
from recurra.engine.config import Config, FastConfig, GateConfig, ModelConfig, StoreConfig, TrainingConfig
from recurra.engine.errors import StoreFullError, TrainingError
from recurra.engine.store import Store

NOW_MS = 1_700_000_000_000
CONFIG = Config(
    store=StoreConfig(anchor=8, tail_events=4, hot_histories=64, batch_events=64),
    model=ModelConfig(d_model=16, layers=1, heads=2, head_dim=8, d_state=8),
    # the snapshot of the caches is due after every event
    fast=FastConfig(snapshot_events=1, pair_entries=1 << 12),
    training=TrainingConfig(mode="off", min_events=500, first_passes=1),
    gate=GateConfig(holdout_events=50),
)


def events(first: int, count: int) -> list[recurra.Event]:
    return [
        recurra.Event(f"u{n % 40}", f"i{(n % 40 * 7 + n // 40) % 61}", NOW_MS + n) for n in range(first, first + count)
    ]


def test_nothing_is_lost_and_everything_goes_on_when_there_is_room(
    small_disk: Path, fill_up: Callable[[Path], Path]
) -> None:
    data = small_disk / "data"
    with recurra.open(data, CONFIG) as engine:
        engine.ingest(events(0, 1_200))
        first = engine.train()
        assert first.promoted, first
        engine.ingest(events(1_200, 600))
        before = engine.digest()
        ballast = fill_up(small_disk)
        # publishing a version
        with pytest.raises(TrainingError, match="No space left"):
            engine.train()
        assert engine.version == first.number
        health = engine.health()
        assert health.status == "degraded"
        assert "No space left" in health.problems["training"]
        # a flush and a compaction
        store = engine._store
        assert isinstance(store, Store)
        with pytest.raises(StoreFullError):
            store.compact()
        assert engine.digest() == before
        assert engine.recommend("u1").items
        # the snapshot of the caches, by the housekeeper's hands
        housekeeper = engine._housekeeper
        assert housekeeper is not None
        with pytest.raises(recurra.RecurraError, match="No space left"):
            engine._keep_house()
        ballast.unlink()
        if store.failure is not None:
            engine.reopen()
        assert engine.digest() == before
        assert engine.train().verdict in ("promoted", "refused")
        engine._keep_house()
        assert engine.health().problems.get("training") is None
        engine.ingest(events(1_800, 100))
        after = engine.digest()
        ballast = fill_up(small_disk)
        # closed on a full disk: what was committed stays
        with contextlib.suppress(StoreFullError):
            engine.close()
    ballast.unlink()
    with recurra.open(data, CONFIG) as engine:
        assert engine.digest() == after
        assert engine.health().status == "ok"
        assert {path.name for path in (data / "models").iterdir() if path.name.startswith(".new")} == set()


def test_a_training_that_a_reopened_store_interrupts_begins_again(tmp_path: Path) -> None:
    training = TrainingConfig(mode="auto", min_events=500, first_passes=2)
    with recurra.open(tmp_path / "data", msgspec.structs.replace(CONFIG, training=training)) as engine:
        engine.ingest(events(0, 600))
        deadline = time.monotonic() + 60
        while not engine.health().training.running:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        store = engine._store
        assert isinstance(store, Store)
        store._failure = StoreFullError("no room, for a moment")
        engine.reopen()
        while engine.health().training.last is None:
            assert time.monotonic() < deadline
            assert "training" not in engine.health().problems
            time.sleep(0.01)
        assert engine.health().training.trained == 1


@pytest.mark.parametrize("new", [True, False])
@pytest.mark.parametrize("room", [0, 4_096, 8_192, 16_384, 65_536, 200_000, 1 << 20])
def test_a_start_without_room_says_so_and_spoils_nothing(
    small_disk: Path, fill_up: Callable[..., Path], new: bool, room: int
) -> None:
    data, events = small_disk / "data", [recurra.Event(f"u{at}", f"m{at % 9}", 1_000 + at) for at in range(300)]
    if not new:
        with recurra.open(data) as engine:
            engine.ingest(events)
    ballast = fill_up(small_disk)
    with ballast.open("ab") as file:
        file.truncate(ballast.stat().st_size - room)
    for _ in range(3):
        with contextlib.suppress(StoreFullError):
            recurra.open(data).close()
    if room == 0:
        with pytest.raises(StoreFullError, match=rf"{data}.*free some space"):
            recurra.open(data)
    ballast.unlink()
    with recurra.open(data) as engine:
        assert engine.ingest(events).duplicate == (0 if new else 300)
        assert engine.health().events == 300
