"""A service fed by Kafka at a real pace gives the lists of a replay."""

import json
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

import recurra
from recurra.engine.events import Event
from recurra.engine.results import Scores
from recurra.simulations.datasets import load
from recurra.simulations.replay import replay
from recurra.simulations.synthetic import generate

from .conftest import Service

pytestmark = pytest.mark.kafka

COUNT, EVERY = 1_500, 30
WARM = 0.4
# a small model that is good enough to be published
SETTINGS = """
[model]
d_model = 16
layers = 1
heads = 2
head_dim = 16
d_state = 8
[training]
mode = "off"
min_events = 100
first_passes = 3
"""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Events of a generated shop, at 150 a second."""
    path = tmp_path_factory.mktemp("recorded") / "events.jsonl"
    found = list(islice((value for value in generate(4) if isinstance(value, Event)), COUNT))
    start_ms = time.time_ns() // 1_000_000 - 3_600_000
    lines = [
        msgspec.json.encode({"user": event.user, "item": event.item, "time": start_ms + int(position * 1000 / 150)})
        for position, event in enumerate(found)
    ]
    path.write_bytes(b"\n".join(lines))
    return path


def lists_of_a_replay(path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, int], list[str]]:
    """Return the ten items before every ranked event, by user and time."""
    found: dict[tuple[str, int], list[str]] = {}
    scores = recurra.Engine.scores

    def listen(engine: recurra.Engine, user: str, at: int) -> Scores:
        answer = engine.recommend(user, k=10, at=at)
        found[user, at] = answer.items
        return scores(engine, user, at)

    settings = folder / "recurra.toml"
    with monkeypatch.context() as patch:
        patch.setattr(recurra.Engine, "scores", listen)
        result = replay(
            load(path),
            config=recurra.load_config(settings),
            data_dir=folder / "replayed",
            warm=WARM,
            every=EVERY,
            train="off",
            baselines="none",
        )
    assert result["versions"]["promoted"] == 1
    return found


def test_a_service_gives_the_lists_of_a_replay(
    service: Callable[..., Service],
    recorded: Path,
    address: str,
    topic: Callable[..., str],
    produce: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "recurra.toml").write_text(SETTINGS)
    expected = lists_of_a_replay(recorded, tmp_path, monkeypatch)
    name = topic(1)
    live = service(f"kafka://{address}/{name}", "--config", str(tmp_path / "recurra.toml"), "--api", "127.0.0.1:0")
    live.start()
    compare(live, recorded, expected, lambda messages: produce(name, messages, partition=0))


def compare(
    service: Service, recorded: Path, expected: dict[tuple[str, int], list[str]], send: Callable[[list[Any]], None]
) -> None:
    service.until_reading()
    events = [json.loads(line) for line in recorded.read_text().splitlines()]
    first = int(COUNT * WARM)
    same = 0
    with httpx.Client(base_url=service.url(), timeout=120) as http:
        for start, stop in zip([0, *range(first, COUNT, EVERY)], [*range(first, COUNT, EVERY), COUNT], strict=True):
            if start:
                # what is there is asked for by the user whose event comes next
                user, at = events[start]["user"], events[start]["time"]
                answer = http.get(f"/v1/users/{user}/recommendations", params={"k": 10, "at": at}).json()
                assert answer["items"] == expected[user, at], f"before event {start}"
                same += answer["version"] == 1
            began = time.monotonic()
            for position in range(start, stop):
                time.sleep(max(0.0, began + (position - start) / 150 - time.monotonic()))
                send([events[position]])
            while sum(http.get("/health").json()["source"]["offsets"].values()) < stop:
                assert time.monotonic() - began < 60
                time.sleep(0.02)
            if stop == first:
                assert http.post("/v1/train", params={"wait": True}, json={}).json()["verdict"] == "promoted"
    assert same > 20
