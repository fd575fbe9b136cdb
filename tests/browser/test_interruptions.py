"""What goes wrong or is called off: said in words, and nothing is left behind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from playwright.sync_api import Route, expect

from tests.browser.actions import compress, give, slide, upload
from tests.browser.conftest import PICTURES, OpenPage

pytestmark = pytest.mark.browser


def test_cancel_ends_the_job(open_page: OpenPage, server: httpx.Client, large_picture: bytes) -> None:
    page, _ = open_page()
    upload(page, large_picture, "large.jpg", "image/jpeg")
    slide(page, "#steps", 65)
    slide(page, "#gamma", 0.8)
    with page.expect_response(lambda r: "/decode" in r.url) as answer:
        page.click("#go")
    job = answer.value.json()["id"]
    expect(page.locator("#chip-right")).to_contain_text("of 65")
    expect(page.locator("#cancel")).to_be_focused()
    with page.expect_response(lambda r: r.request.method == "DELETE") as deleted:
        page.keyboard.press("Enter")
    assert deleted.value.json()["state"] == "cancelled"
    expect(page.locator("#error")).to_have_text("Cancelled.")
    expect(page.locator("#go")).to_be_focused()
    expect(page.locator("#results")).to_be_hidden()
    assert server.get(f"/jobs/{job}").json()["state"] == "cancelled"


def test_cancel_while_encoding(open_page: OpenPage, picture: bytes) -> None:
    page, _ = open_page()
    held: list[Route] = []
    page.route("**/encode?*", lambda route: held.append(route))
    upload(page, picture)
    page.click("#go")
    page.click("#cancel")
    expect(page.locator("#error")).to_have_text("Cancelled.")
    page.unroute("**/encode?*")
    compress(page, steps=1)


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("notes.txt", b"not an image", "Choose a PNG, JPEG, WebP"),
        ("broken.cdc", bytes.fromhex("8f4344430d0a1a0a01"), "its end is missing"),
        ("other.cdc", b"nothing of the kind", "Choose a .cdc file"),
    ],
)
def test_what_cannot_be_used_is_said_in_words(open_page: OpenPage, name: str, data: bytes, words: str) -> None:
    page, watch = open_page()
    watch.expected = ("Failed to load resource",)
    upload(page, data, name, "text/plain")
    if not name.endswith(".cdc"):
        expect(page.locator("#error")).to_contain_text("cannot show notes.txt")
        page.click("#go")
    error = page.get_by_role("alert")
    expect(error).to_contain_text(words)
    expect(error).to_contain_text("Request ")
    expect(page.locator("#start")).to_be_visible()
    page.screenshot(path=PICTURES / "error.png")


def test_what_is_no_file_is_said_in_words(open_page: OpenPage) -> None:
    page, _ = open_page()
    upload(page, b"", "empty.png")
    expect(page.get_by_role("alert")).to_contain_text("The file is empty")
    page.evaluate("""() => {
        const dataTransfer = new DataTransfer();
        dataTransfer.setData("text/uri-list", "http://elsewhere.test/photo.png");
        document.body.dispatchEvent(new DragEvent("drop", { bubbles: true, cancelable: true, dataTransfer }));
    }""")
    expect(page.get_by_role("alert")).to_contain_text("That was no file")
    expect(page.locator("#go")).to_be_disabled()


def test_a_target_out_of_reach_and_a_wrong_setting(open_page: OpenPage, picture: bytes) -> None:
    page, watch = open_page()
    watch.expected = ("Failed to load resource",)
    upload(page, picture)
    page.get_by_role("radio", name="Bytes", exact=True).check()
    page.fill("#max_bytes", "40")
    page.click("#go")
    expect(page.get_by_role("alert")).to_contain_text("Allow more bytes, or choose a quality.")
    page.fill("#max_bytes", "2.5")
    page.click("#go")
    expect(page.get_by_role("alert")).to_contain_text("must be a whole number")
    expect(page.locator("#max_bytes")).to_be_focused()
    expect(page.locator("#max_bytes")).to_have_attribute("aria-invalid", "true")
    page.fill("#max_bytes", "2000")
    page.fill("#seed", "9223372036854775808")
    page.click("#go")
    expect(page.get_by_role("alert")).to_contain_text("2^63 - 1")
    page.fill("#seed", "")
    compress(page, steps=1)
    expect(page.get_by_role("alert")).to_be_empty()


def refuse(status: int, name: str, headers: dict[str, str]) -> Callable[[Route], None]:
    body = f'{{"type": "/problems/{name}", "title": "No", "status": {status}, "detail": "not so"}}'
    return lambda route: route.fulfill(
        status=status, body=body, headers={"content-type": "application/problem+json", **headers}
    )


def test_keys_busy_and_silence(open_page: OpenPage, picture: bytes) -> None:
    page, watch = open_page()
    watch.expected = ("Failed to load resource",)
    upload(page, picture)
    alert = page.get_by_role("alert")
    for answer, words in (
        (refuse(401, "no-key", {}), "Enter an API key"),
        (refuse(429, "busy", {"retry-after": "7"}), "Wait 7 seconds"),
        (lambda route: route.abort(), "The service cannot be reached"),
    ):
        page.route("**/encode?*", answer)
        page.click("#go")
        expect(alert).to_contain_text(words)
        page.unroute("**/encode?*")
    page.fill("#key", "secret-key")  # the field is open since the 401
    slide(page, "#steps", 1)
    with page.expect_request("**/encode?*") as sent:
        page.click("#go")
    expect(page.locator("#figures tbody tr")).to_have_count(5)
    assert sent.value.headers["authorization"] == "Bearer secret-key"
    assert page.evaluate("localStorage.length + sessionStorage.length + document.cookie.length") == 0


def test_a_lost_stream_is_taken_up_where_it_broke(open_page: OpenPage) -> None:
    page, _ = open_page()
    seen: Any = page.evaluate("""async () => {
        const { follow } = await import("/playground/events.js");
        const text = (id) => `id: ${id}\\r\\nevent: progress\\r\\ndata: {"step": ${id}}\\r\\n\\r\\n`;
        const broken = ": hello\\n\\n" + text(1) + text(2) + "id: 3\\nevent: pro";
        const bodies = [broken, null, text(3) + "data: a\\ndata: b\\n\\n"];
        const asked = [];
        const open = async (last) => {
            asked.push(last);
            const body = bodies.shift();
            if (body === null) throw new TypeError("no network");
            return new Response(body);
        };
        const events = [];
        for await (const event of follow(open, (event) => event.data === "a\\nb")) events.push(event);
        return [asked, events];
    }""")
    asked, events = seen
    assert asked == ["", "2", "2"]
    assert [(e["id"], e["type"]) for e in events] == [(i, "progress") for i in "123"] + [("3", "message")]


def test_a_refused_stream_is_not_asked_for_again(open_page: OpenPage) -> None:
    page, _ = open_page()
    asked = page.evaluate("""async () => {
        const { follow } = await import("/playground/events.js");
        let asked = 0;
        const open = async () => { asked += 1; throw Object.assign(new Error("gone"), { status: 404 }); };
        try { for await (const event of follow(open, () => false)); } catch {}
        return asked;
    }""")
    assert asked == 1


def test_another_picture_while_one_is_at_work(open_page: OpenPage, large_picture: bytes, picture: bytes) -> None:
    page, watch = open_page()
    upload(page, large_picture, "large.jpg", "image/jpeg")
    slide(page, "#steps", 65)
    slide(page, "#gamma", 0.8)
    page.click("#go")
    expect(page.locator("#chip-right")).to_contain_text("of 65")
    give(page, "drop", "photo.png", "image/png", picture)
    expect(page.locator("#chip-left")).to_contain_text("192 × 128")
    compress(page, steps=1)
    assert len([path for path, _ in watch.answers if path.startswith("/jobs/") and path.count("/") == 2]) == 1
