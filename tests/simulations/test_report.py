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
from recurra.simulations.plots import Style, line_plot
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
    judged["timeline"]["mix_weights"] = [
        {"position": position, "ndcg@10": {"slow": 0.05, "item-knn": 0.1, "idle": 0.0}} for position in (400, 800)
    ]
    return {
        "protocol": "preq-v1",
        "dataset": "a <b> & c",
        "events": len(stream),
        "users": len(users),
        "items": len(items),
        **judged,
        "mix_weights": {"slow": 0.5, "item-knn": 0.5},
        "drift": [],
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
    assert len(plots) == 3
    for plot in plots:
        ElementTree.fromstring(plot)
    assert plots[0].count("<polyline") == 4
    assert plots[0].count('class="mark"') == 2


def test_points_stay_inside_the_frame(result: dict[str, Any], tmp_path: Path) -> None:
    text = write_report(result, tmp_path).read_text()
    for points in re.findall(r'points="([^"]*)"', text):
        for x, y in (map(float, point.split(",")) for point in points.split()):
            assert 56 <= x <= 690
            assert 16 <= y <= 300


def test_labels_do_not_overlap() -> None:
    lines = {f"line {number}": [0.0, 0.5 + number * 1e-4] for number in range(12)}
    text = line_plot("t", [0, 1], lines, dict.fromkeys(lines, Style("red")))
    heights = sorted(float(y) for y in re.findall(r'class="label" x="[\d.]+" y="([\d.]+)"', text))
    assert len(heights) == 12
    assert np.diff(heights).min() > 14
    assert heights[-1] < 340


def test_a_report_that_can_not_be_written_says_so(result: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(InputError, match="cannot write the report"):
        write_report(result, tmp_path / "taken")
