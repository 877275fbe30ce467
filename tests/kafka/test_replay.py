"""A replay by way of a topic: the same figures as in process, whatever the partitions."""

from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import pytest

import recurra
from recurra.connectors.catalogue import Catalogue
from recurra.engine.config import Config
from recurra.engine.events import Event, Item
from recurra.simulations.datasets import load
from recurra.simulations.replay import replay
from recurra.simulations.synthetic import generate

pytestmark = pytest.mark.kafka


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recorded") / "events.jsonl"
    events = [value for value in islice(generate(4), 1_800) if isinstance(value, Event)]
    lines = [
        msgspec.json.encode({"user": event.user, "item": event.item, "time": event.time_ms, "weight": 3.7})
        for event in events
    ]
    path.write_bytes(b"\n".join(lines))
    return path


@pytest.mark.parametrize("partitions", [1, 4])
def test_a_topic_changes_no_figure(
    partitions: int, recorded: Path, address: str, topic: Callable[..., str], tmp_path: Path
) -> None:
    stream = load(recorded)
    config = msgspec.convert({"training": {"min_events": 1_000_000}}, Config)
    catalogue = Catalogue([Item(item, f"Title {item}") for item in stream.item_ids[::2]], 0, "items.jsonl")
    options: dict[str, Any] = {"catalogue": catalogue, "config": config, "baselines": "popularity"}
    direct = replay(stream, **options, data_dir=tmp_path / "direct")
    via = f"kafka://{address}/{topic(partitions)}"
    by_topic = replay(stream, **options, data_dir=tmp_path / "topic", via=via)
    for part in ("evaluated", "recurra", "components", "baselines", "recall_union", "records_used", "mix_weights"):
        assert by_topic[part] == direct[part]
    with recurra.open(tmp_path / "direct") as first, recurra.open(tmp_path / "topic") as second:
        assert sum(second.offsets().values()) == len(stream)
        assert len(second.offsets()) <= partitions
        assert first.health().users == second.health().users
        # every record came right before the first event of its item, by either way
        for item in stream.item_ids:
            row = first.item_row(item)
            assert row is not None
            assert second.item_row(item) == row
            assert second._store.items.stored(row) == first._store.items.stored(row)
        assert second._store.items.first_record(0) == catalogue.items[0]
