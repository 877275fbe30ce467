"""A page for ADER's protocol: the figures and the seconds of every period, beside the published means."""

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from .plots import Style, line_plot
from .report import write_page

__all__ = ["PUBLISHED", "write_ader_report"]

# DIGINETICA, SASRec, mean over 16 periods (arXiv 2007.12000)
PUBLISHED = {
    "recall@20": {"ADER": 0.5021, "joint": 0.5003, "fine-tuning": 0.4728},
    "recall@10": {"ADER": 0.3752, "joint": 0.3727, "fine-tuning": 0.3500},
    "mrr@20": {"ADER": 0.1732, "joint": 0.1731, "fine-tuning": 0.1601},
}
_NAMES = {"recall@20": "Recall@20", "recall@10": "Recall@10", "mrr@20": "MRR@20"}
_OURS = Style("#e4572e", 3.0)
# what the softmax says alone, as it was published
_ALONE = "without bonus"
_STYLES = {
    "ADER": Style("#2e86ab", dashed=True),
    "joint": Style("#1b998b", dashed=True),
    "fine-tuning": Style("#7d8694", dashed=True),
    _ALONE: Style("#e4572e", 1.0),
}


def write_ader_report(result: Mapping[str, Any], directory: str | Path) -> Path:
    """Write ``ader.json`` and ``index.html`` into ``directory``; return the page's path."""
    title = f"recurra evaluate: {result['dataset']}, {result['strategy']}"
    return write_page(directory, "ader", title, _body(result), result)


def _body(result: Mapping[str, Any]) -> str:
    periods = [entry["period"] for entry in result["periods"]]
    strategy = result["strategy"]
    parts = [f"<h1>{escape(result['dataset'])}</h1><p class='lead'>{escape(_lead(result))}</p>", _table(result)]
    for key, published in PUBLISHED.items():
        lines = {f"{name}, mean": [value] * len(periods) for name, value in published.items()}
        styles = {f"{name}, mean": _STYLES[name] for name in published} | {_ALONE: _STYLES[_ALONE]}
        lines[_ALONE] = [entry["without_bonus"][key] for entry in result["periods"]]
        lines[strategy] = [entry[key] for entry in result["periods"]]
        title = f"{_NAMES[key]} by period, and published means (SASRec)"
        parts.append(line_plot(title, periods, lines, styles | {strategy: _OURS}, across="period"))
    for key, name in (("seconds", "Seconds of training"), ("trained_events", "Events to learn from")):
        lines = {strategy: [entry[key] for entry in result["periods"]]}
        parts.append(line_plot(f"{name} by period", periods, lines, {strategy: _OURS}, across="period"))
    return "".join(parts)


def _lead(result: Mapping[str, Any]) -> str:
    mean = result["mean"]
    ours, alone = (
        ", ".join(f"{name} {part[key]:.4f}" for key, name in _NAMES.items()) for part in (mean, mean["without_bonus"])
    )
    return (
        f"{result['strategy']}, mean of {len(result['periods'])} periods: {ours}, {mean['seconds']:.0f} s a period. "
        f"Without the bonus for what a session had before: {alone}."
    )


def _table(result: Mapping[str, Any]) -> str:
    columns = {
        "period": "{}",
        **dict.fromkeys(_NAMES, "{:.4f}"),
        "items": "{:,}",
        "targets": "{:,}",
        "seconds": "{:.0f}",
    }
    head = "".join(f"<th>{_NAMES.get(key, key)}</th>" for key in columns)
    rows = "".join(
        "<tr>" + "".join(f"<td>{form.format(entry[key])}</td>" for key, form in columns.items()) + "</tr>"
        for entry in result["periods"]
    )
    return f"<div class=wide><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
