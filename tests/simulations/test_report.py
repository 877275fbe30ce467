"""The report page: whole, self-contained, and escaped."""

import json
import re
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from recurra.engine.errors import InputError
from recurra.engine.events import Event
from recurra.engine.results import Scores
from recurra.simulations.baselines import chosen
from recurra.simulations.contest import Contest
from recurra.simulations.datasets import Stream
from recurra.simulations.plots import Style, bar_plot, line_plot
from recurra.simulations.report import write_report
from recurra.simulations.synthetic import generate


@pytest.fixture(scope="module")
def result(stream_of: Callable[[Sequence[tuple[int, int]]], Stream]) -> dict[str, Any]:
    events = [value for value in islice(generate(3), 2_000) if isinstance(value, Event)]
    users: dict[str, int] = {}
    items: dict[str, int] = {}
    pairs = [(users.setdefault(event.user, len(users)), items.setdefault(event.item, len(items))) for event in events]
    stream = stream_of(pairs)
    contest = Contest(stream, chosen("popularity,markov"), np.arange(300, len(stream)))
    rng = np.random.default_rng(0)
    for position in range(len(stream)):
        if position >= 300:
            rows = np.arange(len(items), dtype=np.int32)
            parts = {"slow": rng.random(len(items)).astype(np.float32)}
            allowed = np.ones(len(items), np.bool_)
            contest.judge(position, Scores(rows, rng.random(len(items)), parts, allowed, 1), pairs[position][1])
        contest.learn(position)
    judged = contest.result()
    evidence = {"slow": 0.05, "item-knn": 0.1, "idle": 0.0, "combination": 0.12}
    weights = {"slow": [0.5, -1.2], "item-knn": [1.0, 0.5], "idle": [0.0, 0.0]}
    judged["timeline"]["mix_weights"] = [
        {"position": position, "ndcg@10": evidence, "weights": weights} for position in (400, 800)
    ]
    return {
        "protocol": "preq-v1",
        "dataset": "a <b> & c",
        "events": len(stream),
        "users": len(users),
        "items": len(items),
        **judged,
        "mix_weights": {"slow": 0.5, "item-knn": 0.5},
        "drift": [500, 700],
        "versions": {"trained": 2, "promoted": 1, "refused": 1, "rolled_back": 0},
        "trainings": [
            {"position": 300, "verdict": "promoted", "seconds": 1.0},
            {"position": 700, "verdict": "refused", "seconds": 1.0},
        ],
        "settings": {"warm": 0.2},
        "seconds": 12.3,
        "events_per_s": 80.0,
        "train_cpu_s": 2.0,
        "peak_rss_mb": 512.0,
        "seed": 3,
    }


def test_a_report_is_one_page_and_the_json(result: dict[str, Any], tmp_path: Path) -> None:
    page = write_report(result, tmp_path / "new" / "report")
    assert json.loads((page.parent / "replay.json").read_text()) == json.loads(json.dumps(result))
    text = page.read_text()
    assert "a &lt;b&gt; &amp; c" in text
    # nothing is fetched from anywhere
    assert not re.search(r"(src|href)=|url\(|@import|<script", text)
    plots = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    for plot in plots:
        ElementTree.fromstring(plot)
    hits, gains, members, weights, cohorts = plots
    # recurra, its model and two baselines
    assert hits.count("<polyline") == gains.count("<polyline") == 4
    assert hits.count('class="mark"') == 2
    assert hits.count("drift found at event") == members.count("drift found at event") == 2
    # a member that never gained anything is left out
    assert members.count("<polyline") == weights.count("<polyline") == 3
    # recurra, its model and the best baseline in eight cohorts
    assert cohorts.count('class="bar"') == 24
    assert "Drift found" in text


def test_the_truth_is_shown_and_a_sampled_baseline_is_not_the_best(result: dict[str, Any], tmp_path: Path) -> None:
    figures = {"hr@10": 0.9, "hr@20": 0.95, "ndcg@10": 0.8, "mrr": 0.7}
    truth = {**figures, "drifts": [[600, 600], [1_000, 1_200], [10, 20]]}
    timeline = result["timeline"] | {"series": {**result["timeline"]["series"]}}
    timeline["series"]["truth"] = [figures] * (len(timeline["positions"]) - 1)
    baselines = {**result["baselines"], "river-funk-mf": {**figures, "n": 50}}
    cohorts = {name: {**entry, "truth": figures} for name, entry in result["cohorts"].items()}
    known = result | {"truth": truth, "timeline": timeline, "baselines": baselines, "cohorts": cohorts}
    text = write_report(known, tmp_path).read_text()
    best = max(result["baselines"], key=lambda name: result["baselines"][name]["hr@10"])
    assert f"times the best baseline ({best}" in text
    assert "baseline, of 50 events" in text
    assert f"{result['recurra']['hr@10'] / 0.9:.0%} of what is possible (0.9000)" in text
    hits = re.findall(r"<svg.*?</svg>", text, re.DOTALL)[0]
    # a change within the warm part lies outside the plot
    assert hits.count("the stream changed at event") == 2


def test_points_stay_inside_the_frame(result: dict[str, Any], tmp_path: Path) -> None:
    text = write_report(result, tmp_path).read_text()
    for points in re.findall(r'points="([^"]*)"', text):
        for x, y in (map(float, point.split(",")) for point in points.split()):
            assert 56 <= x <= 690
            assert 16 <= y <= 300


def test_values_below_zero_have_their_place() -> None:
    text = line_plot("t", [0, 1, 2], {"line": [-1.5, 0.0, 2.5]}, {"line": Style("red")})
    (points,) = re.findall(r'points="([^"]*)"', text)
    heights = [float(point.split(",")[1]) for point in points.split()]
    assert 300 >= heights[0] > heights[1] > heights[2] >= 16
    ticks = [float(tick) for tick in re.findall(r'text-anchor="end">([-\d.]+)<', text)]
    assert 0.0 in ticks
    assert min(ticks) <= -1.5


@pytest.mark.parametrize("value", [0.0, 0.3])
def test_bars_are_as_long_as_their_values(value: float) -> None:
    text = bar_plot("t", ["one", "two"], {"a": [0.3, value], "b": [0.15, 0.0]}, dict.fromkeys("ab", Style("red")))
    widths = [float(width) for width in re.findall(r'class="bar"[^>]*width="([\d.]+)"', text)]
    assert widths == pytest.approx([590, 295, 590 * value / 0.3, 0.0])


def test_labels_do_not_overlap() -> None:
    lines = {f"line {number}": [0.0, 0.5 + number * 1e-4] for number in range(12)}
    text = line_plot("t", [0, 1], lines, dict.fromkeys(lines, Style("red")))
    heights = sorted(float(y) for y in re.findall(r'class="label" x="[\d.]+" y="([\d.]+)"', text))
    assert len(heights) == 12
    assert np.diff(heights).min() > 14
    assert heights[-1] < 340


def test_a_report_that_cannot_be_written_says_so(result: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(InputError, match="cannot write the report"):
        write_report(result, tmp_path / "taken")
