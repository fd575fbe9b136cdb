"""The web page in a real browser, against a real server."""

from __future__ import annotations

import re

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.browser.actions import cells, compress, give, slide, upload
from tests.browser.conftest import PICTURES, OpenPage

pytestmark = pytest.mark.browser


def test_a_photograph_goes_through(open_page: OpenPage, server: httpx.Client, picture: bytes) -> None:
    page, watch = open_page()
    upload(page, picture)
    expect(page.locator("#chip-left")).to_contain_text("192 × 128")
    slide(page, "#quality", 60)
    slide(page, "#effort", 3)
    slide(page, "#steps", 2)
    slide(page, "#gamma", 0)
    page.fill("#seed", "7")
    page.click("#go")
    expect(page.locator("#figures tbody tr")).to_have_count(5)
    query = {"quality": 60, "effort": 3}
    file = server.post("/encode", params=query, content=picture, headers={"Content-Type": "image/png"})
    name, size, share, bpp, distortion, _ = cells(page, 2)
    assert (name, int(size.replace(",", ""))) == ("CDC", len(file.content))
    assert float(share.removesuffix(" %")) == pytest.approx(100 * (1 - len(file.content) / len(picture)), abs=0.05)
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
    slide(page, "#steps", 20)
    slide(page, "#gamma", 0.8)  # without noise there is one pass, whatever the steps
    page.click("#go")
    expect(page.locator("#chip-right")).to_contain_text("of 20")
    expect(page.locator("#results")).to_be_hidden()
    shades = page.evaluate("""() => {
        const canvas = document.getElementById("canvas-cdc");
        const { data } = canvas.getContext("2d").getImageData(0, 300, canvas.width, 1);
        return [canvas.width, canvas.height, new Set(data).size];
    }""")
    assert shades[:2] == [512, 600]
    assert shades[2] > 32
    bar = page.locator("#bar")
    expect(bar).to_have_attribute("aria-valuetext", re.compile(r"step \d+ of 20"))
    page.screenshot(path=PICTURES / "preview.png")
    expect(page.locator("#figures tbody tr")).to_have_count(5)


def test_faithful_and_natural_are_seen_at_once(open_page: OpenPage, picture: bytes) -> None:
    page, _ = open_page()
    upload(page, picture)
    page.get_by_role("button", name="Natural").click()
    compress(page, steps=1)
    page.get_by_role("slider", name="Divider: CDC, faithful on the left, CDC on the right").wait_for()
    same = page.evaluate(
        """() => {
          const [one, other] = ["faithful", "cdc"].map((n) => document.getElementById(`canvas-${n}`));
          return one.width === other.width && one.toDataURL() === other.toDataURL();
        }"""
    )
    assert same is False
    page.locator("#left").select_option("original")
    page.get_by_role("slider", name="Divider: Original on the left, CDC on the right").wait_for()
    page.get_by_role("button", name="Faithful").click()
    page.locator("#left option[value=faithful][disabled]").wait_for(state="attached")


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
    expect(page.locator("#figures tbody tr")).to_have_count(5)
    assert [status for path, status in watch.answers if path == "/decode"] == [200]
    assert re.search(r"Steps\s+\d+", page.inner_text("#facts"))


def test_the_whole_way_by_keyboard(open_page: OpenPage) -> None:
    page, _ = open_page()
    slide(page, "#steps", 1)
    page.evaluate("document.activeElement.blur()")
    tab_to(page, "Coffee")
    page.keyboard.press("Enter")
    expect(page.locator("#chip-left")).to_contain_text("600 × 400")
    tab_to(page, "Compress")
    page.keyboard.press("Enter")
    expect(page.locator("#figures tbody tr")).to_have_count(5)
    expect(page.locator("#status")).to_contain_text("decibels")
    expect(page.locator("#go")).to_be_focused()


def tab_to(page: Page, text: str) -> None:
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent.trim()") == text:
            assert page.evaluate("document.activeElement.matches(':focus-visible')")
            return
    pytest.fail(f"{text} cannot be reached with the Tab key")
