"""The report page: whole, self-contained, and escaped."""

import json
import re
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from plotly.offline import get_plotlyjs

from recurra.engine.errors import InputError
from recurra.engine.events import Event
from recurra.engine.results import Scores
from recurra.simulations.baselines import chosen
from recurra.simulations.contest import Contest
from recurra.simulations.datasets import Stream
from recurra.simulations.plots import Style, bar_plot, line_plot
from recurra.simulations.report import write_report
from recurra.simulations.synthetic import generate

PlotsOf = Callable[[str], list[Any]]


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


def test_a_report_is_one_page_and_the_json(result: dict[str, Any], plots_of: PlotsOf, tmp_path: Path) -> None:
    page = write_report(result, tmp_path / "new" / "report")
    assert json.loads((page.parent / "replay.json").read_text()) == json.loads(json.dumps(result))
    text = page.read_text()
    assert "a &lt;b&gt; &amp; c" in text
    # the library is in the page, once, and nothing is fetched from anywhere
    assert text.count(get_plotlyjs()) == 1
    assert not re.search(r"(src|href)=|url\(|@import|https?:", text.replace(get_plotlyjs(), ""))
    hits, gains, members, weights, cohorts = plots_of(text)
    # recurra, its model and two baselines
    lines = {"recurra", "slow (part)", "popularity", "markov"}
    marks = {"promoted", "refused", "drift found"}
    assert hits.traces.keys() == gains.traces.keys() == lines | marks
    for plot, key in ((hits, "hr@10"), (gains, "ndcg@10")):
        assert plot.traces["recurra"]["y"] == [point[key] for point in result["timeline"]["series"]["recurra"]]
        assert [plot.traces[verdict]["x"] for verdict in ("promoted", "refused")] == [[300], [700]]
        assert plot.traces["refused"]["text"] == ["training after 700 events: refused"]
    assert hits.traces["drift found"]["x"] == members.traces["drift found"]["x"] == [*[500] * 4, None, *[700] * 4, None]
    assert hits.traces["drift found"]["text"][::5] == ["drift found at event 500", "drift found at event 700"]
    # a member that never gained anything is left out
    assert members.traces.keys() == {"slow", "item-knn", "combination", "drift found"}
    assert weights.traces.keys() == {"slow", "item-knn", "idle", "drift found"}
    assert weights.traces["slow"]["y"] == pytest.approx([-0.7, -0.7])
    # recurra, its model and the best baseline in eight cohorts
    assert len(cohorts.traces) == 3
    assert all(len(bar["x"]) == len(set(bar["y"])) == 8 for bar in cohorts.traces.values())
    assert cohorts.traces["recurra"]["x"] == [entry["recurra"]["hr@10"] for entry in result["cohorts"].values()]
    assert "Drift found" in text


def test_the_truth_is_shown_and_a_sampled_baseline_is_not_the_best(
    result: dict[str, Any], plots_of: PlotsOf, tmp_path: Path
) -> None:
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
    hits = plots_of(text)[0]
    assert hits.traces["truth"]["y"] == [0.9] * (len(timeline["positions"]) - 1)
    # a change within the warm part lies outside the plot
    changes = hits.traces["stream changed"]
    assert changes["x"] == [600, 600, 600, 600, None, 1_000, 1_000, 1_090, 1_090, None]
    assert changes["text"][::5] == [
        "the stream changed at event 600 to 600",
        "the stream changed at event 1,000 to 1,200",
    ]


def test_points_stay_inside_the_frame(result: dict[str, Any], plots_of: PlotsOf, tmp_path: Path) -> None:
    text = write_report(result | {"drift": [500, 5_000]}, tmp_path).read_text()
    plots = [plot for plot in plots_of(text) if plot.title != "HR@10 by cohort"]
    assert len(plots) == 4
    for plot in plots:
        first, last = plot.layout["xaxis"]["range"]
        for trace in plot.traces.values():
            assert all(at is None or first < at < last for at in trace["x"]), trace["name"]
            if trace.get("yaxis") == "y2":
                assert all(at is None or 0 <= at <= 1 for at in trace["y"])
        assert plot.layout["yaxis2"]["range"] == [0, 1]


def test_values_below_zero_have_their_place(plots_of: PlotsOf) -> None:
    (plot,) = plots_of(line_plot("t", [0, 1, 2], {"line": [-1.5, 0.0, 2.5]}, {"line": Style("#ff0000")}))
    assert plot.traces["line"]["y"] == [-1.5, 0.0, 2.5]
    # the range is Plotly's, with zero in it; the browser's test looks at the ticks
    assert plot.layout["yaxis"]["rangemode"] == "tozero"
    assert "range" not in plot.layout["yaxis"]


@pytest.mark.parametrize("value", [0.0, 0.3])
def test_bars_are_as_long_as_their_values(value: float, plots_of: PlotsOf) -> None:
    text = bar_plot(
        "t", ["one", "two (2)"], {"a": [0.3, value], "b": [0.15, 0.0]}, dict.fromkeys("ab", Style("#ff0000"))
    )
    (plot,) = plots_of(text)
    assert [plot.traces[name]["x"] for name in "ab"] == [[0.3, value], [0.15, 0.0]]
    assert plot.traces["b"]["text"] == ["0.150", "0.000"]
    assert plot.traces["a"]["y"] == ["one", "two<br>(2)"]
    first, last = plot.layout["xaxis"]["range"]
    # the values beside the bars need room
    assert first == 0
    assert last > 1.1 * 0.3


def test_plots_of_nothing_are_empty(plots_of: PlotsOf) -> None:
    (lines,) = plots_of(line_plot("t", [], {"line": []}, {"line": Style("#ff0000")}))
    assert lines.traces["line"]["x"] == []
    assert lines.layout["xaxis"]["range"][0] < lines.layout["xaxis"]["range"][1]
    (bars,) = plots_of(bar_plot("t", [], {}, {}))
    assert bars.traces == {}


def test_names_are_text(plots_of: PlotsOf) -> None:
    text = line_plot("<i>", [0, 1], {"<b>a</b>": [0, 1]}, {"<b>a</b>": Style("#ff0000")})
    assert "<b>" not in text
    assert "<i>" not in text
    (plot,) = plots_of(text)
    # Plotly would take it for bold
    assert list(plot.traces) == ["&lt;b&gt;a&lt;/b&gt;"]


def test_a_report_that_cannot_be_written_says_so(result: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(InputError, match="cannot write the report"):
        write_report(result, tmp_path / "taken")
