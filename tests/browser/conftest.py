"""A real browser: Chromium as the system has it, driven by Playwright."""

import os
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

_NAMES = ("chromium", "chromium-browser", "google-chrome")


# not for the session: Playwright keeps an event loop running, and later tests have loops of their own
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Start Chromium; skip with a reason where there is none, unless RECURRA_REQUIRE names it."""
    path = next((found for name in _NAMES if (found := shutil.which(name))), None)
    if path is None:
        reason = f"no browser: none of {', '.join(_NAMES)} is installed"
        if "browser" in os.environ.get("RECURRA_REQUIRE", "").split(","):
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        # the sandbox of Chromium does not start for root, which CI is
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """Open a page; whatever it complains about fails the test."""
    page = browser.new_page(viewport={"width": 1180, "height": 760})
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    yield page
    page.close()
    assert not problems
