"""The beginning of a query: what is taken into account before anything is ranked."""

import itertools
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import recurra
from recurra import Event, Item
from recurra.engine.config import RetrievalConfig

from .conftest import publish, small_config

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


def test_a_filter_by_item_holds_for_items_without_a_record(opened: Open) -> None:
    engine = opened()
    engine.ingest([Event(f"u{i}", f"i{i % 4}", 1_000 + i) for i in range(40)])
    engine.ingest([Event("new", "other", 2_000)])
    assert set(engine.recommend("new", where="item != 'i1'").items) == {"i0", "i2", "i3"}
    assert engine.recommend("new", where="item == 'i1'").items == ["i1"]
    assert (
        engine.recommend("new", where="item in ['i1', 'i3']").items
        == engine.recommend("new", where="'i1' == item or item == 'i3'").items
    )


def _until_failed(calls: Sequence[Callable[[], object]], seconds: float) -> list[BaseException]:
    """Repeat each call in its own thread; returns what they raised."""
    failures: list[BaseException] = []
    end = time.monotonic() + seconds

    def repeat(call: Callable[[], object]) -> None:
        try:
            while time.monotonic() < end and not failures:
                call()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=repeat, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failures


def test_a_list_beside_a_forget_of_the_same_user(opened: Open, tmp_path: Path) -> None:
    publish(tmp_path / "engine", [f"i{i}" for i in range(20)])
    engine = opened()
    engine.ingest([Event(f"u{i % 7}", f"i{i % 20}", 1_000 + i) for i in range(140)])
    number = itertools.count(10_000)

    def come_and_go() -> None:
        engine.ingest([Event("ann", f"i{i}", next(number)) for i in range(12)])
        engine.forget("ann")

    ask = [lambda: engine.recommend("ann", 5), lambda: engine.scores("ann", next(number)), come_and_go]
    assert _until_failed(ask, 5.0) == []
    # nothing of the user came back into the caches by a query that was under way
    assert "ann" not in engine._store.users
    serving = engine._caches.serving
    assert serving is not None
    rows = serving.residency.recent(100)
    assert all(engine._store.users.id(row) is not None for row in rows)


def test_a_filter_while_new_items_come(opened: Open) -> None:
    engine = opened()
    engine.ingest([Event(f"u{i % 7}", f"i{i % 20}", 1_000 + i) for i in range(140)])
    number = itertools.count(10_000)

    def new_item() -> None:
        now = next(number)
        engine.ingest([Event(f"u{now % 7}", f"new{now}", now), Item(f"listed{now}", f"Title {now}")])

    ask = [lambda: engine.recommend("u1", 5, where="item != 'i1'"), lambda: engine.recommend("u2", 5), new_item]
    assert _until_failed(ask, 4.0) == []
