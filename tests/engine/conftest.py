"""Small engines with a real model: anchors of 8 events, so that short streams pass many of them."""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

import recurra
from recurra import Event
from recurra.engine.clock import EventClock
from recurra.engine.config import (
    Config,
    FastConfig,
    MixConfig,
    ModelConfig,
    RetrievalConfig,
    StateConfig,
    StoreConfig,
    TrainingConfig,
)
from recurra.engine.events import Features
from recurra.engine.model import StreamingModel
from recurra.engine.results import TrainReport
from recurra.engine.versions import VersionStore

if not torch.cuda.is_available():
    # states on a device are interpreted then, which must be said before triton is imported
    os.environ.setdefault("TRITON_INTERPRET", "1")

MODEL = ModelConfig(d_model=16, layers=2, heads=2, head_dim=8, d_state=8)


def small_config(**changes: object) -> Config:
    fields: dict[str, object] = {
        "store": StoreConfig(anchor=8, hot_histories=512),
        "model": MODEL,
        "states": StateConfig(hot_users=64),
        "training": TrainingConfig(mode="off"),
        "mix": MixConfig(budget=0.0, sample=0.2),
        "fast": FastConfig(half_lives=(50.0, 500.0), neighbours=16),
        "retrieval": RetrievalConfig(candidates=20),
    }
    return Config(**{**fields, **changes})  # type: ignore[arg-type]


def publish(
    path: Path,
    vocabulary: Sequence[str],
    *,
    seed: int = 0,
    config: ModelConfig = MODEL,
    features: Features | None = None,
) -> int:
    """Publish a version with random weights, none of them at a value that hides it, over the given items."""
    torch.manual_seed(seed)
    model = StreamingModel(config, len(vocabulary), features=features)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return VersionStore(path / "models").publish(
        model.eval(),
        vocabulary,
        parent=0,
        cutoff_seq=0,
        store_id="",
        report=lambda number: TrainReport(verdict="promoted", reason="", number=number),
        guard=lambda: None,
    )


def stream(count: int, *, users: int = 12, items: int = 30, seed: int = 0) -> list[Event]:
    """Make events whose times rise from one to the next, some types and ids among them."""
    rng = np.random.default_rng(seed)
    times = rng.integers(1, 90_000, count).cumsum()
    # a few users have most events, as in life
    who = np.minimum(rng.geometric(0.25, count) - 1, users - 1)
    what = np.minimum(rng.geometric(0.08, count) - 1, items - 1)
    return [
        Event(
            f"u{user}", f"i{item}", int(time), "play" if time % 3 else None, None, f"e{time}" if time % 5 == 0 else None
        )
        for user, item, time in zip(who.tolist(), what.tolist(), times.tolist(), strict=True)
    ]


def vocabulary(events: Sequence[Event]) -> list[str]:
    return sorted({event.item for event in events})


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[..., recurra.Engine]]:
    """Open engines under a clock that stands after all events; closes what is still open at the end."""
    engines: list[recurra.Engine] = []

    def open_engine(name: str = "engine", config: Config | None = None) -> recurra.Engine:
        engine = recurra.open(tmp_path / name, config or small_config(), clock=EventClock(10**12))
        engines.append(engine)
        return engine

    yield open_engine
    for engine in engines:
        engine.close()
