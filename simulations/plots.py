"""Plots as inline SVG, without a library in the page."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

__all__ = ["Mark", "Span", "Style", "bar_plot", "line_plot"]

_WIDTH, _HEIGHT = 860, 340
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 170, 16, 40
_LABEL_HEIGHT = 15
_BAR_HEIGHT, _GROUP_GAP, _BAR_LEFT, _BAR_RIGHT = 13, 14, 210, 60


class Style(NamedTuple):
    """How a line is drawn: a CSS colour, its width and whether it is dashed."""

    colour: str
    width: float = 1.5
    dashed: bool = False


class Mark(NamedTuple):
    """A tick on the axis at a position of the stream, with the text that appears when it is pointed at."""

    position: float
    text: str
    colour: str


class Span(NamedTuple):
    """A part of the stream that is shaded, or a dashed line across the plot where it ends as it starts; with a text."""

    start: float
    end: float
    text: str
    colour: str


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
    """Return an SVG of several lines over common ``positions``, each labelled at its right end; later lines on top.

    The vertical axis includes zero. Marks widen the horizontal axis, of spans only what is on it is shown.
    """
    limits = (min([positions[0], *(mark.position for mark in marks)]), positions[-1]) if positions else (0.0, 1.0)
    values = [value for line in lines.values() for value in line]
    frame = _Frame(limits, min(values, default=0.0), max(values, default=1.0))
    parts = [*_opened(title, _HEIGHT), *(_span(frame, span) for span in spans), *frame.axes(across)]
    for mark in marks:
        x = frame.x(mark.position)
        parts.append(
            f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{_HEIGHT - _BOTTOM - 10}" y2="{_HEIGHT - _BOTTOM}" '
            f'stroke="{mark.colour}"><title>{escape(mark.text)}</title></line>'
        )
    for name, line in lines.items():
        style = styles[name]
        points = " ".join(f"{frame.x(at):.1f},{frame.y(value):.1f}" for at, value in zip(positions, line, strict=True))
        dash = ' stroke-dasharray="5 4"' if style.dashed else ""
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{style.colour}" stroke-width="{style.width}"{dash}>'
            f"<title>{escape(name)}</title></polyline>"
        )
    return "".join([*parts, *_labels(frame, lines, styles), "</svg></figure>"])


def bar_plot(
    title: str, groups: Sequence[str], bars: Mapping[str, Sequence[float]], styles: Mapping[str, Style]
) -> str:
    """Return an SVG of horizontal bars: per group one bar of every name, its value beside it; zero is at the left."""
    highest = max((value for values in bars.values() for value in values), default=0.0) or 1.0
    group_height = _BAR_HEIGHT * len(bars) + _GROUP_GAP
    parts = _opened(title, 24 + group_height * len(groups))
    x = float(_BAR_LEFT)
    for name in bars:
        parts.append(f'<rect x="{x}" y="2" width="10" height="10" fill="{styles[name].colour}"/>')
        parts.append(f'<text class="label" x="{x + 15}" y="11">{escape(name)}</text>')
        # a letter is about 7 wide
        x += 38 + 7 * len(name)
    for place, group in enumerate(groups):
        top = 24 + group_height * place
        middle = top + _BAR_HEIGHT * len(bars) / 2 + 4
        parts.append(f'<text class="label" x="{_BAR_LEFT - 10}" y="{middle}" text-anchor="end">{escape(group)}</text>')
        for row, (name, values) in enumerate(bars.items()):
            y, width = top + row * _BAR_HEIGHT, values[place] / highest * (_WIDTH - _BAR_LEFT - _BAR_RIGHT)
            parts.append(
                f'<rect class="bar" x="{_BAR_LEFT}" y="{y}" width="{width:.1f}" height="{_BAR_HEIGHT - 2}" '
                f'fill="{styles[name].colour}"><title>{escape(f"{name}, {group}")}</title></rect>'
                f'<text class="tick" x="{_BAR_LEFT + width + 5:.1f}" y="{y + 9.5}">{values[place]:.3f}</text>'
            )
    return "".join([*parts, "</svg></figure>"])


def _opened(title: str, height: int) -> list[str]:
    return [
        f"<figure><figcaption>{escape(title)}</figcaption>",
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(title)}">',
    ]


class _Frame:
    """Turns data into picture coordinates."""

    def __init__(self, limits: tuple[float, float], lowest: float, highest: float) -> None:
        self._first, self._last = limits
        lowest, highest = min(lowest, 0.0), max(highest, 0.0)
        self._step = _round_step((highest - lowest or 1.0) / 4)
        self._highest = max(highest, lowest + self._step) + 0.04 * (highest - lowest)
        # the axis begins at a round figure
        self._lowest = lowest // self._step * self._step

    def x(self, position: float) -> float:
        share = (position - self._first) / max(1e-12, self._last - self._first)
        return _LEFT + min(max(share, 0.0), 1.0) * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        share = (value - self._lowest) / (self._highest - self._lowest)
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)

    def shows(self, start: float, end: float) -> bool:
        return end >= self._first and start <= self._last

    def axes(self, across: str) -> list[str]:
        parts = []
        value = self._lowest
        while value <= self._highest:
            y = self.y(value)
            parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
            parts.append(f'<text class="tick" x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{value:.4g}</text>')
            value = round(value + self._step, 10)
        step = _round_step((self._last - self._first) / 5)
        tick = -(-self._first // step) * step
        while tick <= self._last:
            x = self.x(tick)
            parts.append(
                f'<text class="tick" x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle">{tick:,.0f}</text>'
            )
            tick += step
        middle = (_LEFT + _WIDTH - _RIGHT) / 2
        parts.append(f'<text class="tick" x="{middle}" y="{_HEIGHT - 4}" text-anchor="middle">{escape(across)}</text>')
        return parts


def _span(frame: _Frame, span: Span) -> str:
    if not frame.shows(span.start, span.end):
        return ""
    left, right = frame.x(span.start), frame.x(span.end)
    text, bottom = escape(span.text), _HEIGHT - _BOTTOM
    if span.start == span.end:
        return (
            f'<line class="span" x1="{left:.1f}" x2="{left:.1f}" y1="{_TOP}" y2="{bottom}" stroke="{span.colour}" '
            f'stroke-dasharray="2 3"><title>{text}</title></line>'
        )
    return (
        f'<rect class="span" x="{left:.1f}" width="{right - left:.1f}" y="{_TOP}" height="{bottom - _TOP}" '
        f'fill="{span.colour}" fill-opacity=".12"><title>{text}</title></rect>'
    )


def _labels(frame: _Frame, lines: Mapping[str, Sequence[float]], styles: Mapping[str, Style]) -> list[str]:
    """Return the names beside the ends of the lines, moved apart where they would overlap."""
    ends = sorted((frame.y(values[-1]), name) for name, values in lines.items() if values)
    placed: list[float] = []
    for wanted, _ in ends:
        placed.append(max(wanted, placed[-1] + _LABEL_HEIGHT) if placed else wanted)
    limit = float(_HEIGHT - _BOTTOM)
    for place in range(len(placed) - 1, -1, -1):
        # push back up from the lower edge
        placed[place] = min(placed[place], limit)
        limit = placed[place] - _LABEL_HEIGHT
    x = _WIDTH - _RIGHT
    return [
        f'<line x1="{x}" x2="{x + 8}" y1="{wanted:.1f}" y2="{y:.1f}" stroke="{styles[name].colour}" stroke-width="1"/>'
        f'<text class="label" x="{x + 12}" y="{y + 4:.1f}" style="fill:{styles[name].colour}">{escape(name)}</text>'
        for (wanted, name), y in zip(ends, placed, strict=True)
    ]


def _round_step(step: float) -> float:
    """Return 1, 2 or 5 times a power of ten, near ``step``."""
    power = 1.0
    step = max(step, 1e-9)
    while power > step:
        power /= 10
    while power * 10 <= step:
        power *= 10
    return next((factor * power for factor in (1, 2, 5) if factor * power >= step * 0.8), 10 * power)
