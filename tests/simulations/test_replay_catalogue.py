"""Catalogues in a replay: a record comes with its item's first event, and is then read and searched by."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

import recurra
from recurra.connectors.catalogue import Catalogue
from recurra.engine.config import Config
from recurra.engine.events import Item
from recurra.engine.versions import VersionStore
from recurra.simulations.contest import Contest
from recurra.simulations.datasets import Stream
from recurra.simulations.replay import replay

StreamOf = Callable[[Sequence[tuple[int, int]]], Stream]

_BUCKETS = 64
# the smallest model that reads attributes: what is tested is the way of the records, not how good it is
_READING = {
    "model": {
        "d_model": 16,
        "layers": 1,
        "heads": 2,
        "head_dim": 8,
        "d_state": 8,
        "attributes": _BUCKETS,
        "unknown_rate": 0.1,
    },
    "training": {"min_events": 400, "every_events": 10_000, "first_passes": 2, "nice": 0},
    "gate": {"holdout_events": 50},
}


@pytest.fixture(scope="module")
def stream(stream_of: StreamOf) -> Stream:
    """Return walks around a ring of items; one more item comes in every twelve events."""
    pairs = [(place % 20, (place * 7 + place // 20) % (8 + place // 12)) for place in range(700)]
    codes: dict[int, int] = {}
    return stream_of([(user, codes.setdefault(item, len(codes))) for user, item in pairs])


def _catalogue(stream: Stream) -> Catalogue:
    # every third item has none, some are not available any more, and some never occur
    known = [item for place, item in enumerate(stream.item_ids) if place % 3]
    records = [Item(item, f"Title {item}", ("Drama",), available=len(item) == 2) for item in known]
    return Catalogue([Item(known[0], "an older record"), *records, Item("never", "Never")], 0, "items.jsonl")


def test_a_record_comes_with_the_first_event_and_a_version_reads_it(
    stream: Stream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = Contest.judge
    wrong: list[int] = []
    by_version: set[int] = set()

    def look(self: Contest, position: int, scores: Any, row: int | None) -> None:
        occurred = len(np.unique(stream.items[:position]))
        by_version.add(scores.version)
        # rows of items that the engine knows; an item that comes now is none of them
        first = stream.items[position] not in stream.items[:position]
        if len(scores.allowed) != occurred or len(scores.rows) > occurred or first != (row is None):
            wrong.append(position)
        judge(self, position, scores, row)

    monkeypatch.setattr(Contest, "judge", look)
    config = msgspec.convert(_READING, Config)
    catalogue = _catalogue(stream)
    store = tmp_path / "store"
    result = replay(stream, catalogue=catalogue, config=config, baselines="none", repeats=True, data_dir=store)
    assert not wrong
    assert 1 in by_version
    items = len(stream.item_ids)
    assert result["records_used"] == len({item.item for item in catalogue.items}) - 1
    assert result["items_without_record"] == items - result["records_used"] > 0
    # the version was trained on what had a record by then
    model = VersionStore(store / "models").load(1).model()
    assert model.attributes is not None
    described = int(model.attributes.described.sum())
    assert 0 < described < model.items
    with recurra.open(store, config) as engine:
        assert engine.item_row("never") is None
        assert engine.health().items == items
        # what the store keeps of an item for ever is the record that it had at its first event
        first = engine._store.items.first_record(engine.item_row(stream.item_ids[1]) or 0)
        assert first is not None
        assert first.title == f"Title {stream.item_ids[1]}"
        answer = engine.recommend("newcomer", items)
        titles = dict(zip(answer.items, answer.titles, strict=True))
        expected = {item.item: item.title for item in catalogue.items}
        assert titles == {item: expected.get(item) for item in titles}
        # an item that is not available today was so when it was had
        assert set(titles) == set(stream.item_ids)
        drama = engine.recommend("newcomer", items, where="'Drama' in categories")
        assert set(drama.items) == set(expected) & set(stream.item_ids)
