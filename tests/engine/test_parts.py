"""The parts of an answer as a caller of the engine sees them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import recurra
from recurra import Event
from recurra.engine.config import MixConfig, RetrievalConfig
from recurra.engine.fast import BLOCK

from .conftest import publish, small_config, stream, vocabulary

Open = Callable[..., recurra.Engine]
EVENTS = stream(300)
AT = EVENTS[-1].time_ms
MEMORIES = {"popularity-50", "item-knn", "rules", "transitions", "transitions-recent"}


@pytest.fixture
def served(opened: Open, tmp_path: Path) -> recurra.Engine:
    publish(tmp_path / "engine", vocabulary(EVENTS))
    engine = opened()
    engine.ingest(EVENTS)
    return engine


def rank(engine: recurra.Engine, user: str, item: str, at_ms: int) -> int | None:
    items = engine.recommend(user, 50, at=at_ms).items
    return items.index(item) + 1 if item in items else None


def test_a_new_item_is_ranked_right_after_its_first_event(opened: Open) -> None:
    engine = opened(config=small_config(mix=MixConfig(sample=1.0)))
    rng = np.random.default_rng(2)
    # thirty people go through three of ninety items in their order, so there is more to recommend than is shown
    starts = rng.integers(0, 87, 300)
    history = [
        Event(f"p{k % 30}", f"i{start + step}", 10_000 * k + 1_000 * step)
        for k, start in enumerate(starts.tolist())
        for step in range(3)
    ]
    engine.ingest(history)
    now = history[-1].time_ms + 1_000
    engine.ingest([Event("first", "i40", now), Event("second", "i40", now + 1)])
    assert engine.item_row("new") is None
    assert rank(engine, "second", "new", now + 10) is None
    assert rank(engine, "nobody", "new", now + 10) is None
    engine.ingest([Event("first", "new", now + 20)])
    place = rank(engine, "second", "new", now + 30)
    assert place is not None
    assert place <= 10
    # the one who had it is not shown it again
    assert rank(engine, "first", "new", now + 30) is None


def test_every_part_is_explained_and_measured(served: recurra.Engine) -> None:
    answer = served.recommend("u1", 5, at=AT, explain=True)
    parts = MEMORIES | {"error-memory", "slow"}
    assert answer.explain is not None
    assert answer.weights is not None
    assert all(parts <= entry.keys() for entry in answer.explain)
    for listed in (answer.weights.evidence, answer.weights.shared):
        assert parts <= listed.keys()
    assert parts <= served.scores("u1", AT).parts.keys()
    # without repeats the items that a user had are no part
    assert "activation" not in answer.weights.shared


def test_the_error_memory_ranks_what_came_to_others_alike(served: recurra.Engine) -> None:
    scores = served.scores("u1", AT)
    votes = scores.parts["error-memory"]
    heard = {served.item_row(event.item) for event in EVENTS}
    known = np.flatnonzero(np.isfinite(votes))
    assert known.size > 5
    assert set(known.tolist()) <= heard
    # among the candidates it says the same as over all items
    assert np.isin(scores.rows, known).any()


def test_the_error_memory_forgets_with_the_user(opened: Open, tmp_path: Path) -> None:
    publish(tmp_path / "engine", vocabulary(EVENTS))
    engine = opened()
    own = [Event("odd", f"odd{k}", AT + k) for k in range(5)]
    # one that the model sees as it saw the other before the last event
    twin = [Event("twin", event.item, event.time_ms) for event in own[:-1]]
    # events vote when their block of the log has ended
    others = [Event(f"other{k}", EVENTS[k].item, AT + 5) for k in range(BLOCK)]
    engine.ingest([*EVENTS, *own, *twin, *others])
    row = engine.item_row("odd4")
    assert row is not None
    assert engine.scores("twin", AT + 10).parts["error-memory"][row] > 0.9
    engine.forget("odd")
    assert np.isnan(engine.scores("twin", AT + 10).parts["error-memory"][row])


def test_own_items_are_ranked_by_activation_where_they_may_be_answered(opened: Open) -> None:
    config = small_config(retrieval=RetrievalConfig(candidates=20, exclude_seen=False))
    engine = opened(config=config)
    engine.ingest(EVENTS)
    engine.ingest([Event("fan", item, AT + 1_000 * k) for k, item in enumerate(["old", "loved", "loved", "last"])])
    at_ms = AT + 100_000
    activation = engine.scores("fan", at_ms).parts["activation"]
    old, loved, last = (activation[engine.item_row(item)] for item in ("old", "loved", "last"))
    # two events count more than one, a later one more than an earlier one, and others' items nothing
    assert loved > last > old
    assert np.isfinite(activation).sum() == 3
    assert {"old", "loved", "last"} <= set(engine.recommend("fan", 50, at=at_ms).items)
