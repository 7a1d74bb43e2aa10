"""What the browser tests ask for: one running Tidings with its demo, and a real Chromium that looks at it.

Both share a machine with all other tests, so whatever is expected may take a while.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, ViewportSize, expect, sync_playwright

from tests.integration.test_up import Running, up

QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


WHILE_MS = 30_000
expect.set_options(timeout=WHILE_MS)


class Screens:
    """Opens pages in contexts of their own, as other people's browsers; notes every script that failed."""

    def __init__(self, browser: Browser, running: Running) -> None:
        self._browser, self.running = browser, running
        self.faults: list[str] = []

    def blank(self, *, dark: bool = False, width: int = 1200) -> Page:
        """A page that has not been anywhere."""
        size = ViewportSize(width=width, height=844)
        page = self._browser.new_context(color_scheme="dark" if dark else "light", viewport=size).new_page()
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.set_default_timeout(WHILE_MS)
        return page

    def signed_in(self, token: str | None = None, *, dark: bool = False, width: int = 1200) -> Page:
        """A page that was opened by the printed link, or by somebody else's, and is live."""
        page = self.blank(dark=dark, width=width)
        self.sign_in(page, token)
        return page

    def sign_in(self, page: Page, token: str | None = None) -> None:
        """Open the link."""
        page.goto("about:blank")
        page.goto(f"{self.running.url}/#token={token or self.running.token}")
        expect(page.locator("#status[data-status=live]")).to_be_visible()

    def close(self) -> None:
        """Close all pages."""
        for context in self._browser.contexts:
            context.close()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """`tidings up` in an empty directory."""
    with up(tmp_path_factory.mktemp("up")) as started:
        yield started


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A real browser without a window."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    assert program, "Chromium is needed: apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(QUIET))
        yield browser
        browser.close()


@pytest.fixture
def screens(chromium: Browser, running: Running) -> Iterator[Screens]:
    """Pages of one test; a script that fails anywhere fails the test."""
    made = Screens(chromium, running)
    yield made
    made.close()
    assert made.faults == []
