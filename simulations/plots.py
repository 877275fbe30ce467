"""Plots of a report, drawn by Plotly: lines over a stream with marks and spans, bars by group.

A plot is a piece of HTML. Its page needs Plotly's script once, embedded (`plotly_script`): nothing is fetched.
Grounds are transparent, and `PLOT_CSS` gives text and grid the colours of the page, light or dark.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

import plotly.graph_objects as go
from plotly.colors import hex_to_rgb
from plotly.offline import get_plotlyjs

__all__ = ["PLOT_CSS", "Mark", "Span", "Style", "bar_plot", "line_plot", "plotly_script"]

# a name takes half a line of the legend on a telephone
_HEIGHT, _NAME_HEIGHT = 330, 10
_BAR_HEIGHT, _GROUP_GAP = 15, 16
# readable on light and dark ground where no style sheet reaches: a picture saved from the page
_TEXT, _GRID = "#7d8694", "rgba(125, 134, 148, 0.3)"
_CONFIG = {
    "displaylogo": False,
    # its box would cover the lines
    "displayModeBar": False,
    # no button that sends a plot away
    "plotlyServerURL": "",
    "responsive": True,
}

# the variables --ink, --soft, --line and --ground are the page's
PLOT_CSS = """
.js-plotly-plot .legendtext { fill: var(--ink) !important }
.js-plotly-plot :is(.xtick, .ytick, .bartext, .xtitle) { fill: var(--soft) !important }
.js-plotly-plot :is(.xtick text, .ytick text) { fill: var(--soft) !important }
.js-plotly-plot .gridlayer path { stroke: var(--line) !important }
.js-plotly-plot .zerolinelayer path { stroke: var(--soft) !important; stroke-opacity: .6 }
"""


class Style(NamedTuple):
    """How a line is drawn: a colour (#rrggbb), its width and whether it is dashed."""

    colour: str
    width: float = 1.5
    dashed: bool = False


class Mark(NamedTuple):
    """A triangle on the axis at a position of the stream; the legend has its kind, the text appears when pointed at."""

    position: float
    kind: str
    text: str
    colour: str


class Span(NamedTuple):
    """A part of the stream that is shaded, or a dotted line where it ends as it starts; kind and text as of a mark."""

    start: float
    end: float
    kind: str
    text: str
    colour: str


def plotly_script() -> str:
    """Return the script that draws every plot of a page, 5 MB, for the page's head."""
    return f"<script>window.PlotlyConfig = {{MathJaxConfig: 'local'}};</script><script>{get_plotlyjs()}</script>"


def line_plot(
    title: str,
    positions: Sequence[float],
    lines: Mapping[str, Sequence[float]],
    styles: Mapping[str, Style],
    marks: Sequence[Mark] = (),
    spans: Sequence[Span] = (),
    *,
    across: str = "events of the stream",
) -> str:
    """Return the plot of several lines over common ``positions``; later lines on top.

    The vertical axis includes zero. Marks widen the horizontal axis, of spans only what is on it is shown.
    """
    first, last = (min([positions[0], *(mark.position for mark in marks)]), positions[-1]) if positions else (0.0, 1.0)
    shown = [span for span in spans if span.end >= first and span.start <= last]
    clipped = [span._replace(start=max(span.start, first), end=min(span.end, last)) for span in shown]
    traces = [*_spans(clipped), *(_line(name, positions, line, styles[name]) for name, line in lines.items())]
    traces += _marks(marks)
    # half a mark at both ends
    margin = 0.01 * (last - first or 1.0)
    layout = {
        "xaxis": {
            **_AXIS,
            "title": {"text": across, "standoff": 8, "font": {"size": 12}},
            "range": [first - margin, last + margin],
        },
        "yaxis": {**_AXIS, "rangemode": "tozero", "zeroline": True, "zerolinecolor": _GRID},
        # marks and spans have their height in shares of the plot
        "yaxis2": {"overlaying": "y", "range": [0, 1], "visible": False, "fixedrange": True},
    }
    if last - first <= 6:
        # a count of periods has no halves
        layout["xaxis"]["dtick"] = 1
    return _figure(title, traces, layout, _HEIGHT + _NAME_HEIGHT * len(traces))


def bar_plot(
    title: str, groups: Sequence[str], bars: Mapping[str, Sequence[float]], styles: Mapping[str, Style]
) -> str:
    """Return the plot of horizontal bars: per group one bar of every name, its value beside it; zero is at the left."""
    highest = max((value for values in bars.values() for value in values), default=0.0) or 1.0
    # what a group's name has in brackets has a line to itself
    names = [escape(group).replace(" (", "<br>(") for group in groups]
    traces = [
        go.Bar(
            name=escape(name),
            x=list(values),
            y=names,
            orientation="h",
            marker={"color": styles[name].colour},
            text=[f"{value:.3f}" for value in values],
            textposition="outside",
            cliponaxis=False,
            hovertemplate="%{y}: %{x:.4f}",
        )
        for name, values in bars.items()
    ]
    layout = {
        # room for the value beside the longest bar
        "xaxis": {**_AXIS, "range": [0, 1.25 * highest], "fixedrange": True},
        "yaxis": {**_AXIS, "autorange": "reversed", "fixedrange": True, "showgrid": False, "dtick": 1},
        "bargap": _GROUP_GAP / (_GROUP_GAP + _BAR_HEIGHT * max(1, len(bars))),
    }
    height = 90 + (_GROUP_GAP + _BAR_HEIGHT * len(bars)) * len(groups)
    return _figure(title, traces, layout, height)


_AXIS: dict[str, Any] = {
    "automargin": True,
    "exponentformat": "none",
    "gridcolor": _GRID,
    "nticks": 6,
    "separatethousands": True,
    "zeroline": False,
}


def _line(name: str, positions: Sequence[float], values: Sequence[float], style: Style) -> Any:
    return go.Scatter(
        name=escape(name),
        x=list(positions),
        y=list(values),
        mode="lines",
        line={"color": style.colour, "width": style.width, "dash": "5px,4px" if style.dashed else "solid"},
        hovertemplate="%{y:.4~f} at %{x:,.0f}",
    )


def _marks(marks: Iterable[Mark]) -> list[Any]:
    kinds: dict[str, list[Mark]] = {}
    for mark in marks:
        kinds.setdefault(mark.kind, []).append(mark)
    return [
        go.Scatter(
            name=escape(kind),
            x=[mark.position for mark in of_kind],
            y=[0.02] * len(of_kind),
            yaxis="y2",
            mode="markers",
            marker={"symbol": "triangle-up", "size": 11, "color": of_kind[0].colour},
            text=[escape(mark.text) for mark in of_kind],
            hovertemplate="%{text}<extra></extra>",
        )
        for kind, of_kind in kinds.items()
    ]


def _spans(spans: Iterable[Span]) -> list[Any]:
    kinds: dict[str, list[Span]] = {}
    for span in spans:
        kinds.setdefault(span.kind, []).append(span)
    return [
        go.Scatter(
            name=escape(kind),
            # around every span; a gap ends it
            x=[at for span in of_kind for at in (span.start, span.start, span.end, span.end, None)],
            y=[0, 1, 1, 0, None] * len(of_kind),
            yaxis="y2",
            mode="lines",
            line={"color": of_kind[0].colour, "width": 1.5, "dash": "2px,3px"},
            fill="toself",
            fillcolor="rgba({}, {}, {}, 0.14)".format(*hex_to_rgb(of_kind[0].colour)),
            hoveron="points",
            text=[text for span in of_kind for text in [escape(span.text)] * 4 + [""]],
            hovertemplate="%{text}<extra></extra>",
        )
        for kind, of_kind in kinds.items()
    ]


def _figure(title: str, traces: Sequence[Any], layout: Mapping[str, Any], height: int) -> str:
    figure = go.Figure(
        data=list(traces),
        layout={
            "template": "none",
            "height": height,
            "margin": {"l": 8, "r": 8, "t": 24, "b": 8},
            "paper_bgcolor": "rgba(0, 0, 0, 0)",
            "plot_bgcolor": "rgba(0, 0, 0, 0)",
            "font": {"family": "system-ui, sans-serif", "size": 12, "color": _TEXT},
            "hovermode": "closest",
            # a finger that moves over the plot scrolls the page
            "dragmode": False,
            "showlegend": True,
            "legend": {"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom", "x": 0},
            **layout,
        },
    )
    name = re.sub(r"\W+", "-", title.lower()).strip("-")
    drawn = figure.to_html(full_html=False, include_plotlyjs=False, config=_CONFIG, div_id=f"plot-{name}")
    return f"<figure><figcaption>{escape(title)}</figcaption>{drawn}</figure>"
