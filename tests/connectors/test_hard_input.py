"""Events that are hard on the engine: one that makes it fail, all of one user, very many users, little memory."""

import json
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest

import recurra
from recurra.connectors.audit import audit
from recurra.connectors.dead_letter import FileDeadLetters, read_dead_letters
from recurra.connectors.local_sources import FileSource
from recurra.engine.config import Config, MixConfig, StoreConfig, TrainingConfig
from recurra.engine.events import Event
from recurra.engine.query import Queries

NOW_MS = 1_700_000_000_000
CONFIG = Config(
    training=TrainingConfig(mode="off"), mix=MixConfig(budget=0.0, sample=0.2), store=StoreConfig(batch_events=64)
)


def written(path: Path, rows: Iterable[tuple[str, str]]) -> Path:
    with path.open("w") as file:
        for number, (user, item) in enumerate(rows):
            file.write(json.dumps({"user": user, "item": item, "time": NOW_MS + number}) + "\n")
    return path


def read(data: Path, path: Path, config: Config = CONFIG) -> None:
    with recurra.open(data, config) as engine:
        FileSource(engine, path, config, FileDeadLetters(data / "letters")).run(threading.Event())


def test_an_event_at_which_the_model_fails_is_put_aside_and_its_neighbours_are_applied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [(f"u{number % 9}", f"i{number % 31}") for number in range(200)]
    rows[100] = ("victim", "poison")
    path, tries, real = written(tmp_path / "events.jsonl", rows), 0, Queries.before

    def step(queries: Queries, event: Event) -> Any:
        nonlocal tries
        if event.item == "poison":
            tries += 1
            raise FloatingPointError("a step of the model failed")
        return real(queries, event)

    monkeypatch.setattr(Queries, "before", step)
    # every event is ranked before it is applied
    every = msgspec.structs.replace(CONFIG, mix=MixConfig())
    read(tmp_path / "data", path, every)
    # three times with its neighbours, three times alone
    assert tries == 6
    (letter,) = read_dead_letters(tmp_path / "data" / "letters")
    assert "a step of the model failed" in str(letter["reason"])
    assert b'"poison"' in bytes(letter["payload"])  # type: ignore[call-overload]
    found = audit(tmp_path / "data", str(path), CONFIG)
    # the neighbours are all there, once
    assert (found.wrong_users, found.missing, found.repeated) == (1, 1, 0)
    assert "victim" in found.examples[0]
    # nothing is left to do, and nothing is tried again
    before = tries
    read(tmp_path / "data", path, every)
    assert tries == before


def test_one_user_has_all_events(tmp_path: Path) -> None:
    path = written(tmp_path / "events.jsonl", (("hot", f"i{number * number % 701}") for number in range(1_500)))
    read(tmp_path / "data", path)
    found = audit(tmp_path / "data", str(path), CONFIG)
    assert found.ok, found
    with recurra.open(tmp_path / "data", CONFIG, read_only=True) as engine:
        kept = [entry.time_ms - NOW_MS for entry in engine.history("hot")]
        assert kept == list(range(1_500 - 2 * CONFIG.store.anchor, 1_500))
        assert not {f"i{number * number % 701}" for number in range(1_500)} & set(engine.recommend("hot", 10).items)


_MANY = """
import gc, json, sys
from pathlib import Path
import recurra
from recurra.engine.config import Config, MixConfig, StoreConfig, TrainingConfig

SMALL = StoreConfig(hot_histories=1_000, cache_bytes=1 << 20)

def resident():
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

count = int(sys.argv[2])
config = Config(training=TrainingConfig(mode="off"), mix=MixConfig(budget=0.0, sample=0.0), store=SMALL)
with recurra.open(sys.argv[1], config) as engine:
    def add(first, last):
        for start in range(first, last, 5_000):
            engine.ingest([recurra.Event(f"user-{n}", f"i{n % 97}", 1_700_000_000_000 + n)
                           for n in range(start, min(last, start + 5_000))])
    # the hot slots are full by then
    add(0, count // 2)
    before = resident()
    add(count // 2, count)
    engine.sync()
    print(json.dumps({"bytes": (resident() - before) / (count // 2), "users": engine.health().users}))
"""


def test_many_new_users_cost_little_memory_each(forker: Any, tmp_path: Path, at_night: bool) -> None:
    count = 1_000_000 if at_night else 100_000
    log = tmp_path / "log"
    assert forker.run(_MANY, [tmp_path / "data", str(count)], log, 600) == 0, log.read_text()
    found = json.loads(log.read_text().splitlines()[-1])
    assert found["users"] == count
    # an id and its row, and the write buffers of 48 MB, which may have filled meanwhile; a hot user has 37 KB
    assert found["bytes"] < 1_000 + (48 << 20) / (count // 2), found


_LITTLE = """
import json, resource, sys, threading, time
from pathlib import Path
import recurra
from recurra.connectors.dead_letter import FileDeadLetters
from recurra.connectors.local_sources import FileSource
from recurra.engine.config import Config, TrainingConfig

data, path = Path(sys.argv[1]), sys.argv[2]
config = Config(training=TrainingConfig(mode="off"))
with recurra.open(data, config) as engine:
    source = FileSource(engine, path, config, FileDeadLetters(data / "letters"))
    real, problems = engine.apply, []

    def apply(records, *, refused=None):
        # the memory of another one is needed at every batch, and there is none from the third on
        if len(problems) < 3 and sum(engine.offsets().values()) >= 1024:
            used = int(Path("/proc/self/statm").read_text().split()[0]) * 4096
            resource.setrlimit(resource.RLIMIT_AS, (used + (8 << 20), resource.RLIM_INFINITY))
            try:
                bytearray(64 << 20)
            finally:
                resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
                problems.append(engine.offsets())
        return real(records, refused=refused)

    engine.apply = apply
    source.run(threading.Event())
    print(json.dumps({"waits": len(problems), "moved": problems[0] != problems[-1], "state": source.health().state}))
"""

_LIMITED = """
import resource, sys
from pathlib import Path
from recurra.cli import main
used = int(Path("/proc/self/statm").read_text().split()[0]) * 4096
resource.setrlimit(resource.RLIMIT_AS, (used + (int(sys.argv[1]) << 20),) * 2)
main(sys.argv[2:])
"""


def test_memory_that_is_really_used_up_is_waited_for(forker: Any, tmp_path: Path) -> None:
    path = written(tmp_path / "events.jsonl", ((f"u{number % 300}", f"i{number % 97}") for number in range(3_000)))
    log = tmp_path / "log"
    assert forker.run(_LITTLE, [tmp_path / "data", path], log) == 0, log.read_text()
    found = json.loads(log.read_text().splitlines()[-1])
    assert found == {"waits": 3, "moved": False, "state": "ended"}
    assert "out of memory; the batch is tried again" in log.read_text()
    assert audit(tmp_path / "data", str(path), CONFIG).ok


@pytest.mark.parametrize("megabytes", [30, 150])
def test_a_service_that_may_not_have_the_memory_it_needs_loses_nothing(
    forker: Any, tmp_path: Path, megabytes: int
) -> None:
    path = written(tmp_path / "events.jsonl", ((f"u{number % 300}", f"i{number % 97}") for number in range(3_000)))
    arguments = ["run", "--data", tmp_path / "data", "--source", path, "--api", "off", "--train", "off"]
    process = forker.start_code(_LIMITED, [str(megabytes), *arguments], tmp_path / "log")
    # it ends, is killed by its libraries, or works with less: after that everything is there once
    try:
        process.wait(8)
    except AssertionError:
        process.kill()
        process.wait(10)
    read(tmp_path / "data", path)
    found = audit(tmp_path / "data", str(path), CONFIG)
    assert found.ok, found
    assert found.events == 3_000
