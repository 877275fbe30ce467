"""Plots of a report in a real browser: narrow and wide, light and dark, without a network."""

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from recurra.simulations.plots import Mark, Span, Style, bar_plot, line_plot
from recurra.simulations.report import write_page

pytestmark = pytest.mark.browser

NAMES = [f"popularity-{number}" for number in range(14)]
STYLES = dict.fromkeys(NAMES, Style("#2e86ab"))
BOXES = """
selector => [...document.querySelectorAll(selector)].map(each => {
  const box = each.getBoundingClientRect();
  return [box.left, box.top, box.right, box.bottom];
})
"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    lines = {name: [place - 2.5, 0.0, place + 0.5] for place, name in enumerate(NAMES)}
    marks = [Mark(120, "promoted", "training after 120 events: promoted", "#1b998b")]
    spans = [Span(150, 150, "drift found", "drift found at event 150", "#d9483b")]
    body = line_plot("Lines", [100, 200, 300], lines, STYLES, marks, spans)
    groups = ["head (the most popular 20 %)", "no gap, or first event", "other users"]
    body += bar_plot("Bars", groups, {name: [0.3, 0.15, 0.0] for name in NAMES[:3]}, STYLES)
    return write_page(tmp_path_factory.mktemp("report"), "report", "A report", body, {}).as_uri()


@pytest.fixture(
    scope="module",
    params=[(1280, "light"), (400, "light"), (400, "dark")],
    ids=lambda param: f"{param[0]}-{param[1]}",
)
def shown(request: pytest.FixtureRequest, browser: Browser, report: str) -> Iterator[Page]:
    """Open the report; it may ask for itself and for nothing else, and must not complain."""
    width, scheme = request.param
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    asked: list[str] = []
    problems: list[str] = []
    page.on("request", lambda sent: asked.append(sent.url))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if message.type in ("error", "warning") else None)
    page.goto(report)
    page.wait_for_function("document.querySelectorAll('.legendtext').length === 14 + 2 + 3")
    yield page
    page.close()
    assert not problems
    assert asked == [report]


def _boxes(page: Page, selector: str) -> list[list[float]]:
    found: list[list[float]] = page.evaluate(BOXES, selector)
    return found


def _apart(one: list[float], other: list[float]) -> bool:
    return one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]


def test_everything_fits_the_window(shown: Page) -> None:
    window = shown.evaluate("[innerWidth, document.documentElement.scrollWidth]")
    assert window[0] == window[1]
    texts = _boxes(shown, ".js-plotly-plot text")
    assert len(texts) > 30
    assert all(left >= 0 and right <= window[0] for left, _, right, _ in texts)


def test_names_do_not_overlap(shown: Page) -> None:
    for plot in ("#plot-lines", "#plot-bars"):
        names = _boxes(shown, f"{plot} .legendtext")
        ticks = _boxes(shown, f"{plot} .xtick text")
        ticks += _boxes(shown, f"{plot} .xtitle")
        assert all(_apart(one, other) for place, one in enumerate(names) for other in [*names[:place], *ticks])
    labels = _boxes(shown, "#plot-bars .ytick text")
    assert len(labels) == 3
    assert all(_apart(one, other) for place, one in enumerate(labels) for other in labels[:place])


def test_lines_lie_inside_the_frame_and_the_axis_has_zero(shown: Page) -> None:
    # the horizontal line at zero goes from one side of the frame to the other
    ((left, zero, right, _),) = _boxes(shown, "#plot-lines .zerolinelayer path")
    # the line of a span has no width
    lines = [box for box in _boxes(shown, "#plot-lines .xy .js-line") if box[2] - box[0] > 1]
    assert len(lines) == 14
    top = min(box[1] for box in lines)
    bottom = max(box[3] for box in lines)
    assert all(left <= box[0] and box[2] <= right for box in lines)
    # the highest value is 13.5 above zero and the lowest 2.5 below it
    assert (zero - top) / (bottom - zero) == pytest.approx(13.5 / 2.5, rel=0.1)
    ticks = shown.locator("#plot-lines .ytick text").all_text_contents()
    assert "0" in ticks


def test_bars_are_as_long_as_their_values(shown: Page) -> None:
    # in points of the picture, by trace
    widths = [right - left for left, _, right, _ in _boxes(shown, "#plot-bars .bars .point path")]
    assert len(widths) == 9
    for longest, half, none in zip(*[iter(widths)] * 3, strict=True):
        assert half == pytest.approx(longest / 2, abs=1.5)
        assert none < 1.5


def test_a_mark_says_what_it_is(shown: Page) -> None:
    ((left, top, right, bottom),) = _boxes(shown, "#plot-lines .points path")
    shown.mouse.move((left + right) / 2, (top + bottom) / 2)
    label = shown.locator("#plot-lines .hoverlayer .hovertext")
    label.wait_for()
    assert label.text_content() == "training after 120 events: promoted"


def test_colours_are_the_pages(shown: Page) -> None:
    def colour(selector: str, what: str) -> Any:
        return shown.evaluate(f"getComputedStyle(document.querySelector({selector!r})).{what}")

    dark = shown.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    assert colour("body", "color") == ("rgb(232, 234, 237)" if dark else "rgb(28, 32, 38)")
    assert colour(".legendtext", "fill") == colour("body", "color")
    assert colour(".xtick text", "fill") == colour(".ytick text", "fill") == colour(".xtitle", "fill")
    assert colour(".main-svg", "backgroundColor") in ("rgba(0, 0, 0, 0)", "transparent")
