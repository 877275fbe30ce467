"""Which events the mixture learns from: decided from the stream, whatever the batches, restarts and repeats."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import recurra
from recurra import Event, Item, Record
from recurra.engine.config import Config, MixConfig, StoreConfig, TrainingConfig
from recurra.engine.mix import Lessons
from recurra.engine.mix import lessons as lessons_module
from recurra.engine.mix.lessons import LESSON_S

from .conftest import publish, small_config, stream, vocabulary

START = 1_700_000_000_000


def events(count: int, per_s: float, start_ms: int = START) -> list[Event]:
    """Return events of some users at a steady rate of event time."""
    return [
        Event(f"u{k * k % 37}", f"i{k * 7 % 23}{k * 3 % 5}", start_ms + int(1000 * k / per_s)) for k in range(count)
    ]


def lessons(stream: list[Event], config: MixConfig | None = None, chooser: Lessons | None = None) -> list[bool]:
    chooser = chooser or Lessons(config or MixConfig())
    chosen = []
    for k, event in enumerate(stream):
        chosen.append(chooser.chosen(event))
        chooser.passed(k + 1, event.time_ms)
    return chosen


@pytest.mark.parametrize("per_s", [0.001, 1, 100])
def test_a_slow_stream_is_learnt_from_whole(per_s: float) -> None:
    assert all(lessons(events(10_000, per_s)))


@pytest.mark.parametrize("times", [1, 4])
def test_a_fast_stream_costs_no_more_than_the_budget(times: int) -> None:
    # events per second at which all of them would cost so many times the budget
    config = MixConfig(budget=0.25 / times, sample=0.0)
    chosen = lessons(events(30_000, 5 * 0.25 / LESSON_S), config)
    assert all(chosen[:3_000])
    share = sum(chosen[4_000:]) / len(chosen[4_000:])
    assert share == pytest.approx(1 / (5 * times), rel=0.05)


def test_the_share_follows_the_rate() -> None:
    fast = 10 * 0.25 / LESSON_S
    slow_events = events(5_000, 1)
    fast_events = events(5_000, fast, slow_events[-1].time_ms + 1)
    after = events(5_000, 1, fast_events[-1].time_ms + 1)
    chosen = lessons([*slow_events, *fast_events, *after])
    assert all(chosen[:6_000])
    assert sum(chosen[7_000:10_000]) == pytest.approx(300, rel=0.2)
    assert all(chosen[12_000:])


def test_a_stream_whose_times_stand_still_for_a_day_has_the_rate_of_its_days() -> None:
    # ten days of 2,500 events, as data sets with dates have them
    stream = [Event(f"u{k}", f"i{k % 90}", START + k // 2_500 * 86_400_000) for k in range(25_000)]
    assert all(lessons(stream))
    # and late events at the end of a block say nothing of the rate
    late = [event if k % 1_000 != 999 else Event("late", "x", START) for k, event in enumerate(events(9_000, 10))]
    assert all(lessons(late))


def test_the_least_share_holds_and_without_a_budget_it_is_the_share() -> None:
    burst = events(20_000, 100_000)
    assert sum(lessons(burst, MixConfig(sample=0.1))[5_000:]) == pytest.approx(1_500, rel=0.1)
    assert sum(lessons(burst, MixConfig(sample=0.1, budget=0.0))) == pytest.approx(2_000, rel=0.1)
    assert not any(lessons(events(5_000, 1), MixConfig(sample=0.0, budget=0.0)))


def test_a_state_that_is_taken_over_goes_on() -> None:
    stream = events(20_000, 2_000)
    whole = lessons(stream)
    assert 0 < sum(whole[10_000:]) < 10_000
    first = Lessons(MixConfig())
    chosen = lessons(stream[:12_345], chooser=first)
    second = Lessons(MixConfig())
    second.restore(first.state())
    for k, event in enumerate(stream[12_345:], 12_345):
        chosen.append(second.chosen(event))
        second.passed(k + 1, event.time_ms)
    assert chosen == whole


def config(batch_events: int) -> Config:
    return Config(
        store=StoreConfig(batch_events=batch_events), training=TrainingConfig(mode="off"), mix=MixConfig(budget=0.05)
    )


def with_records(stream: list[Event]) -> list[Event | Item]:
    """Put a catalogue record before the first event of most items, and one for nobody here and there."""
    told: list[Event | Item] = []
    known = {"i00"}
    for k, event in enumerate(stream):
        if event.item not in known:
            known.add(event.item)
            told.append(Item(event.item, categories=(f"c{len(known) % 4}", f"d{len(known) % 7}")))
        told.append(event)
        if k % 50 == 49:
            told.append(Item(f"never {k}", categories=(f"c{k % 4}",)))
    return told


@pytest.mark.parametrize("catalogue", [False, True])
def test_batches_restarts_and_repeats_make_no_difference_to_what_is_learnt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, catalogue: bool
) -> None:
    monkeypatch.setattr(lessons_module, "BLOCK", 100)
    monkeypatch.setattr(lessons_module, "_EARLY", 300)
    told: Sequence[Event | Item] = events(900, 8 * 0.05 / LESSON_S)
    if catalogue:
        told = with_records(events(900, 8 * 0.05 / LESSON_S))

    def learnt(name: str, size: int, *, call: int, stops: int = 0) -> bytes:
        for start in range(0, len(told), len(told) // (stops + 1)):
            with recurra.open(tmp_path / name, config(size)) as engine:
                part = told[start : start + len(told) // (stops + 1)]
                for at in range(0, len(part), call):
                    # what came already is sent again, as a client does that had no answer
                    engine.ingest(part[max(0, at - 20) : at + call])
                blob = engine._caches.mix_state()
        return blob

    expected = learnt("all", 512, call=len(told))
    assert learnt("small", 7, call=len(told)) == expected
    assert learnt("calls", 512, call=61) == expected
    assert learnt("restarts", 512, call=40, stops=2) == expected


def test_a_catalogue_counts_from_where_it_came_when_the_log_is_read_again(tmp_path: Path) -> None:
    told = with_records(events(600, 1))
    # one item is described late, one again
    told[400:400] = [Item("i00", categories=("d1",)), Item("i71", categories=("c9", "d1"))]
    with recurra.open(tmp_path / "data", config(64)) as engine:
        # without a snapshot, as after a kill
        engine._caches.save = lambda store: None  # type: ignore[method-assign]
        engine.ingest(told)
        users = [f"u{k * k % 37}" for k in range(37)]
        expected = {user: engine.scores(user, at=START + 10**6).parts for user in users}
    with recurra.open(tmp_path / "data", config(64)) as engine:
        for user, parts in expected.items():
            for name, values in engine.scores(user, at=START + 10**6).parts.items():
                # i71 counted with its first record until its second came, which the store no longer knows
                assert np.allclose(values, parts[name], rtol=0.02, equal_nan=True), (user, name)
                if not name.startswith("attributes"):
                    assert np.array_equal(values, parts[name], equal_nan=True)


@pytest.mark.parametrize(("call", "stop"), [(9, 200), (1, 200), (200, 60), (9, 63)])
def test_nor_do_they_while_a_version_serves(tmp_path: Path, call: int, stop: int) -> None:
    # users pass anchors, at which the error memory drops what it had of them
    recorded = stream(200)
    records = [Record(event, "s", position + 1) for position, event in enumerate(recorded)]

    def learnt(name: str, call: int, stop: int) -> bytes:
        publish(tmp_path / name, vocabulary(recorded))
        for start in range(0, len(records), stop):
            with recurra.open(tmp_path / name, small_config(mix=MixConfig())) as engine:
                for at in range(start, min(start + stop, len(records)), call):
                    engine.apply(records[at : min(at + call, start + stop)])
                blob = engine._caches.mix_state()
        return blob

    assert learnt("other", call, stop) == learnt("all", 200, 200)
