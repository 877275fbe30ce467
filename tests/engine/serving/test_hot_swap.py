"""Versions change under load: only the number in the answer shows it."""

import threading
import time
from pathlib import Path

import numpy as np
import pytest

import recurra
from recurra.engine.clock import EventClock
from recurra.engine.config import StateConfig
from recurra.simulations.bench.load_generator import drive

from ..conftest import publish, small_config, stream, vocabulary

# (versions, seconds, events per second, queries per second)
_QUICK = (2, 4.0, 400, 20)
_FULL = (10, 60.0, 2_000, 50)


@pytest.mark.parametrize(
    "load", [pytest.param(_QUICK, id="quick"), pytest.param(_FULL, id="full", marks=pytest.mark.slow)]
)
def test_versions_change_under_load(
    tmp_path: Path, load: tuple[int, float, int, int], capsys: pytest.CaptureFixture[str]
) -> None:
    versions, seconds, event_rate, query_rate = load
    events = stream(3_000 + int(seconds * event_rate), users=600, items=500)
    items = vocabulary(events)
    for seed in range(versions + 1):
        # each version has its items in an order of its own
        publish(tmp_path, items[seed:] + items[:seed], seed=seed)
    config = small_config(states=StateConfig(hot_users=2_000))
    users = sorted({event.user for event in events})
    at = events[-1].time_ms + 1_000
    answers: list[recurra.Recommendation] = []
    visible_ms: list[float] = []
    stop = threading.Event()
    with recurra.open(tmp_path, config, clock=EventClock(10**12)) as engine:
        engine.ingest(events[:3_000])

        def ingest() -> None:
            started, done = time.perf_counter(), 3_000
            while done < len(events):
                due = min(len(events), 3_000 + int((time.perf_counter() - started) * event_rate))
                if due > done:
                    engine.ingest(events[done:due])
                    # visible as soon as the call returns; an event counts from when it was due
                    now = time.perf_counter() - started
                    visible_ms.extend((now - (i - 3_000) / event_rate) * 1_000 for i in range(done, due))
                    done = due
                time.sleep(0.005)
            stop.set()

        def ask(number: int) -> None:
            answers.append(engine.recommend(users[number % len(users)], 10, at=at))

        def switch() -> None:
            for number in range(1, versions + 1):
                stop.wait(seconds / (versions + 1))
                engine.rollback(number)

        threads = [threading.Thread(target=target) for target in (ingest, switch)]
        for thread in threads:
            thread.start()
        queries = drive([ask, ask], rate=query_rate, stop=stop)
        for thread in threads:
            thread.join()
        assert queries.failed == 0, queries.errors
        assert {answer.version for answer in answers if answer.source == "mix"} <= set(range(1, versions + 2))
        assert engine.version == versions
        live = [engine.recommend(user, 10, at=at, explain=True) for user in users]
        assert engine.health().events == len(events)
        digest = engine.digest()
    with recurra.open(tmp_path, config, clock=EventClock(10**12)) as engine:
        # folded again from the histories
        cold = [engine.recommend(user, 10, at=at, explain=True) for user in users]
        assert engine.digest() == digest
    for ours, theirs in zip(live, cold, strict=True):
        assert ours.items == theirs.items
        assert ours.scores == pytest.approx(theirs.scores, rel=1e-4, abs=1e-4)
    figures = {
        "visible_ms_p50": round(float(np.percentile(visible_ms, 50)), 1),
        "visible_ms_p99": round(float(np.percentile(visible_ms, 99)), 1),
        "query_ms_p99": round(queries.percentile_ms(99), 1),
        "answers": len(answers),
    }
    with capsys.disabled():
        print(f"\n{versions} switches, {event_rate} events/s, {query_rate} queries/s: {figures}")
