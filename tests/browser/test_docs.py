"""The page at /docs in a browser that sees no host but the service."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import OpenPage

pytestmark = pytest.mark.browser


def test_the_documentation_shows_and_tries_a_call(open_page: OpenPage) -> None:
    page, watch = open_page()
    page.goto(page.url + "docs")
    expect(page.locator(".opblock-summary-path").filter(has_text="/encode")).to_have_count(1)
    call = page.locator("#operations-operation-get_version")
    call.locator(".opblock-summary-control").click()
    call.get_by_role("button", name="Try it out").click()
    call.get_by_role("button", name="Execute").click()
    expect(call.locator(".live-responses-table .response").first).to_contain_text("format_version")
    assert ("/version", 200) in watch.answers
