"""The topics beside that of events: catalogue, requests and replies, and which partitions of them an engine uses."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

import recurra
from recurra.connectors.dead_letter import read_dead_letters

from .conftest import CLIENTS, Run, config, event
from .test_source import _read, answered

# kafka-python reads its own files by a function that newer Pythons advise against
pytestmark = [pytest.mark.kafka, pytest.mark.filterwarnings("ignore:(read|open)_text is deprecated:DeprecationWarning")]


@pytest.mark.parametrize("client", CLIENTS)
def test_a_tombstone_takes_an_item_out_and_the_catalogue_is_read_whole(
    topic: Any, produce: Any, produce_raw: Any, run: Any, client: str
) -> None:
    name, catalogue = topic(3), topic(2)
    # this engine owns one partition of the events; the catalogue is for all
    produce(name, [event(number, user="ann") for number in range(2)], partition=2)
    produce(name, [event(number, user="bob") for number in range(9)], partition=2)
    produce(catalogue, [{"item": f"i{number}", "title": f"Title {number}"} for number in range(5)], partition=0)
    produce(catalogue, [{"item": f"i{number}", "title": f"Title {number}"} for number in range(5, 9)], partition=1)
    settings = config(client, catalogue_topic=catalogue, partitions=(2,))
    _, health, folder = run(name, 11 + 9, settings)
    with recurra.open(folder, settings, read_only=True) as engine:
        assert {"i3", "i7"} <= set(engine.recommend("ann", 9).items)
    produce_raw(catalogue, b"i3", None, 0)
    produce_raw(catalogue, None, None, 1)
    produce_raw(catalogue, b"\xff", None, 1)
    _, health, folder = run(name, 11 + 9 + 3, settings)
    assert health.refused == 2
    assert {letter["source"] for letter in read_dead_letters(folder / "dead-letters.jsonl")} == {f"kafka:{catalogue}/1"}
    with recurra.open(folder, settings, read_only=True) as engine:
        items = engine.recommend("ann", 9).items
        assert "i3" not in items
        assert "i7" in items
    # a record brings it back
    produce(catalogue, [{"item": "i3", "title": "Again"}], partition=0)
    _, _, folder = run(name, 11 + 9 + 4, settings)
    with recurra.open(folder, settings, read_only=True) as engine:
        assert "i3" in engine.recommend("ann", 9).items


def test_an_engine_answers_requests_over_its_own_partitions(
    address: str, topic: Any, produce: Any, tmp_path: Path
) -> None:
    name, requests, replies = topic(2), topic(2), topic(1)
    settings = config(request_topic=requests, reply_topic=replies, partitions=(1,))
    produce(name, [event(number, user="ann" if number < 3 else "bob") for number in range(11)], partition=1)
    asked = [
        {"user": "ann", "k": 2, "where": "item != 'i5'", "id": "one"},
        {"user": "ann", "where": "item ==", "id": "two"},
        {"user": "ann", "hwere": "x", "id": "three"},
        {"k": 2, "id": "four"},
        {"user": "ann", "k": "many", "id": "five"},
        {"user": "ann", "where": 5, "id": "six"},
    ]
    with recurra.open(tmp_path / "data", settings) as engine:
        reader = Run(engine, f"kafka://{address}/{name}", settings, tmp_path)
        reader.until_read(11)
        # it answers once it has come to listen
        deadline = time.monotonic() + 30
        while not answered(reader) and time.monotonic() < deadline:
            produce(requests, [{"user": "ann", "k": 1, "id": "ready"}], partition=1)
            time.sleep(0.2)
        produce(requests, [{"user": "ann", "id": "another engine's"}], partition=0)
        produce(requests, asked, partition=1)
        produce(requests, [{"user": "ann", "k": 1, "id": "end"}], partition=1)
        reader.until(lambda: any(reply.get("id") == "end" for reply in _replies(address, replies, answered(reader))))
        reader.stop()
        got = {reply["id"]: reply for reply in _replies(address, replies, answered(reader))}
    assert set(got) == {"ready", "one", "two", "three", "four", "five", "six", "end"}
    assert len(got["one"]["items"]) == 2
    assert "i5" not in got["one"]["items"]
    assert "hwere" in got["three"]["error"]
    assert "user" in got["four"]["error"]
    assert all("error" in got[name] for name in ("two", "five", "six"))


def _replies(address: str, topic: str, count: int) -> list[dict[str, Any]]:
    return [json.loads(message.value() or b"") for message in _read(address, topic, count)]
