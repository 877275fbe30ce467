"""The live page in a real browser, over a real service and the generated stream."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from playwright.sync_api import Page, expect

import recurra
from recurra.connectors.http import Listener, create_app
from recurra.engine import EventClock
from recurra.engine.config import TrainingConfig
from recurra.simulations.demo import Demo, demo_config

pytestmark = pytest.mark.browser


class Shown(NamedTuple):
    engine: recurra.Engine
    demo: Demo
    url: str


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    """Play 600 events of the demonstration and serve its page; nothing is trained."""
    clock = EventClock()
    config = demo_config()
    config = type(config)(training=TrainingConfig(mode="off"), mix=config.mix)
    with recurra.open(tmp_path_factory.mktemp("page"), config, clock=clock) as engine:
        demo = Demo(engine, clock, seed=1)
        _play(demo, 600)
        listener = Listener("127.0.0.1", 0)
        listener.start(create_app(engine, live=demo))
        yield Shown(engine, demo, listener.url)
        listener.close()


def _play(demo: Demo, events: int) -> None:
    demo.play(events, rate=1e9, stopped=threading.Event(), progress=lambda _: None)


def test_the_page_shows_figures_and_follows_them(shown: Shown, page: Page) -> None:
    page.goto(shown.url)
    expect(page.locator("#status")).to_have_text("ok")
    expect(page.locator("#events")).to_have_text(f"{shown.demo.events:,}")
    expect(page.locator("#version")).to_have_text("none yet")
    figures = shown.demo.snapshot()
    expect(page.locator("#hit")).to_have_text(f"{figures.recurra['hr@10']:.3f}")
    expect(page.locator("#hit-other")).to_have_text(f"popularity {figures.popularity['hr@10']:.3f}")
    before = shown.demo.events
    _play(shown.demo, 200)
    expect(page.locator("#events")).to_have_text(f"{before + 200:,}", timeout=10_000)
    expect(page.locator("#hit-chart polyline")).to_have_count(2)


def test_a_list_follows_the_users_last_event(shown: Shown, page: Page) -> None:
    user = "somebody new"
    page.goto(shown.url)
    page.fill("#user", user)
    page.click("text=Show")
    expect(page.locator("#list li")).to_have_count(10)
    expect(page.locator("#note")).to_contain_text("popular")
    expect(page.locator("#history li")).to_have_count(0)
    first = page.locator("#list li span").first.inner_text()
    item = shown.engine.recommend(user, 1).items[0]
    now_ms = shown.engine.history(shown.demo.snapshot().recent_users[-1])[-1].time_ms
    shown.engine.ingest([recurra.Event(user, item, now_ms)])
    # the item that was recommended first was taken: it moves to the history and is not recommended again
    expect(page.locator("#history li span")).to_have_text([first], timeout=10_000)
    assert first not in page.locator("#list li span").all_inner_texts()
    expect(page.locator("#note")).to_contain_text("memory")


def test_ids_are_text_and_never_markup(shown: Shown, page: Page) -> None:
    user = '<img src=x onerror="document.title=1">/../?'
    item = "<b>bold</b>"
    shown.engine.ingest([recurra.Item(item, "<i>title</i>"), recurra.Event(user, item, 1_735_689_600_000)])
    page.goto(shown.url)
    page.fill("#user", user)
    page.click("text=Show")
    expect(page.locator("#history li span")).to_have_text(["<i>title</i>"])
    assert page.title() == "recurra"


def test_a_service_that_went_away_is_said(shown: Shown, page: Page) -> None:
    page.goto(shown.url)
    expect(page.locator("#status")).to_have_text("ok")
    page.evaluate("() => { window.fetch = () => Promise.reject(new Error('away')); }")
    expect(page.locator("#status")).to_have_text("not reachable", timeout=10_000)


@pytest.mark.parametrize("width", [1180, 420])
def test_nothing_sticks_out(shown: Shown, page: Page, width: int, tmp_path: Path) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    page.goto(shown.url)
    expect(page.locator("#list li")).to_have_count(10)
    page.screenshot(path=tmp_path / "page.png")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    wide = "[...document.querySelectorAll('.card')].filter(c => c.scrollWidth > c.clientWidth + 1).length"
    assert page.evaluate(wide) == 0
