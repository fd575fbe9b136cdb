"""The web page in a real browser, against a real server."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, Route, expect

from tests.browser.conftest import PICTURES, OpenPage

pytestmark = pytest.mark.browser

# A file comes in as by drag and drop, or from the clipboard.
TRANSFER = """([kind, name, type, base64]) => {
    const transfer = new DataTransfer();
    transfer.items.add(new File([Uint8Array.from(atob(base64), (c) => c.charCodeAt(0))], name, { type }));
    const options = { bubbles: true, cancelable: true };
    const event = kind === "drop"
        ? new DragEvent("drop", { ...options, dataTransfer: transfer })
        : new ClipboardEvent("paste", { ...options, clipboardData: transfer });
    document.body.dispatchEvent(event);
}"""
WIDTH = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


def give(page: Page, kind: str, name: str, type: str, data: bytes) -> None:
    page.evaluate(TRANSFER, [kind, name, type, base64.b64encode(data).decode()])


def upload(page: Page, data: bytes, name: str = "photo.png", type: str = "image/png") -> None:
    page.set_input_files("#file", {"name": name, "mimeType": type, "buffer": data})


def slide(page: Page, selector: str, value: float) -> None:
    page.locator(selector).fill(str(value))


def compress(page: Page, steps: int = 2) -> None:
    """Press the button and wait for the whole result."""
    slide(page, "#steps", steps)
    page.click("#go")
    expect(page.locator("#figures tbody tr")).to_have_count(3)
    expect(page.locator("#cancel")).to_be_hidden()


def cells(page: Page, row: int) -> list[str]:
    return page.locator(f"#figures tbody tr:nth-child({row}) > *").all_inner_texts()


def test_a_photograph_goes_through(open_page: OpenPage, server: httpx.Client, picture: bytes) -> None:
    page, watch = open_page()
    upload(page, picture)
    expect(page.locator("#chip-left")).to_contain_text("192 × 128")
    slide(page, "#quality", 60)
    slide(page, "#steps", 2)
    slide(page, "#gamma", 0)
    page.fill("#seed", "7")
    page.click("#go")
    expect(page.locator("#figures tbody tr")).to_have_count(3)
    file = server.post("/encode", params={"quality": 60}, content=picture, headers={"Content-Type": "image/png"})
    name, size, bpp, distortion = cells(page, 2)
    assert (name, int(size.replace(",", ""))) == ("CDC", len(file.content))
    assert float(bpp) == pytest.approx(8 * len(file.content) / (192 * 128), abs=0.001)
    assert 15 < float(distortion.removesuffix(" dB")) < 50
    facts = page.inner_text("#facts")
    assert re.search(r"Steps\s+2\s+Gamma\s+0\s+Seed\s+7", facts), facts
    assert re.search(r"Encode\s+[\d.]+ m?s.*Decode\s+[\d.]+ m?s", page.inner_text("#times"), re.S)
    with page.expect_download() as kept:
        page.click("#download-cdc")
    assert kept.value.suggested_filename == "photo.cdc"
    assert kept.value.path().read_bytes() == file.content
    with page.expect_download() as kept:
        page.click("#download-png")
    assert kept.value.path().read_bytes()[:4] == b"\x89PNG"
    page.screenshot(path=PICTURES / "done.png", full_page=True)
    assert [status for path, status in watch.answers if path == "/decode"] == [202]


def test_the_psnr_is_that_of_the_pixels(open_page: OpenPage) -> None:
    page, _ = open_page()
    measured = page.evaluate("""async () => {
        const { psnr } = await import("/playground/picture.js");
        const grey = (level) => {
            const canvas = Object.assign(document.createElement("canvas"), { width: 1500, height: 1000 });
            const context = canvas.getContext("2d");
            context.fillStyle = `rgb(${level} ${level} ${level})`;
            context.fillRect(0, 0, 1500, 1000);
            return canvas;
        };
        return [await psnr(grey(100), grey(110)), await psnr(grey(5), grey(5)) === Infinity];
    }""")
    assert measured == [pytest.approx(20 * math.log10(255 / 10)), True]


def test_the_jpeg_has_at_most_as_many_bytes(open_page: OpenPage, picture: bytes) -> None:
    page, _ = open_page()
    upload(page, picture)
    slide(page, "#quality", 90)
    compress(page, steps=1)
    own, rival = (int(cells(page, row)[1].replace(",", "")) for row in (2, 3))
    assert 0.6 * own < rival <= own
    expect(page.locator("#note")).to_contain_text("the best this browser makes")
    page.select_option("#left", "jpeg")
    expect(page.locator("#chip-left")).to_contain_text("JPEG")
    expect(page.locator("#canvas-jpeg")).to_be_visible()
    expect(page.locator("#canvas-original")).to_be_hidden()
    page.select_option("#right", "jpeg")
    expect(page.locator("#left")).to_have_value("original")


def test_a_file_smaller_than_any_jpeg_is_said_in_words(open_page: OpenPage, large_picture: bytes) -> None:
    page, _ = open_page()
    upload(page, large_picture, "large.jpg", "image/jpeg")
    slide(page, "#quality", 1)
    compress(page, steps=1)
    own, rival = (int(cells(page, row)[1].replace(",", "")) for row in (2, 3))
    assert own < rival
    expect(page.locator("#note")).to_contain_text(f"takes {rival / own:.1f} times the bytes")


@pytest.mark.parametrize(("target", "value", "most"), [("Bytes", "1500", 1500), ("Bits per pixel", "0.3", 1014)])
def test_a_size_can_be_asked_for(open_page: OpenPage, picture: bytes, target: str, value: str, most: int) -> None:
    page, _ = open_page()
    upload(page, picture)
    page.get_by_role("radio", name=target, exact=True).check()
    page.get_by_role("spinbutton").fill(value)
    compress(page, steps=1)
    assert 0.8 * most < int(cells(page, 2)[1].replace(",", "")) <= most


def test_previews_are_seen_before_the_result(open_page: OpenPage, large_picture: bytes) -> None:
    page, _ = open_page()
    upload(page, large_picture, "large.jpg", "image/jpeg")
    slide(page, "#steps", 4)
    page.click("#go")
    expect(page.locator("#chip-right")).to_contain_text("of 4")
    expect(page.locator("#results")).to_be_hidden()
    shades = page.evaluate("""() => {
        const canvas = document.getElementById("canvas-cdc");
        const { data } = canvas.getContext("2d").getImageData(0, 300, canvas.width, 1);
        return [canvas.width, canvas.height, new Set(data).size];
    }""")
    assert shades[:2] == [512, 600]
    assert shades[2] > 32
    bar = page.locator("#bar")
    expect(bar).to_have_attribute("aria-valuetext", re.compile(r"step \d of 4"))
    page.screenshot(path=PICTURES / "preview.png")
    expect(page.locator("#figures tbody tr")).to_have_count(3)


def test_the_divider_by_mouse_and_keyboard(open_page: OpenPage, picture: bytes) -> None:
    page, _ = open_page()
    upload(page, picture)
    compress(page, steps=1)
    divider = page.get_by_role("slider", name="Divider: Original on the left, CDC on the right")
    stage = page.locator("#stage").bounding_box()
    grip = divider.bounding_box()
    assert stage is not None
    assert grip is not None
    expect(divider).to_have_attribute("aria-valuenow", "50")
    before = page.locator("#canvas-cdc").evaluate("e => e.style.clipPath")
    page.mouse.move(grip["x"] + grip["width"] / 2, grip["y"] + grip["height"] / 2)
    page.mouse.down()
    page.mouse.move(stage["x"] + 0.25 * stage["width"], stage["y"] + 30, steps=4)
    page.mouse.up()
    expect(divider).to_have_attribute("aria-valuenow", "25")
    assert page.locator("#canvas-cdc").evaluate("e => e.style.clipPath") != before
    page.mouse.move(stage["x"] + 5, stage["y"] + 30)
    expect(divider).to_have_attribute("aria-valuenow", "25")  # let go
    for key, value in (
        ("ArrowRight", 26),
        ("ArrowLeft", 25),
        ("Shift+ArrowRight", 35),
        ("PageDown", 25),
        ("Home", 0),
        ("End", 100),
    ):
        divider.press(key)
        expect(divider).to_have_attribute("aria-valuenow", str(value))


def test_zoom_and_pan(open_page: OpenPage, picture: bytes) -> None:
    page, _ = open_page()
    upload(page, picture)
    stage, zoom = page.locator("#stage"), page.locator("#zoom")
    page.click("#zoom-one")
    expect(zoom).to_have_text("100 %")
    page.click("#zoom-in")
    expect(zoom).to_have_text("125 %")
    stage.focus()
    stage.press("-")
    expect(zoom).to_have_text("100 %")
    stage.hover()
    page.mouse.wheel(0, -2000)
    world = page.locator("#world")
    far = world.evaluate("e => e.style.transform")
    assert int(zoom.inner_text().split()[0]) > 1000
    for key in ("ArrowRight", "ArrowDown"):
        stage.press(key)
        moved = world.evaluate("e => e.style.transform")
        assert moved != far
        far = moved
    box = stage.bounding_box()
    assert box is not None
    page.mouse.down()
    page.mouse.move(box["x"] + 50, box["y"] + 50, steps=3)
    page.mouse.up()
    assert world.evaluate("e => e.style.transform") != far
    stage.press("0")
    assert page.evaluate("""() => {
        const box = (id) => document.getElementById(id).getBoundingClientRect();
        const [outer, inner] = ["stage", "canvas-original"].map(box);
        return inner.left >= outer.left - 1 && inner.right <= outer.right + 1 && inner.bottom <= outer.bottom + 1;
    }""")


def test_cancel_ends_the_job(open_page: OpenPage, server: httpx.Client, large_picture: bytes) -> None:
    page, _ = open_page()
    upload(page, large_picture, "large.jpg", "image/jpeg")
    slide(page, "#steps", 65)
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
        ("notes.txt", b"not a picture", "Choose a PNG, JPEG, WebP"),
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
    expect(page.locator("#figures tbody tr")).to_have_count(3)
    assert sent.value.headers["authorization"] == "Bearer secret-key"
    assert page.evaluate("localStorage.length + sessionStorage.length + document.cookie.length") == 0


@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_a_cdc_file_is_decoded_at_once(open_page: OpenPage, server: httpx.Client, picture: bytes, kind: str) -> None:
    file = server.post("/encode", content=picture, headers={"Content-Type": "image/png"}).content
    page, _ = open_page()
    slide(page, "#steps", 2)
    give(page, kind, "archive.cdc", "", file)
    expect(page.locator("#figures tbody tr")).to_have_count(1)
    assert cells(page, 1)[0] == "CDC"
    expect(page.locator("#canvas-cdc")).to_be_visible()
    expect(page.locator("#divider")).to_be_hidden()
    expect(page.locator("#download-cdc")).to_be_hidden()
    expect(page.locator("#go")).to_have_text("Decode")
    page.click("#other")
    expect(page.locator("#start")).to_be_visible()
    give(page, kind, "photo.png", "image/png", picture)
    expect(page.locator("#go")).to_have_text("Compress")
    compress(page, steps=1)


def test_steps_chosen_by_the_service(open_page: OpenPage, picture: bytes) -> None:
    page, watch = open_page()
    upload(page, picture)
    page.check("#auto")
    expect(page.locator("#steps")).to_be_disabled()
    page.click("#go")
    expect(page.locator("#figures tbody tr")).to_have_count(3)
    assert [status for path, status in watch.answers if path == "/decode"] == [200]
    assert re.search(r"Steps\s+\d+", page.inner_text("#facts"))


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


def test_the_whole_way_by_keyboard(open_page: OpenPage) -> None:
    page, _ = open_page()
    slide(page, "#steps", 1)
    page.evaluate("document.activeElement.blur()")
    tab_to(page, "Landscape")
    page.keyboard.press("Enter")
    expect(page.locator("#chip-left")).to_contain_text("768 × 512")
    tab_to(page, "Compress")
    page.keyboard.press("Enter")
    expect(page.locator("#figures tbody tr")).to_have_count(3)
    expect(page.locator("#status")).to_contain_text("decibels")
    expect(page.locator("#go")).to_be_focused()


def tab_to(page: Page, text: str) -> None:
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent.trim()") == text:
            assert page.evaluate("document.activeElement.matches(':focus-visible')")
            return
    pytest.fail(f"{text} cannot be reached with the Tab key")


def test_another_picture_while_one_is_at_work(open_page: OpenPage, large_picture: bytes, picture: bytes) -> None:
    page, watch = open_page()
    upload(page, large_picture, "large.jpg", "image/jpeg")
    slide(page, "#steps", 65)
    page.click("#go")
    expect(page.locator("#chip-right")).to_contain_text("of 65")
    give(page, "drop", "photo.png", "image/png", picture)
    expect(page.locator("#chip-left")).to_contain_text("192 × 128")
    compress(page, steps=1)
    assert len([path for path, _ in watch.answers if path.startswith("/jobs/") and path.count("/") == 2]) == 1
