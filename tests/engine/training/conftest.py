"""Small streams in which something can be learnt: every user walks along one order of the items."""

from collections.abc import Callable

import numpy as np
import pytest

from recurra.engine.config import Config, GateConfig, ModelConfig, StoreConfig, TrainingConfig
from recurra.engine.training.windows import UserLog

CONFIG = Config(
    store=StoreConfig(anchor=8, hot_histories=512),
    model=ModelConfig(d_model=16, layers=1, heads=2, head_dim=8, d_state=8, dropout=0.1),
    training=TrainingConfig(min_events=400, first_passes=30, first_rate=1e-2, rate=5e-3, batch_events=256, nice=0),
    gate=GateConfig(holdout_events=100, resamples=200),
)


def walk(events: int, *, users: int = 40, items: int = 30, step: int = 1, seed: int = 0) -> UserLog:
    """Return a log whose users go from each item to the one ``step`` further, with a jump now and then."""
    rng = np.random.default_rng(seed)
    user = rng.integers(users, size=events)
    at = rng.integers(items, size=users)
    item = np.empty(events, np.int64)
    for event, who in enumerate(user.tolist()):
        at[who] = (at[who] + step) % items if rng.random() < 0.9 else rng.integers(items)
        item[event] = at[who]
    return UserLog.of(user, item, 60_000 * np.arange(events), np.arange(events))


@pytest.fixture(scope="session")
def stream() -> Callable[..., UserLog]:
    return walk


@pytest.fixture(scope="session")
def config() -> Config:
    return CONFIG
