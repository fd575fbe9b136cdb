"""A real server, a real Chromium, and pages that are watched for faults."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from PIL import Image
from playwright.sync_api import Browser, ConsoleMessage, Page, Playwright, expect, sync_playwright

from benchmarks.server import running_server
from tests.programs import need

PICTURES = Path(__file__).parents[2] / "out" / "browser"
TIMEOUT_MS = 30_000
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
WATCH_POLICY = """
window.violations = [];
addEventListener("securitypolicyviolation", (e) => violations.push(e.violatedDirective + " " + e.blockedURI));
"""


def launch(playwright: Playwright) -> Browser:
    """Start a headless Chromium. Skips where there is none."""
    return playwright.chromium.launch(executable_path=need("chromium"), args=ARGUMENTS)


# Not for the session: while Playwright runs, no other test could start an event loop.
@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=TIMEOUT_MS)
    with sync_playwright() as playwright:
        browser = launch(playwright)
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def server(browser: Browser) -> Iterator[httpx.Client]:
    """A client of the server, which is not started where there is no browser."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    # Without scripts for the browser, built or not: these tests are of what the service does.
    with running_server(PICTURES / "server.log", browser_dir=str(PICTURES / "none")) as (client, _):
        yield client


@dataclass
class Watch:
    """What a page did that it should not have; `expected` are parts of console messages that a test provokes."""

    host: str
    expected: tuple[str, ...] = ()
    faults: list[str] = field(default_factory=list)
    answers: list[tuple[str, int]] = field(default_factory=list)

    def on_console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not any(part in message.text for part in self.expected):
            self.faults.append(f"console: {message.text}")

    def on_request(self, url: str) -> None:
        if urlsplit(url).scheme not in ("blob", "data") and urlsplit(url).netloc != self.host:
            self.faults.append(f"request to {url}")


OpenPage = Callable[..., tuple[Page, Watch]]


@pytest.fixture
def open_page(browser: Browser, server: httpx.Client) -> Iterator[OpenPage]:
    """A function that opens the page in a context with the given options; at the end no page may have had a fault."""
    opened: list[tuple[Page, Watch]] = []

    def make(**options: Any) -> tuple[Page, Watch]:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 860}, **options})
        page = context.new_page()
        page.set_default_timeout(TIMEOUT_MS)
        watch = Watch(urlsplit(str(server.base_url)).netloc)
        page.on("console", watch.on_console)
        page.on("pageerror", lambda error: watch.faults.append(f"exception: {error}"))
        page.on("request", lambda request: watch.on_request(request.url))
        page.on("response", lambda answer: watch.answers.append((urlsplit(answer.url).path, answer.status)))
        page.add_init_script(WATCH_POLICY)
        page.goto(str(server.base_url))
        page.wait_for_selector("#samples button")
        opened.append((page, watch))
        return page, watch

    yield make
    for page, watch in opened:
        faults = watch.faults + page.evaluate("window.violations ?? []")
        page.context.close()
        assert faults == []


@pytest.fixture(scope="session")
def picture(photograph: Any) -> bytes:
    """A PNG of 192x128 pixels."""
    out = BytesIO()
    Image.fromarray(photograph[20:148, 150:342]).save(out, "PNG")
    return out.getvalue()


@pytest.fixture(scope="session")
def large_picture(photograph: Any) -> bytes:
    """A JPEG of 512x600 pixels, of which every step takes a noticeable time."""
    out = BytesIO()
    Image.fromarray(photograph).save(out, "JPEG", quality=90)
    return out.getvalue()
