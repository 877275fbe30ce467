"""Answers and refusals of the engine's verbs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import recurra
from recurra import Event, Forget, Item, Record
from recurra.engine.config import RetrievalConfig
from recurra.engine.errors import (
    ClosedError,
    InputError,
    StoreInUseError,
    UnknownItemError,
    UnknownUserError,
    VersionError,
)
from recurra.engine.query import Queries

from .conftest import publish, small_config, stream, vocabulary

Open = Callable[..., recurra.Engine]
EVENTS = stream(300)
AT = EVENTS[-1].time_ms


def test_an_empty_engine_answers_nothing_and_says_so(opened: Open) -> None:
    answer = opened().recommend("anybody")
    assert (answer.items, answer.source, answer.version) == ([], "catalogue", 0)


def test_a_catalogue_alone_can_be_recommended(opened: Open) -> None:
    engine = opened()
    engine.ingest([Item("a", title="A"), Item("b", available=False), Item("c")])
    answer = engine.recommend("anybody", 3)
    assert sorted(answer.items) == ["a", "c"]
    assert answer.titles[answer.items.index("a")] == "A"


def test_somebody_unknown_gets_what_is_popular(opened: Open) -> None:
    engine = opened()
    engine.ingest([Event(f"u{i}", "hit" if i % 2 else f"rare{i}", 1_000 + i) for i in range(20)])
    answer = engine.recommend("nobody", 5)
    assert answer.source == "popular"
    assert answer.items[0] == "hit"


def test_the_whole_seen_set_is_excluded_not_only_the_history(opened: Open) -> None:
    engine = opened()
    items = [f"i{i}" for i in range(100)]
    # far beyond the 16 events of a history
    engine.ingest([Event("fan", item, 1_000 * i) for i, item in enumerate(items[:97])])
    engine.ingest([Event("other", item, 1_000_000 + i) for i, item in enumerate(items)])
    for k in (1, 2, 3, 50):
        answer = engine.recommend("fan", k, at=2_000_000)
        assert set(answer.items) <= set(items[97:])
        assert len(answer.items) == min(k, 3)


@pytest.mark.parametrize("model", [False, True])
@pytest.mark.parametrize(("share", "expression"), [(50, "half"), (5, "few"), (0.5, "rare"), (0.1, "one")])
def test_filters_leave_as_many_items_as_are_allowed(
    opened: Open, tmp_path: Path, share: float, expression: str, model: bool
) -> None:
    count = 2_000
    tags = {"half": 2, "few": 20, "rare": 200, "one": 2_000}
    catalogue = [
        Item(f"i{i}", categories=tuple(tag for tag, every in tags.items() if i % every == 0)) for i in range(count)
    ]
    if model:
        publish(tmp_path / "engine", [item.item for item in catalogue])
    engine = opened()
    engine.ingest(catalogue)
    engine.ingest([Event(f"u{i % 50}", f"i{i}", 1_000 * i) for i in range(0, count, 3)])
    allowed = {item.item for item in catalogue if expression in item.categories}
    seen = {entry.item for entry in engine.history("u0")} | {f"i{i}" for i in range(0, count, 3) if i % 50 == 0}
    for k in (1, 10, 40):
        answer = engine.recommend("u0", k, at=10**8, where=f"'{expression}' in categories")
        assert set(answer.items) <= allowed - seen
        assert len(answer.items) == min(k, len(allowed - seen))
        assert len(set(answer.items)) == len(answer.items)
        assert answer.source == ("mix" if model else "memory")
    assert len(allowed) == round(count * share / 100) or share == 0.1


def test_items_that_become_unavailable_leave_the_answers_at_once(opened: Open) -> None:
    engine = opened()
    engine.ingest(EVENTS)
    first = engine.recommend("nobody").items[0]
    engine.ingest([Item(first, available=False)])
    assert first not in engine.recommend("nobody", 100).items
    engine.ingest([Item(first, available=True)])
    assert first in engine.recommend("nobody", 100).items


def test_a_new_item_is_recommended_after_its_first_event(opened: Open, tmp_path: Path) -> None:
    publish(tmp_path / "engine", vocabulary(EVENTS))
    engine = opened(config=small_config(retrieval=RetrievalConfig(candidates=10)))
    engine.ingest(EVENTS)
    everything = engine.recommend("u3", 100, at=AT).items
    engine.ingest([Event("u0", "brand-new", AT + 1), Event("u1", "brand-new", AT + 2)])
    assert "brand-new" not in everything
    assert "brand-new" in engine.recommend("u3", 100, at=AT + 3).items
    assert "brand-new" in engine.recommend("nobody", 100, at=AT + 3).items


@pytest.mark.parametrize("verb", ["recommend", "scores"])
def test_an_item_that_comes_in_during_a_query_does_not_disturb_it(
    opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    publish(tmp_path / "engine", vocabulary(EVENTS))
    engine = opened(config=small_config(retrieval=RetrievalConfig(candidates=10)))
    engine.ingest(EVENTS)
    allowed = Queries._allowed

    def interrupted(self: Queries, *arguments: Any) -> Any:
        mask = allowed(self, *arguments)
        engine.ingest([Event(user, "brand-new", AT + 1) for user in ("u1", "u3")])
        return mask

    monkeypatch.setattr(Queries, "_allowed", interrupted)
    if verb == "recommend":
        answer = engine.recommend("u3", 100, at=AT)
        assert answer.items
        assert "brand-new" not in answer.items
    else:
        assert engine.scores("u3", AT).parts["slow"].size == len(vocabulary(EVENTS))


def test_explain_gives_the_score_of_every_part(opened: Open, tmp_path: Path) -> None:
    publish(tmp_path / "engine", vocabulary(EVENTS))
    engine = opened()
    engine.ingest(EVENTS)
    answer = engine.recommend("u1", 3, at=AT, explain=True)
    assert answer.explain is not None
    assert all({"slow", "item-knn", "rules"} <= row.keys() for row in answer.explain)
    assert engine.recommend("u1", 3, at=AT).explain is None
    assert answer.weights is not None


def test_similar_and_history(opened: Open, tmp_path: Path) -> None:
    publish(tmp_path / "engine", vocabulary(EVENTS))
    engine = opened()
    engine.ingest(EVENTS)
    by_model = engine.similar("i0", 5)
    assert (by_model.source, by_model.version) == ("model", 1)
    assert "i0" not in by_model.items
    assert len(by_model.items) == 5
    engine.ingest([Event("u0", "unseen", AT + 1), Event("u0", "i0", AT + 2), Event("u1", "unseen", AT + 3)])
    assert engine.similar("unseen").source == "memory"
    own = [event for event in EVENTS if event.user == "u5"]
    assert [entry.item for entry in engine.history("u5")] == [event.item for event in own][-16:]
    assert engine.history("u5")[-1].type == own[-1].type


def test_forgetting_leaves_nothing_of_the_user(opened: Open) -> None:
    engine = opened()
    engine.ingest(EVENTS)
    others = [event for event in EVENTS if event.user != "u0"]
    assert engine.forget("u0")
    assert not engine.forget("u0")
    with pytest.raises(UnknownUserError):
        engine.history("u0")
    assert engine.recommend("u0").source == "popular"
    without = opened("without")
    without.ingest(others)
    assert engine.digest() == without.digest()
    # in a batch, and again afterwards
    engine.ingest([Event("u1", "x", AT + 1), Forget("u1"), Event("u1", "y", AT + 2)])
    assert [entry.item for entry in engine.history("u1")] == ["y"]


def test_future_events_are_refused_before_anything_moves_past_them(opened: Open) -> None:
    engine = opened()
    told: list[tuple[int, str]] = []
    records = [
        Record(Event("a", "x", 1_000), "s", 1),
        Record(Event("a", "y", 10**12 + 10**9), "s", 2),
        Record(None, "s", 3),
    ]

    def refused(index: int, reason: str) -> None:
        assert engine.offsets() == {}
        told.append((index, reason))

    report = engine.apply(records, refused=refused)
    assert (report.applied, report.future, report.skipped) == (1, 1, 1)
    assert [index for index, _ in told] == [1]
    assert engine.offsets() == {"s": 3}


@pytest.mark.parametrize("k", [0, -1, 10**9, True, 1.5, "3"])
def test_a_bad_k_is_refused_with_a_sentence(opened: Open, k: object) -> None:
    with pytest.raises(InputError, match="k must be an integer from 1 to"):
        opened().recommend("u", k)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "event",
    [
        Event("", "i", 1),
        Event("u", "i", -1),
        Event("u", "i", 10**20),
        Event("u", "i" * 600, 1),
        Event("u", "i", 1, weight=float("nan")),
        Event("u", "i", 1.5),  # type: ignore[arg-type]
        Event("\ud800", "i", 1),
    ],
)
def test_a_bad_event_refuses_the_whole_call(opened: Open, event: Event) -> None:
    engine = opened()
    with pytest.raises(InputError, match="event 1: field"):
        engine.ingest([Event("good", "i", 1), event])
    assert engine.health().events == 0


def test_unknown_things_and_closed_engines(opened: Open, tmp_path: Path) -> None:
    engine = opened()
    with pytest.raises(UnknownItemError):
        engine.similar("nothing")
    with pytest.raises(VersionError):
        engine.rollback(3)
    with pytest.raises(StoreInUseError):
        recurra.open(tmp_path / "engine")
    engine.close()
    engine.close()
    with pytest.raises(ClosedError):
        engine.recommend("u")


def test_a_reader_beside_the_writer_answers_the_same(opened: Open, tmp_path: Path) -> None:
    publish(tmp_path / "engine", vocabulary(EVENTS))
    engine = opened()
    engine.ingest(EVENTS)
    with recurra.open(tmp_path / "engine", small_config(), read_only=True) as reader:
        assert reader.recommend("u2", at=AT).items == engine.recommend("u2", at=AT).items
        assert reader.digest() == engine.digest()


def test_a_damaged_version_is_not_served(opened: Open, tmp_path: Path) -> None:
    publish(tmp_path / "engine", vocabulary(EVENTS))
    engine = opened()
    engine.ingest(EVENTS)
    publish(tmp_path / "engine", vocabulary(EVENTS), seed=1)
    weights = tmp_path / "engine" / "models" / "000002" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(VersionError):
        engine.rollback(2)
    assert engine.version == 1
    assert "version 2" in engine.health().problems["loading"]
    assert engine.recommend("u2", at=AT).version == 1
    engine.close()
    # the damaged one is the current one: the one before it serves, and health says why
    assert opened().version == 1
