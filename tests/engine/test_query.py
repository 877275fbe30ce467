"""What queries take into account before anything is ranked."""

from collections.abc import Callable

import recurra
from recurra import Event
from recurra.engine.config import RetrievalConfig

from .conftest import small_config

Open = Callable[..., recurra.Engine]


def test_candidates_are_not_spent_on_what_the_user_had(opened: Open) -> None:
    engine = opened(config=small_config(retrieval=RetrievalConfig(candidates=3)))
    items = [f"i{i}" for i in range(40)]
    # the first 20 items lead by far, and one user has had them all
    engine.ingest([Event(f"u{i}", items[i % 20], 1_000 + i) for i in range(400)])
    engine.ingest([Event(f"v{i}", item, 2_000 + i) for i, item in enumerate(items)])
    engine.ingest([Event("fan", item, 3_000 + i) for i, item in enumerate(items[:20])])
    scores = engine.scores("fan", 4_000)
    # were they spent, all 20 allowed items would have to be scored instead
    assert 0 < scores.rows.size < 20
    assert scores.allowed[scores.rows].all()


def test_candidates_of_somebody_unknown_are_leaders_of_every_half_life(opened: Open) -> None:
    engine = opened(config=small_config(retrieval=RetrievalConfig(candidates=4)))
    engine.ingest([Event(f"u{i}", f"old{i % 4}", 1_000 + i) for i in range(400)])
    engine.ingest([Event(f"v{i}", f"new{i % 4}", 2_000 + i) for i in range(150)])
    engine.ingest([Event(f"w{i}", f"rare{i}", 3_000 + i) for i in range(20)])
    rows = engine.scores("nobody", 4_000).rows.tolist()
    for kind in ("old", "new"):
        assert any(engine.item_row(f"{kind}{i}") in rows for i in range(4))
