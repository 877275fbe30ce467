"""The load generator: every call is counted once, failures are distinguished, a rate is kept."""

import itertools
import threading

import pytest

from recurra.simulations.bench.load_generator import drive


def test_every_call_has_a_number_of_its_own() -> None:
    seen: list[int] = []
    load = drive([seen.append] * 3, calls=100)
    assert sorted(seen) == list(range(100))
    assert len(load.latencies_ms) == 100
    assert load.failed == 0
    assert load.qps > 0
    assert load.percentile_ms(99) >= load.percentile_ms(50) >= 0


def test_a_failure_is_counted_and_its_reason_kept() -> None:
    def fail_on_odd(call: int) -> None:
        if call % 2:
            raise ValueError(f"call {call}")

    load = drive([fail_on_odd], calls=20)
    assert (len(load.latencies_ms), load.failed) == (10, 10)
    assert load.errors[0] == "ValueError: call 1"
    assert len(load.errors) == 5


def test_a_rate_charges_a_stall_to_the_calls_that_waited() -> None:
    stalled = itertools.count()
    release = threading.Event()

    def stall_once(call: int) -> None:
        if next(stalled) == 0:
            release.wait(0.2)

    load = drive([stall_once], calls=10, rate=1_000.0)
    # all ten were due within 10 ms, so the last ones waited for the first
    assert load.latencies_ms.min() > 100


def test_a_load_ends_when_it_is_told() -> None:
    stop = threading.Event()
    load = drive([lambda call: stop.set() if call == 5 else None], stop=stop)
    assert len(load.latencies_ms) == 6
    with pytest.raises(ValueError, match="end"):
        drive([lambda call: None])
