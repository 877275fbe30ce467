"""The service is killed while it reads; an auditor then finds nothing missing and nothing twice."""

import random
import time
from pathlib import Path
from typing import Any

import pytest

from recurra.connectors.audit import audit
from recurra.engine.config import Config

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


def verdict(data: Path, source: str) -> dict[str, Any]:
    found = audit(data, source, Config())
    return {name: getattr(found, name) for name in CLEAN} | {"examples": found.examples}


def test_kills_lose_and_repeat_nothing(address: str, topic: Any, produce: Any, service: Any) -> None:
    rng = random.Random(1)
    name = topic(4)
    produce(name, messages(15_000), partitions=4)
    source = f"kafka://{address}/{name}"
    runner = service(source)
    for _ in range(2):
        runner.start()
        runner.until_reading()
        time.sleep(rng.uniform(0.3, 1.5))
        runner.kill()
    runner.start()
    # everything may have been read before the last kill
    runner.until_reading()
    runner.until_read(15_000)
    status, seconds = runner.terminate()
    assert status == 0, runner.log()
    assert seconds < 5
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


def test_a_build_with_two_writes_fails_the_same_audit(address: str, topic: Any, produce: Any, service: Any) -> None:
    name = topic(2)
    produce(name, messages(6_000), partitions=2)
    source = f"kafka://{address}/{name}"
    runner = service(source)
    runner.start(RECURRA_BREAK="two-writes", RECURRA_FAILPOINT="store.between_writes:5")
    assert runner.wait() == -9
    runner.start(RECURRA_BREAK="two-writes")
    runner.until_reading()
    runner.until_read(6_000)
    assert runner.terminate()[0] == 0
    found = verdict(runner.data, source)
    assert not found["ok"]
    assert found["missing"] > 0


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
