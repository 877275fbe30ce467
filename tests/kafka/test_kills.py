"""The service is killed while it reads; an auditor then finds nothing missing and nothing twice."""

import functools
import os
import random
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from recurra.connectors.audit import audit
from recurra.engine.config import Config

from .conftest import stored_messages

pytestmark = pytest.mark.kafka

CLEAN = {"wrong_users": 0, "missing": 0, "repeated": 0, "ok": True}


def messages(count: int, *, seed: int = 0, users: int = 300, items: int = 200) -> list[dict[str, object]]:
    rng = random.Random(seed)
    time_ms = 1_700_000_000_000
    found = []
    for _ in range(count):
        time_ms += rng.randrange(0, 2_000)
        # some events are late, so that the order within a user matters too
        late_ms = rng.randrange(0, 60_000) if rng.random() < 0.05 else 0
        found.append(
            {
                "user": f"u{int(rng.paretovariate(1.1)) % users}",
                "item": f"i{rng.randrange(items)}",
                "time": time_ms - late_ms,
                "type": rng.choice((None, "play", "buy")),
            }
        )
    return found


@pytest.fixture
def seed() -> int:
    """The seed of a test's kills: RECURRA_SEED, or that of every run."""
    return int(os.environ.get("RECURRA_SEED", "1"))


def verdict(data: Path, source: str) -> dict[str, Any]:
    found = audit(data, source, Config())
    return {name: getattr(found, name) for name in CLEAN} | {"examples": found.examples}


class Feed:
    """Writes messages to a topic little by little, so that every start of the service finds something to read."""

    def __init__(self, produce: Any, name: str, count: int, seed: int, partitions: int = 4) -> None:
        self.sent = 0
        self._events = messages(count, seed=seed)
        self._send = functools.partial(produce, name, partitions=partitions)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while self.sent < len(self._events) and not self._stopped.wait(0.05):
            part = self._events[self.sent : self.sent + 60]
            self._send(part)
            self.sent += len(part)

    def close(self) -> int:
        """Stop, and return how many messages were written."""
        self._stopped.set()
        self._thread.join()
        return self.sent


def kill_at_random(runner: Any, rng: random.Random, **environment: str) -> None:
    """Start the service and kill it a random time later: one time in five while it still opens its store."""
    runner.start(**environment)
    if rng.random() < 0.2:
        time.sleep(rng.uniform(0.0, 0.5))
    else:
        runner.until_reading()
        time.sleep(rng.uniform(0.0, 0.6))
    runner.kill()


@pytest.mark.night
def test_random_kills_lose_and_repeat_nothing(
    address: str, topic: Any, produce: Any, service: Any, at_night: bool, seed: int
) -> None:
    rng, name = random.Random(seed), topic(4)
    source = f"kafka://{address}/{name}"
    runner, kills = service(source), 200 if at_night else 20
    feed = Feed(produce, name, 60_000, seed)
    try:
        for kill in range(kills):
            kill_at_random(runner, rng)
            if (runner.data / "store" / "FORMAT").exists() and stored_messages(runner.data):
                assert verdict(runner.data, source) == CLEAN | {"examples": []}, f"kill {kill} of seed {seed}"
    finally:
        sent = feed.close()
    # five times in a row while it recovers
    for _ in range(5):
        runner.start()
        time.sleep(rng.uniform(0.0, 0.4))
        runner.kill()
    runner.start()
    # everything may have been read before the last kill
    runner.until_reading()
    runner.until_read(sent)
    status, seconds = runner.terminate()
    assert status == 0, runner.log()
    assert seconds < 5
    assert verdict(runner.data, source) == CLEAN | {"examples": []}


def test_random_kills_catch_a_build_with_two_writes(
    address: str, topic: Any, produce: Any, service: Any, seed: int
) -> None:
    """The control: offsets before data, with a widened window. If these kills do not show it, they show nothing."""
    rng, name = random.Random(seed), topic(4)
    source = f"kafka://{address}/{name}"
    runner = service(source)
    feed = Feed(produce, name, 60_000, seed)
    try:
        for _ in range(60):
            kill_at_random(runner, rng, RECURRA_BREAK="two-writes:0.02")
            if not (runner.data / "store" / "FORMAT").exists() or not stored_messages(runner.data):
                continue
            found = verdict(runner.data, source)
            if not found["ok"]:
                assert found["missing"] > 0
                return
    finally:
        feed.close()
    pytest.fail(f"60 kills of a broken build, and every audit was clean (seed {seed})")


def test_killed_within_the_first_batch_of_all(address: str, topic: Any, produce: Any, service: Any) -> None:
    name = topic(1)
    produce(name, messages(300), partition=0)
    source = f"kafka://{address}/{name}"
    runner = service(source)
    for step in ("store.opened", "engine.decoded", "store.before_commit", "store.after_commit"):
        runner.start(RECURRA_FAILPOINT=step)
        assert runner.wait() == -9, runner.log()
    runner.start()
    runner.until_read(300)
    assert runner.terminate()[0] == 0
    assert verdict(runner.data, source) == CLEAN | {"examples": []}


def test_a_stop_after_every_step_of_the_commit_order(address: str, topic: Any, produce: Any, service: Any) -> None:
    name = topic(2)
    produce(name, messages(6_000), partitions=2)
    source = f"kafka://{address}/{name}"
    runner = service(source)
    for step in ("engine.decoded", "store.before_commit", "store.after_commit", "engine.committed", "engine.advanced"):
        runner.start(RECURRA_FAILPOINT=f"{step}:4")
        assert runner.wait() == -9, runner.log()
    runner.start()
    runner.until_reading()
    runner.until_read(6_000)
    assert runner.terminate()[0] == 0
    assert verdict(runner.data, source) == CLEAN | {"examples": []}


@pytest.mark.slow
@pytest.mark.timeout(1_800)
def test_twenty_kills_while_it_trains(own_broker: Any, topic: Any, produce: Any, service: Any, ml_100k: Any) -> None:
    rng = random.Random(20)
    name = topic(4)
    events = ml_100k()
    source = f"kafka://{own_broker.address}/{name}"
    runner = service(source, "--train", "auto")
    # the topic is filled bit by bit, so that every start finds something to read
    share = len(events) // 20 + 1
    for kill in range(20):
        produce(name, events[kill * share : (kill + 1) * share], partitions=4)
        runner.start()
        if kill == 10:
            own_broker.stop(kill=True)
        runner.until_reading()
        if kill == 10:
            time.sleep(2)
            own_broker.start()
        time.sleep(rng.uniform(0.2, 6.0))
        runner.kill()
        time.sleep(2)
        assert runner.trainers() == []
    runner.start()
    # everything may have been read before the last kill
    runner.until_reading()
    runner.until_read(len(events))
    assert runner.terminate()[0] == 0, runner.log()
    assert verdict(runner.data, source) == CLEAN | {"examples": []}
