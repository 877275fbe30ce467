"""Line plots as inline SVG, without a library in the page."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

__all__ = ["Mark", "Style", "line_plot"]

_WIDTH, _HEIGHT = 860, 340
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 170, 16, 40
_LABEL_HEIGHT = 15


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


def line_plot(
    title: str,
    positions: Sequence[float],
    lines: Mapping[str, Sequence[float]],
    styles: Mapping[str, Style],
    marks: Sequence[Mark] = (),
    *,
    across: str = "events of the stream",
) -> str:
    """Return an SVG of several lines over common ``positions``, each labelled at its right end; later lines on top."""
    limits = (min([positions[0], *(mark.position for mark in marks)]), positions[-1]) if positions else (0.0, 1.0)
    frame = _Frame(limits, max((max(values) for values in lines.values() if values), default=1.0) or 1.0)
    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">',
        *frame.axes(across),
    ]
    for mark in marks:
        x = frame.x(mark.position)
        parts.append(
            f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{_HEIGHT - _BOTTOM - 10}" y2="{_HEIGHT - _BOTTOM}" '
            f'stroke="{mark.colour}"><title>{escape(mark.text)}</title></line>'
        )
    for name, values in lines.items():
        style = styles[name]
        points = " ".join(
            f"{frame.x(at):.1f},{frame.y(value):.1f}" for at, value in zip(positions, values, strict=True)
        )
        dash = ' stroke-dasharray="5 4"' if style.dashed else ""
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{style.colour}" stroke-width="{style.width}"{dash}>'
            f"<title>{escape(name)}</title></polyline>"
        )
    parts.extend(_labels(frame, lines, styles))
    parts.append("</svg>")
    return f"<figure><figcaption>{escape(title)}</figcaption>{''.join(parts)}</figure>"


class _Frame:
    """Turns data into picture coordinates; the vertical axis starts at zero."""

    def __init__(self, limits: tuple[float, float], highest: float) -> None:
        self._first, self._last = limits
        self._step = _round_step(highest / 4)
        self._highest = max(highest, self._step) * 1.04

    def x(self, position: float) -> float:
        share = (position - self._first) / max(1e-12, self._last - self._first)
        return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        return _HEIGHT - _BOTTOM - value / self._highest * (_HEIGHT - _TOP - _BOTTOM)

    def axes(self, across: str) -> list[str]:
        parts = []
        value = 0.0
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


def _labels(frame: _Frame, lines: Mapping[str, Sequence[float]], styles: Mapping[str, Style]) -> list[str]:
    """Return the names beside the ends of the lines, moved apart where they would overlap."""
    ends = sorted((frame.y(values[-1]), name) for name, values in lines.items() if values)
    placed: list[float] = []
    for wanted, _ in ends:
        placed.append(max(wanted, placed[-1] + _LABEL_HEIGHT) if placed else wanted)
    overflow = max(0.0, placed[-1] - (_HEIGHT - _BOTTOM)) if placed else 0.0
    limit = float(_HEIGHT - _BOTTOM)
    for place in range(len(placed) - 1, -1, -1):
        # push back up from the lower edge
        if overflow and placed[place] > limit:
            placed[place] = limit
        limit = placed[place] - _LABEL_HEIGHT
    x = _WIDTH - _RIGHT
    return [
        f'<line x1="{x}" x2="{x + 8}" y1="{wanted:.1f}" y2="{y:.1f}" stroke="{styles[name].colour}" stroke-width="1"/>'
        f'<text class="label" x="{x + 12}" y="{y + 4:.1f}" fill="{styles[name].colour}">{escape(name)}</text>'
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
