"""``--report``: a page that shows a replay, self-contained, and the JSON beside it."""

import itertools
import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from ..engine.errors import InputError
from .plots import Mark, Style, line_plot

__all__ = ["write_report"]

_METRICS = (("hr@10", "HR@10"), ("hr@20", "HR@20"), ("ndcg@10", "NDCG@10"), ("mrr", "MRR"))
_COMPONENT = "component "
# told apart on light and dark ground; the first is recurra's
_ACCENT = "#e4572e"
_COMPONENT_COLOURS = ("#2e86ab", "#1b998b", "#8f5fbf", "#c28f00", "#5d8a3a", "#d36ba6", "#4c6ef5", "#a0522d")
_BASELINE_COLOURS = ("#8a8f98", "#a3a8b0", "#6f7680", "#b08968", "#7d8ca3", "#94a187")
_VERDICT_COLOURS = {"promoted": "#1b998b", "refused": "#c28f00", "failed": "#c0392b"}
_COHORT_NAMES = {
    "new_user": "new users (fewer than 5 events)",
    "new_item": "new items (fewer than 5 events)",
    "tail": "tail (item below average)",
    "with_gap": "after a gap (not the same instant)",
}


def write_report(result: Mapping[str, Any], directory: str | Path) -> Path:
    """Write ``replay.json`` and ``index.html`` for the JSON of a replay into ``directory``; return the page's path."""
    directory = Path(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "replay.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        page = directory / "index.html"
        page.write_text(_page(result), encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write the report to {directory}: {error.strerror}") from None
    return page


def _page(result: Mapping[str, Any]) -> str:
    body = "".join(
        (
            _heading(result),
            _summary(result),
            *(_over_stream(result, key, name) for key, name in (("hr@10", "HR@10"), ("ndcg@10", "NDCG@10"))),
            _mixture(result),
            _cohorts(result),
            _trainings(result),
            _settings(result),
        )
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>recurra replay: {escape(str(result["dataset"]))}</title><style>{_CSS}</style></head><body><main>{body}</main>
</body></html>
"""


def _heading(result: Mapping[str, Any]) -> str:
    best_name, best = _best_baseline(result)
    facts = [
        ("events", f"{result['events']:,}"),
        ("ranked", f"{result['evaluated']:,}"),
        ("users", f"{result['users']:,}"),
        ("items", f"{result['items']:,}"),
        ("time", f"{result['seconds']:,.0f} s"),
        ("events/s", f"{result['events_per_s']:,.0f}"),
        ("training CPU", f"{result['train_cpu_s']:,.0f} s"),
        ("peak memory", f"{result['peak_rss_mb']:,.0f} MB"),
        ("union recall", f"{result['recall_union']:.3f}"),
    ]
    lead = f"HR@10 <b>{result['recurra']['hr@10']:.4f}</b>"
    if best and best["hr@10"]:
        lead += f", {result['recurra']['hr@10'] / best['hr@10']:.2f} times the best baseline ({escape(best_name)}, "
        lead += f"{best['hr@10']:.4f})"
    cells = "".join(f"<div><dt>{escape(name)}</dt><dd>{value}</dd></div>" for name, value in facts)
    return (
        f"<h1>{escape(str(result['dataset']))}</h1><p class='lead'>{lead}</p>"
        f"<p>Protocol {escape(str(result['protocol']))}, seed {result['seed']}: every event is ranked among all items "
        f"seen so far, then learnt.</p><dl>{cells}</dl>"
    )


def _summary(result: Mapping[str, Any]) -> str:
    rows = [("recurra", "recurra", result["recurra"])]
    rows += [(name, "component", entry) for name, entry in result["components"].items()]
    rows += [(name, "baseline", entry) for name, entry in result["baselines"].items()]
    best = {key: max(entry[key] for _, _, entry in rows) for key, _ in _METRICS}
    head = "".join(f"<th>{name}</th>" for _, name in _METRICS)
    lines = []
    for name, kind, entry in rows:
        cells = "".join(
            f"<td{' class=best' if entry[key] == best[key] else ''}>{entry[key]:.4f}</td>" for key, _ in _METRICS
        )
        lines.append(f"<tr class={kind}><th scope=row>{escape(name)}</th><td class=kind>{kind}</td>{cells}</tr>")
    return f"<table><thead><tr><th></th><th></th>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def _over_stream(result: Mapping[str, Any], key: str, name: str) -> str:
    timeline = result["timeline"]
    edges = timeline["positions"]
    centres = [(start + end) / 2 for start, end in itertools.pairwise(edges)]
    # recurra is drawn last, over the others
    names = sorted(timeline["series"], key=lambda series: (series == "recurra", series.startswith(_COMPONENT)))
    lines = {_shown(series): [point[key] for point in timeline["series"][series]] for series in names}
    marks = [
        Mark(
            training["position"],
            f"training after {training['position']:,} events: {training['verdict']}",
            _VERDICT_COLOURS.get(training["verdict"], "#888"),
        )
        for training in result["trainings"]
        if training["position"] >= edges[0]
    ]
    return line_plot(f"{name} over the stream", centres, lines, _styles(names), marks)


def _mixture(result: Mapping[str, Any]) -> str:
    """Draw by what the mixture chooses: the decayed NDCG@10 of its members on the candidates that it ranks."""
    looks = result["timeline"].get("mix_weights", [])
    if not looks:
        return ""
    names = [name for name in looks[0]["ndcg@10"] if any(look["ndcg@10"][name] > 0 for look in looks)]
    lines = {name: [look["ndcg@10"][name] for look in looks] for name in names}
    styles = {
        name: Style(_COMPONENT_COLOURS[place % len(_COMPONENT_COLOURS)], 2.0 if name.startswith("learnt") else 1.5)
        for place, name in enumerate(names)
    }
    title = "Members of the mixture: recent NDCG@10, by which one of them answers"
    return line_plot(title, [look["position"] for look in looks], lines, styles)


def _cohorts(result: Mapping[str, Any]) -> str:
    series = result["timeline"]["series"]
    shown = [name for name in ("recurra", f"{_COMPONENT}slow") if name in series]
    names = shown + [name for name in series if name in result["baselines"]]
    head = "".join(f"<th>{escape(_shown(name))}</th>" for name in names)
    lines = []
    for cohort, entry in result["cohorts"].items():
        best = max((entry[name]["hr@10"] for name in names), default=0.0)
        cells = "".join(
            f"<td{' class=best' if entry[name]['hr@10'] == best else ''}>{entry[name]['hr@10']:.4f}</td>"
            for name in names
        )
        label = _COHORT_NAMES.get(cohort, cohort)
        lines.append(f"<tr><th scope=row>{escape(label)}</th><td class=kind>{entry['n']:,}</td>{cells}</tr>")
    return (
        "<h2>HR@10 by cohort</h2><div class=wide><table><thead><tr><th></th><th>events</th>"
        f"{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def _trainings(result: Mapping[str, Any]) -> str:
    counts = result["versions"]
    legend = ", ".join(f"{escape(name.replace('_', ' '))} {count}" for name, count in counts.items())
    return f"<h2>Versions</h2><p>{legend}. Ticks in the plots: <b class=yes>promoted</b>, <b class=no>refused</b>.</p>"


def _settings(result: Mapping[str, Any]) -> str:
    text = json.dumps(result["settings"], indent=1)
    return f"<details><summary>Settings</summary><pre>{escape(text)}</pre></details>"


def _best_baseline(result: Mapping[str, Any]) -> tuple[str, Mapping[str, float] | None]:
    baselines: Mapping[str, Mapping[str, float]] = result["baselines"]
    if not baselines:
        return "", None
    name = max(baselines, key=lambda each: baselines[each]["hr@10"])
    return name, baselines[name]


def _shown(series: str) -> str:
    return f"{series.removeprefix(_COMPONENT)} (part)" if series.startswith(_COMPONENT) else series


def _styles(names: Sequence[str]) -> dict[str, Style]:
    components = [name for name in names if name.startswith(_COMPONENT)]
    baselines = [name for name in names if not name.startswith(_COMPONENT) and name != "recurra"]
    styles = {"recurra": Style(_ACCENT, 3.0)}
    for place, name in enumerate(components):
        styles[_shown(name)] = Style(_COMPONENT_COLOURS[place % len(_COMPONENT_COLOURS)])
    for place, name in enumerate(baselines):
        styles[_shown(name)] = Style(_BASELINE_COLOURS[place % len(_BASELINE_COLOURS)], 1.5, dashed=True)
    return styles


_CSS = """
:root { color-scheme: light dark; --ink: #1c2026; --soft: #667; --line: #dfe3e8; --ground: #fff; --accent: #e4572e }
@media (prefers-color-scheme: dark) { :root { --ink: #e8eaed; --soft: #9aa3ad; --line: #333a42; --ground: #15181c } }
body { margin: 0; background: var(--ground); color: var(--ink); font: 15px/1.5 system-ui, sans-serif }
main { max-width: 900px; margin: 0 auto; padding: 32px 20px 64px }
h1 { margin: 0; font-size: 28px } h2 { margin: 36px 0 8px; font-size: 18px }
.lead { font-size: 18px; margin: 4px 0 }
dl { display: flex; flex-wrap: wrap; gap: 12px 28px; margin: 20px 0 } dt { color: var(--soft); font-size: 12px }
dd { margin: 0; font-variant-numeric: tabular-nums }
table { border-collapse: collapse; font-variant-numeric: tabular-nums } .wide { overflow-x: auto }
th, td { padding: 4px 12px 4px 0; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap }
thead th { white-space: normal; vertical-align: bottom; max-width: 90px }
th[scope=row], .kind { text-align: left; font-weight: normal } thead th { color: var(--soft); font-size: 12px }
tr.recurra th, tr.recurra td { font-weight: 600 } td.kind { color: var(--soft); font-size: 12px }
td.best { color: var(--accent); font-weight: 600 }
figure { margin: 28px 0 } figcaption { font-weight: 600; margin-bottom: 6px } svg { width: 100%; height: auto }
.grid { stroke: var(--line); stroke-width: 1 } .mark { stroke-width: 2 }
.tick { fill: var(--soft); font-size: 11px } .label { font-size: 12px }
.yes { color: #1b998b } .no { color: #c28f00 } pre { overflow-x: auto; font-size: 12px } summary { cursor: pointer }
"""
