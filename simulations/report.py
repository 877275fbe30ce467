"""``--report``: a page that shows a replay, self-contained, and the JSON beside it."""

import itertools
import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from ..engine.errors import InputError
from .plots import PLOT_CSS, Mark, Span, Style, bar_plot, line_plot, plotly_script

__all__ = ["write_page", "write_report"]

_METRICS = (("hr@10", "HR@10"), ("hr@20", "HR@20"), ("ndcg@10", "NDCG@10"), ("mrr", "MRR"))
# what is known of some only
_MORE = (("coverage@10", "coverage", "{:.3f}"), ("novelty@10", "novelty, bits", "{:.1f}"))
_COMPONENT = "component "
_TRUTH = "truth"
# distinct on light and dark ground; recurra and its model have theirs to themselves
_ACCENT, _SLOW = "#e4572e", "#4c6ef5"
_COLOURS = ("#2e86ab", "#1b998b", "#8f5fbf", "#c28f00", "#6d8f3a", "#d36ba6", "#a0663c", "#7d8694")
_VERDICT_COLOURS = {"promoted": "#1b998b", "refused": "#c28f00", "failed": "#c0392b"}
_DRIFT, _CHANGE = "#d9483b", "#8f5fbf"
_COHORT_NAMES = {
    "new_user": "new users (under 5 events)",
    "old_user": "other users",
    "new_item": "new items (under 5 events)",
    "old_item": "other items",
    "tail": "tail (80 % of the items)",
    "head": "head (the most popular 20 %)",
    "with_gap": "after a gap in time",
    "without_gap": "no gap, or first event",
}


def write_report(result: Mapping[str, Any], directory: str | Path) -> Path:
    """Write ``replay.json`` and ``index.html`` for the JSON of a replay into ``directory``; return the page's path."""
    return write_page(directory, "replay", f"recurra replay: {result['dataset']}", _body(result), result)


def write_page(directory: str | Path, name: str, title: str, body: str, result: Mapping[str, Any]) -> Path:
    """Write ``NAME.json`` and ``index.html``, whose main part is the HTML ``body``; return the page's path."""
    directory = Path(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        page = directory / "index.html"
        page.write_text(_page(title, body), encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write the report to {directory}: {error.strerror}") from None
    return page


def _page(title: str, body: str) -> str:
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title><style>{_CSS}{PLOT_CSS}</style>{plotly_script()}</head>
<body><main><noscript><p class="legend">The plots need JavaScript, the tables do not.</p></noscript>{body}</main>
</body></html>
"""


def _body(result: Mapping[str, Any]) -> str:
    return "".join(
        (
            _heading(result),
            _summary(result),
            *(_over_stream(result, key, name) for key, name in (("hr@10", "HR@10"), ("ndcg@10", "NDCG@10"))),
            _marks_legend(result),
            _members(result),
            _weights(result),
            _cohort_bars(result),
            _cohort_table(result),
            _settings(result),
        )
    )


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
    if _TRUTH in result and result[_TRUTH]["hr@10"]:
        possible = result[_TRUTH]["hr@10"]
        lead += f", {result['recurra']['hr@10'] / possible:.0%} of what is possible ({possible:.4f})"
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
    best = {key: max(entry[key] for _, _, entry in rows if "n" not in entry) for key, _ in _METRICS}
    if _TRUTH in result:
        rows.append((_TRUTH, "best possible", result[_TRUTH]))
    head = "".join(f"<th>{name}</th>" for name in [*(name for _, name in _METRICS), *(name for _, name, _ in _MORE)])
    lines = []
    for name, kind, entry in rows:
        cells = "".join(
            f"<td{' class=best' if entry[key] == best[key] else ''}>{entry[key]:.4f}</td>" for key, _ in _METRICS
        )
        cells += "".join(f"<td>{form.format(entry[key]) if key in entry else ''}</td>" for key, _, form in _MORE)
        words = f"{kind}, of {entry['n']:,} events" if "n" in entry else kind
        lines.append(
            f"<tr class={kind.split()[0]}><th scope=row>{escape(name)}</th><td class=kind>{words}</td>{cells}</tr>"
        )
    return (
        f"<div class=wide><table><thead><tr><th></th><th></th>{head}</tr></thead><tbody>{''.join(lines)}</tbody>"
        "</table></div>"
    )


def _over_stream(result: Mapping[str, Any], key: str, name: str) -> str:
    """Draw recurra, its model, the baselines and the truth; the other parts have plots of their own."""
    timeline = result["timeline"]
    edges = timeline["positions"]
    centres = [(start + end) / 2 for start, end in itertools.pairwise(edges)]
    others = [series for series in timeline["series"] if not series.startswith(_COMPONENT) and series != "recurra"]
    # recurra is drawn last, over the others
    names = [*others, *(series for series in (f"{_COMPONENT}slow", "recurra") if series in timeline["series"])]
    lines = {_shown(series): [point[key] for point in timeline["series"][series]] for series in names}
    styles = {_shown(each): Style(_COLOURS[place % len(_COLOURS)], dashed=True) for place, each in enumerate(others)}
    styles |= {_shown(f"{_COMPONENT}slow"): Style(_SLOW, 2.0), "recurra": Style(_ACCENT, 3.0)}
    styles[_TRUTH] = Style("#7d8694", 1.0)
    return line_plot(f"{name} over the stream", centres, lines, styles, _trainings(result), _drifts(result))


def _trainings(result: Mapping[str, Any]) -> list[Mark]:
    first = result["timeline"]["positions"][0]
    return [
        Mark(
            training["position"],
            training["verdict"],
            f"training after {training['position']:,} events: {training['verdict']}",
            _VERDICT_COLOURS.get(training["verdict"], "#888"),
        )
        for training in result["trainings"]
        if training["position"] >= first
    ]


def _drifts(result: Mapping[str, Any]) -> list[Span]:
    changes = result.get(_TRUTH, {}).get("drifts", [])
    spans = [
        Span(start, end, "stream changed", f"the stream changed at event {start:,} to {end:,}", _CHANGE)
        for start, end in changes
    ]
    return spans + [Span(at, at, "drift found", f"drift found at event {at:,}", _DRIFT) for at in result["drift"]]


def _marks_legend(result: Mapping[str, Any]) -> str:
    counts = ", ".join(f"{escape(name.replace('_', ' '))} {count}" for name, count in result["versions"].items())
    text = f"Versions: {counts}. Triangles on the axis: <b class=yes>promoted</b>, <b class=no>refused</b>."
    text += " Drift found (<b class=drift>red dotted lines</b>): "
    text += (", ".join(f"{at:,}" for at in result["drift"]) or "nowhere") + "."
    if result.get(_TRUTH, {}).get("drifts"):
        text += " What the generator changed: <b class=change>violet</b>."
    return f"<p class=legend>{text}</p>"


def _members(result: Mapping[str, Any]) -> str:
    """Draw by what the mixture chooses: the decayed NDCG@10 of its members on the candidates that it ranks."""
    looks = result["timeline"].get("mix_weights", [])
    lines = {name: [look["ndcg@10"][name] for look in looks] for name in (looks[0]["ndcg@10"] if looks else ())}
    title = "Recent NDCG@10 of every part and of the combination: the best one answers"
    return _looked(result, title, {name: line for name, line in lines.items() if any(line)})


def _weights(result: Mapping[str, Any]) -> str:
    """Draw what the combination learnt: per part the sum of its two weights."""
    looks = result["timeline"].get("mix_weights", [])
    names = looks[0]["weights"] if looks else ()
    lines = {name: [sum(look["weights"][name]) for look in looks] for name in names}
    return _looked(result, "Weights of the parts in the combination", lines)


def _looked(result: Mapping[str, Any], title: str, lines: Mapping[str, Sequence[float]]) -> str:
    if not lines:
        return ""
    names = list(result["timeline"]["mix_weights"][0]["ndcg@10"])
    colours = {name: _COLOURS[place % len(_COLOURS)] for place, name in enumerate(names)}
    # a second round of colours is dashed
    styles = {name: Style(colours[name], 1.5, dashed=names.index(name) >= len(_COLOURS)) for name in lines}
    styles |= {"slow": Style(_SLOW, 2.5), "combination": Style(_ACCENT, 2.5)}
    positions = [look["position"] for look in result["timeline"]["mix_weights"]]
    return line_plot(title, positions, lines, styles, spans=_drifts(result))


def _cohort_bars(result: Mapping[str, Any]) -> str:
    series = result["timeline"]["series"]
    best, _ = _best_baseline(result)
    names = [name for name in ("recurra", f"{_COMPONENT}slow", best, _TRUTH) if name in series]
    cohorts = result["cohorts"]
    groups = [f"{_COHORT_NAMES.get(cohort, cohort)}" for cohort in cohorts]
    bars = {_shown(name): [entry[name]["hr@10"] for entry in cohorts.values()] for name in names}
    styles = {"recurra": Style(_ACCENT), _shown(f"{_COMPONENT}slow"): Style(_SLOW), best: Style("#7d8694")}
    return bar_plot("HR@10 by cohort", groups, bars, styles | {_TRUTH: Style("#b9bfc8")})


def _cohort_table(result: Mapping[str, Any]) -> str:
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
        "<details><summary>All figures by cohort (HR@10)</summary><div class=wide><table><thead><tr><th></th>"
        f"<th>events</th>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div></details>"
    )


def _settings(result: Mapping[str, Any]) -> str:
    text = json.dumps(result["settings"], indent=1)
    return f"<details><summary>Settings</summary><pre>{escape(text)}</pre></details>"


def _best_baseline(result: Mapping[str, Any]) -> tuple[str, Mapping[str, float] | None]:
    # a baseline that was asked about a sample of the events is not compared with the others
    baselines = {name: entry for name, entry in result["baselines"].items() if "n" not in entry}
    if not baselines:
        return "", None
    name = max(baselines, key=lambda each: baselines[each]["hr@10"])
    return name, baselines[name]


def _shown(series: str) -> str:
    return f"{series.removeprefix(_COMPONENT)} (part)" if series.startswith(_COMPONENT) else series


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
figure { margin: 28px 0 } figcaption { font-weight: 600 }
.legend { color: var(--soft); font-size: 13px } .yes { color: #1b998b } .no { color: #c28f00 }
.drift { color: #d9483b } .change { color: #8f5fbf } tr.best th, tr.best td { color: var(--soft) }
pre { overflow-x: auto; font-size: 12px } summary { cursor: pointer }
"""
