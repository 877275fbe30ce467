"""Replays through the real engine: arguments, bookkeeping, and the same figures twice."""

import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from recurra.engine.config import Config
from recurra.engine.errors import InputError
from recurra.engine.events import Event
from recurra.simulations.baselines import chosen
from recurra.simulations.contest import Contest
from recurra.simulations.datasets import Stream, load
from recurra.simulations.replay import replay
from recurra.simulations.synthetic import generate

StreamOf = Callable[[Sequence[tuple[int, int]]], Stream]

# counting memories only: a version would take most of the time of these tests
_UNTRAINED = msgspec.convert({"training": {"min_events": 1_000_000}}, Config)
# what differs between two runs of the same replay
_COSTS = ("seconds", "events_per_s", "train_s", "train_cpu_s", "peak_rss_mb")


@pytest.fixture(scope="module")
def stream(stream_of: StreamOf) -> Stream:
    events = [value for value in islice(generate(11), 1_700) if isinstance(value, Event)]
    codes: tuple[dict[str, int], dict[str, int]] = ({}, {})
    return stream_of(
        [
            (codes[0].setdefault(event.user, len(codes[0])), codes[1].setdefault(event.item, len(codes[1])))
            for event in events
        ]
    )


@pytest.fixture(scope="module")
def result(stream: Stream) -> dict[str, Any]:
    return replay(stream, config=_UNTRAINED, seed=5)


def _without_costs(result: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in result.items() if name not in _COSTS}


def test_a_replay_has_everything_that_the_interface_names(result: dict[str, Any], stream: Stream) -> None:
    names = (
        "protocol dataset events evaluated users items recurra components baselines recall_union mix_weights cohorts"
    )
    names += " drift versions settings seconds events_per_s train_cpu_s peak_rss_mb seed"
    assert set(names.split()) <= set(result)
    assert result["protocol"] == "preq-v1"
    assert result["events"] == len(stream)
    assert result["evaluated"] == len(stream) - int(len(stream) * 0.2)
    assert set(result["recurra"]) == {"hr@10", "hr@20", "ndcg@10", "mrr", "coverage@10", "novelty@10"}
    assert list(result["baselines"]) == [
        "popularity",
        "decayed-popularity",
        "markov",
        "sequential-rules",
        "item-knn",
        "river-biased-mf",
        "river-funk-mf",
    ]
    assert {"item-knn", "rules"} <= set(result["components"])
    assert set(result["versions"]) == {"trained", "promoted", "refused", "rolled_back"}
    assert result["peak_rss_mb"] > 50
    assert result["seed"] == 5
    assert msgspec.json.decode(msgspec.json.encode(result)) == result


def test_recurra_learns_what_follows_what(result: dict[str, Any]) -> None:
    assert result["recurra"]["hr@10"] > 1.25 * result["baselines"]["popularity"]["hr@10"]
    assert 0 < result["recurra"]["hr@20"] <= result["recall_union"] <= 1


def test_a_replay_repeats_under_its_seed(result: dict[str, Any], stream: Stream) -> None:
    assert _without_costs(replay(stream, config=_UNTRAINED, seed=5)) == _without_costs(result)


def test_a_real_stream_repeats_under_its_seed(shared_data: Callable[[str], Path]) -> None:
    some = load(shared_data("ml-latest-small/ratings.csv"), shuffle_ties=1, limit=1_500)
    one, other = (replay(some, config=_UNTRAINED, every=5, seed=3, label_delay_ms=60_000) for _ in range(2))
    assert _without_costs(one) == _without_costs(other)


@pytest.mark.slow
def test_trained_models_repeat_too(shared_data: Callable[[str], Path]) -> None:
    config = msgspec.convert({"training": {"min_events": 1_000, "every_events": 2_000}}, Config)
    some = load(shared_data("ml-100k/ml-100k.inter"), limit=5_000)
    one, other = (replay(some, config=config, every=5, seed=3) for _ in range(2))
    assert one["versions"]["trained"] >= 2
    assert one["components"]["slow"]["hr@10"] > 0
    for found in (one, other):
        for training in found["trainings"]:
            del training["seconds"]
    assert _without_costs(one) == _without_costs(other)


def test_every_other_event_is_ranked_and_all_are_learnt(result: dict[str, Any], stream: Stream) -> None:
    half = replay(stream, config=_UNTRAINED, every=2, baselines="markov", seed=5)
    assert half["evaluated"] == (result["evaluated"] + 1) // 2
    assert half["baselines"]["markov"]["hr@10"] == pytest.approx(result["baselines"]["markov"]["hr@10"], abs=0.04)
    assert list(half["baselines"]) == ["markov"]


def test_own_items_are_candidates_only_with_repeats(stream_of: StreamOf) -> None:
    # everybody has item 0 again and again
    pairs = [(user, item) for item in (0, 1, 2, 0, 0, 0, 0, 0) for user in range(10)]
    plain, repeats = (
        replay(stream_of(pairs), config=_UNTRAINED, warm=0.5, repeats=repeats, baselines="popularity")
        for repeats in (False, True)
    )
    assert plain["recurra"]["hr@10"] == plain["baselines"]["popularity"]["hr@10"] == 0
    assert repeats["recurra"]["hr@10"] == repeats["baselines"]["popularity"]["hr@10"] == 1


@pytest.mark.parametrize("delay_s", [1, 40, 1_000_000])
def test_an_event_is_learnt_only_when_its_label_has_come(stream: Stream, delay_s: int) -> None:
    late = replay(stream, config=_UNTRAINED, every=3, label_delay_ms=delay_s * 1_000, baselines="markov,item-knn")
    first = int(len(stream) * 0.2)
    contest = Contest(stream, chosen("markov,item-knn"), np.arange(first, len(stream), 3))
    learnt = 0
    for position in range(first, len(stream)):
        while learnt < position and stream.time_ms[learnt] + delay_s * 1_000 <= stream.time_ms[position]:
            contest.learn(learnt)
            learnt += 1
        if (position - first) % 3 == 0:
            contest.judge(position, None, None)
    for name, figures in contest.result()["baselines"].items():
        for metric in ("hr@10", "hr@20", "ndcg@10", "mrr"):
            assert late["baselines"][name][metric] == figures[metric], (name, metric)
    # the longest delay leaves nothing to recommend
    assert (late["recurra"]["mrr"] == 0) == (delay_s == 1_000_000)


def test_an_interrupted_replay_leaves_nothing(stream: Stream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(done: int, total: int, now: dict[str, float]) -> None:
        assert list(tmp_path.iterdir())
        raise KeyboardInterrupt

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(KeyboardInterrupt):
        replay(stream, config=_UNTRAINED, progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_event_time_sets_the_pace(stream_of: StreamOf) -> None:
    # the twelve events after the warm part are eleven seconds apart
    pairs = [(place % 3, place % 5) for place in range(15)]
    started = time.perf_counter()
    replay(stream_of(pairs), config=_UNTRAINED, baselines="none", speed="50")
    assert time.perf_counter() - started >= 11 / 50


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"warm": 1.0}, "warm"),
        ({"every": 0}, "every"),
        ({"label_delay_ms": -1}, "delay"),
        ({"train": "sometimes"}, "auto or off"),
        ({"speed": "fast"}, "speed"),
        ({"speed": "-1"}, "speed"),
        ({"via": "carrier pigeon"}, "memory or kafka"),
        ({"via": "kafka://nowhere"}, "kafka://HOST:PORT/TOPIC"),
        ({"baselines": "markov,magic"}, "magic"),
    ],
)
def test_a_bad_argument_is_refused_with_a_sentence(arguments: dict[str, Any], said: str, stream: Stream) -> None:
    with pytest.raises(InputError, match=said):
        replay(stream, config=_UNTRAINED, **arguments)


def test_a_replay_begins_with_nothing(stream: Stream, tmp_path: Path) -> None:
    (tmp_path / "something").write_text("")
    with pytest.raises(InputError, match="not empty"):
        replay(stream, config=_UNTRAINED, data_dir=tmp_path)
