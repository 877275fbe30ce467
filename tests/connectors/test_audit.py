"""The auditor agrees with a sound store, and notices every way in which a store can be unsound."""

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recurra.connectors.audit import audit
from recurra.connectors.audit_model import Fact, Ledger, id_hash
from recurra.connectors.files import open_segments
from recurra.engine.config import Config, StoreConfig
from recurra.engine.errors import InputError
from recurra.engine.events import Event, Forget
from recurra.engine.store import Batch, Reader, Store

CONFIG = Config(store=StoreConfig(anchor=4, hot_histories=8))
NOW_MS = 10**12

LINES = st.lists(
    st.fixed_dictionaries(
        {
            "user": st.sampled_from(["a", "b", "c"]),
            "item": st.sampled_from([f"i{number}" for number in range(6)]),
            "time": st.integers(0, 40),
        },
        optional={
            "type": st.sampled_from(["play", None]),
            "weight": st.sampled_from([1, 0.1, None]),
            "id": st.sampled_from([f"e{number}" for number in range(12)]),
            "forget": st.just(False),
        },
    )
    | st.fixed_dictionaries({"user": st.sampled_from(["a", "b"]), "forget": st.just(True)})
    | st.just({"user": 1}),
    # a file without a line is not known to the store
    min_size=1,
    max_size=40,
)


def feed(folder: Path, path: Path, *, size: int = 7, stop: int | None = None, twice: bool = False) -> None:
    """Read a file into a store the way a source does, by micro-batches that end before a forget request."""
    with Store.open(folder / "store", CONFIG.store) as store:
        (segment,) = open_segments(path, source_info=lambda key: None)
        noted = Batch.of([])
        noted.source_info[segment.key] = msgspec.json.encode(segment.info)
        store.apply(noted, NOW_MS)
        batch: list[Event] = []
        for taken, event in enumerate(segment.events.events[:stop], 1):
            if isinstance(event, Forget):
                store.apply(Batch.of(batch), NOW_MS)
                batch = []
                request = Batch.of([], offsets={segment.key: taken})
                request.forgets.append(event.user)
                store.apply(request, NOW_MS)
                continue
            batch.append(event)
            if len(batch) >= size or taken == len(segment.events.events[:stop]):
                store.apply(Batch.of(batch, offsets={segment.key: taken}), NOW_MS)
                if twice:
                    # as if an event had come a second time under another id
                    store.apply(
                        Batch.of([Event(batch[0].user, batch[0].item, batch[0].time_ms, "x", None, "y")]), NOW_MS
                    )
                batch = []


def write(path: Path, lines: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@given(LINES, st.integers(1, 9))
@settings(deadline=None, max_examples=40)
def test_a_sound_store_passes(tmp_path_factory: Any, lines: list[dict[str, Any]], size: int) -> None:
    folder = tmp_path_factory.mktemp("audit")
    path = write(folder / "events.jsonl", lines)
    feed(folder, path, size=size)
    found = audit(folder, str(path), CONFIG)
    assert found.ok, (found, lines)
    assert (found.wrong_users, found.missing, found.repeated) == (0, 0, 0)


def sample(count: int = 60) -> list[dict[str, Any]]:
    return [{"user": f"u{at % 3}", "item": f"i{at % 7}", "time": at, "id": f"e{at}"} for at in range(count)]


def test_a_store_that_is_not_at_the_end_is_compared_up_to_its_offset(tmp_path: Path) -> None:
    path = write(tmp_path / "events.jsonl", sample())
    feed(tmp_path, path, stop=35)
    found = audit(tmp_path, str(path), CONFIG)
    assert found.ok
    assert found.events == 35


def test_lost_events_are_noticed(tmp_path: Path) -> None:
    path = write(tmp_path / "events.jsonl", sample())
    feed(tmp_path, path, stop=35)
    with Store.open(tmp_path / "store", CONFIG.store) as store:
        (key,) = (key for key in store.source_info() if key.startswith("file:"))
        # the offset moves on, the events do not come
        store.apply(Batch.of([], offsets={key: 38}), NOW_MS)
    found = audit(tmp_path, str(path), CONFIG)
    assert (found.missing, found.repeated, found.wrong_users, found.ok) == (3, 0, 3, False)


def test_repeated_events_are_noticed(tmp_path: Path) -> None:
    path = write(tmp_path / "events.jsonl", sample(6))
    feed(tmp_path, path, twice=True)
    found = audit(tmp_path, str(path), CONFIG)
    assert (found.missing, found.repeated, found.ok) == (0, 1, False)


@pytest.mark.parametrize("field", ["item", "time", "type", "weight", "id"])
def test_a_single_wrong_field_is_noticed(tmp_path: Path, field: str) -> None:
    lines = sample(12)
    path = write(tmp_path / "events.jsonl", lines)
    feed(tmp_path, path)
    changed = {"item": "i0", "time": 11_000, "type": "play", "weight": 2.5, "id": "other"}
    lines[11] = {**lines[11], field: changed[field]}
    segment_info = {}
    with Reader.open(tmp_path / "store", CONFIG.store) as store:
        segment_info = {key: info for key, info in store.source_info().items() if key.startswith("file:")}
    write(path, lines)
    # the store believes that this is the file it has read
    with Store.open(tmp_path / "store", CONFIG.store) as store:
        ((key, _),) = segment_info.items()
        (segment,) = open_segments(path, source_info=lambda key: None)
        noted = Batch.of([])
        noted.source_info[key] = msgspec.json.encode(segment.info)
        store.apply(noted, NOW_MS)
    found = audit(tmp_path, str(path), CONFIG)
    assert (found.wrong_users, found.missing, found.repeated) == (1, 0, 0)
    assert "u2" in found.examples[0]


def test_an_unknown_source_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "events.jsonl", sample(5))
    feed(tmp_path, path)
    with pytest.raises(InputError, match="has read nothing from"):
        audit(tmp_path, str(write(tmp_path / "other.jsonl", sample(5))), CONFIG)
    with pytest.raises(InputError, match="has read nothing from a topic"):
        audit(tmp_path, "kafka://127.0.0.1:1/plays", CONFIG)


def test_the_ledger_by_hand() -> None:
    ledger = Ledger(anchor=1)
    for time_ms in (5, 9, 7, 6, 9):
        ledger.apply(Fact("u", f"i{time_ms}", time_ms))
    # the history holds two; 6 is older than both, the second 9 is a repeat
    assert ledger.users["u"].n == 3
    assert [entry[1] for entry in ledger.users["u"].history] == [7, 9]
    assert ledger.users["u"].seen == {"i5", "i7", "i9"}
    assert (ledger.too_late, ledger.duplicates) == (1, 1)
    ledger.apply(Fact("u"))
    assert ledger.users == {}


def test_the_hash_of_an_id_is_the_stores() -> None:
    with np.errstate(all="raise"):
        assert int(Batch.of([Event("u", "i", 1, id="e1")]).hashes[0]) == id_hash("e1") > 0
