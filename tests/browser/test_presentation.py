"""How the page presents itself: dark, narrow, still, and to assistive technology."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser.actions import compress, upload
from tests.browser.conftest import PICTURES, OpenPage

pytestmark = pytest.mark.browser

WIDTH = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
GROUND = "getComputedStyle(document.documentElement).backgroundColor.match(/\\d+/g).slice(0, 3).map(Number)"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark(open_page: OpenPage, picture: bytes, scheme: str) -> None:
    page, _ = open_page(color_scheme=scheme)
    levels = page.evaluate(GROUND)
    assert (max(levels) < 40) if scheme == "dark" else (min(levels) > 220)
    page.screenshot(path=PICTURES / f"{scheme}-start.png")
    upload(page, picture)
    compress(page, steps=1)
    page.screenshot(path=PICTURES / f"{scheme}-done.png", full_page=True)


@pytest.mark.parametrize("width", [320, 390])
def test_nothing_sticks_out_on_a_phone(open_page: OpenPage, picture: bytes, width: int) -> None:
    page, _ = open_page(viewport={"width": width, "height": 780}, is_mobile=True, has_touch=True, device_scale_factor=2)
    assert page.evaluate(WIDTH) == 0
    page.screenshot(path=PICTURES / f"phone-{width}-start.png")
    upload(page, picture)
    page.tap("text=API key")
    assert page.evaluate(WIDTH) == 0
    expect(page.locator("#go")).to_be_in_viewport()
    compress(page, steps=1)
    assert page.evaluate(WIDTH) == 0
    expect(page.locator("#stage")).to_be_in_viewport()
    page.screenshot(path=PICTURES / f"phone-{width}-done.png", full_page=True)


def test_nothing_moves_where_motion_is_not_wanted(open_page: OpenPage) -> None:
    moving = "getComputedStyle(document.querySelector('#bar span')).animationName"
    show = "document.getElementById('bar').classList.add('unknown')"
    page, _ = open_page(reduced_motion="reduce")
    page.evaluate(show)
    assert page.evaluate(moving) == "none"
    page, _ = open_page(reduced_motion="no-preference")
    page.evaluate(show)
    assert page.evaluate(moving) == "pass"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(open_page: OpenPage, picture: bytes, scheme: str) -> None:
    pytest.importorskip("axe_playwright_python", reason="axe-core is not installed (axe-playwright-python)")
    page, watch = open_page(color_scheme=scheme)
    watch.expected = ("Failed to load resource",)
    assert serious(page) == []
    upload(page, b"not an image", "notes.txt", "text/plain")
    page.click("text=API key")
    page.click("#go")
    expect(page.get_by_role("alert")).to_contain_text("Choose a PNG")
    assert serious(page) == []
    upload(page, picture)
    compress(page, steps=1)
    assert serious(page) == []


def test_axe_would_find_something(open_page: OpenPage) -> None:
    pytest.importorskip("axe_playwright_python", reason="axe-core is not installed (axe-playwright-python)")
    page, _ = open_page()
    page.locator("label[for=seed]").evaluate("e => e.remove()")
    page.locator("#seed").evaluate("e => e.removeAttribute('placeholder')")
    assert [finding["rule"] for finding in serious(page)] == ["label"]


def serious(page: Page) -> list[dict[str, Any]]:
    """Findings of axe-core that are serious or critical: rule and places."""
    from axe_playwright_python.sync_playwright import Axe

    page.mouse.move(1, 1)
    page.wait_for_timeout(300)  # colours in transition have no contrast of their own
    findings = Axe().run(page).response["violations"]
    return [
        {"rule": f["id"], "places": [n["target"] for n in f["nodes"]]}
        for f in findings
        if f["impact"] in ("serious", "critical")
    ]
