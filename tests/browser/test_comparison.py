"""What the page says of a result: beside other codecs, in figures, after a change, after a reload, on a card."""

from __future__ import annotations

import base64
import re
from io import BytesIO
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from PIL import Image
from playwright.sync_api import expect
from pytorch_msssim import ms_ssim

from tests.browser.actions import cells, compress, slide, upload
from tests.browser.conftest import PICTURES, OpenPage
from tests.browser.test_presentation import serious

pytestmark = pytest.mark.browser
SIZES = {"phone": (390, 844), "tablet": (820, 1180), "desk": (1440, 900)}
ROWS = ["Original", "CDC", "JPEG", "WebP", "AVIF"]


@pytest.fixture(scope="session")
def huge_picture(photograph: Any) -> bytes:
    """A JPEG of 4000x3000 pixels, as phones make them."""
    noise = np.random.default_rng(0).integers(-6, 7, (3000, 4000, 1))
    pixels = np.asarray(Image.fromarray(photograph[:384]).resize((4000, 3000), Image.Resampling.BICUBIC)) + noise
    out = BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(out, "JPEG", quality=92)
    return out.getvalue()


def test_other_codecs_of_as_many_bytes(open_page: OpenPage, picture: bytes) -> None:
    page, _ = open_page()
    upload(page, picture)
    slide(page, "#quality", 90)
    compress(page, steps=1)
    rows = [cells(page, n) for n in range(1, 6)]
    assert [row[0] for row in rows] == ROWS
    sizes = [int(row[1].replace(",", "")) for row in rows]
    for bytes_of_other in sizes[2:]:
        assert 0.5 * sizes[1] < bytes_of_other <= sizes[1]
    expect(page.locator("#results-title")).to_have_text(re.compile(r"^[\d.]+ kB instead of 48.2 kB: [\d.]+ % saved$"))
    expect(page.locator("#note")).to_contain_text("the best of at most as many bytes, made by the service")
    for name, label in (("jpeg", "JPEG"), ("webp", "WebP"), ("avif", "AVIF")):
        page.select_option("#left", name)
        expect(page.locator("#chip-left")).to_contain_text(label)
        expect(page.locator(f"#canvas-{name}")).to_be_visible()
        expect(page.locator(f"#detail-{name}")).to_be_visible()
    page.select_option("#right", "avif")
    expect(page.locator("#left")).to_have_value("original")


def test_files_smaller_than_any_other_codec_makes(open_page: OpenPage, large_picture: bytes) -> None:
    page, _ = open_page()
    upload(page, large_picture, "large.jpg", "image/jpeg")
    slide(page, "#quality", 1)
    compress(page, steps=1)
    own, baseline = (int(cells(page, row)[1].replace(",", "")) for row in (2, 3))
    assert own < baseline
    expect(page.locator("#note")).to_contain_text(f"No JPEG is that small: its smallest takes {baseline / own:.1f}")


def test_figures_are_those_of_the_pixels(open_page: OpenPage, photograph: Any) -> None:
    one = photograph[:320, :256].copy()
    other = (one.astype(int) + np.random.default_rng(0).integers(-20, 21, one.shape)).clip(0, 255).astype(np.uint8)
    page, _ = open_page()
    opaque = np.full(one.shape[:2], 255, np.uint8)
    pixels = [base64.b64encode(np.dstack([p, opaque]).tobytes()).decode() for p in (one, other)]
    found = page.evaluate(
        """async ([one, other]) => {
        const { luma, msSsim, psnr } = await import("/playground/metrics.js");
        const [a, b] = [one, other].map((text) => Uint8ClampedArray.from(atob(text), (c) => c.charCodeAt(0)));
        const planes = [luma(a), luma(b)];
        return [psnr(a, b), psnr(a, a) === Infinity, msSsim(...planes, 256, 320), msSsim(...planes, 160, 160)];
    }""",
        pixels,
    )
    distortion, equal, similarity, too_small = found
    expected = 10 * np.log10(255**2 / np.mean((one.astype(float) - other) ** 2))
    weights = np.array([0.299, 0.587, 0.114])
    planes = [torch.tensor(p.astype(float) @ weights, dtype=torch.float32)[None, None] for p in (one, other)]
    assert distortion == pytest.approx(expected, abs=1e-6)
    assert equal
    assert similarity == pytest.approx(float(ms_ssim(*planes, data_range=255)), abs=1e-4)
    assert too_small is None


def test_a_map_of_differences(open_page: OpenPage, picture: bytes) -> None:
    page, _ = open_page()
    upload(page, picture)
    slide(page, "#quality", 20)
    compress(page, steps=1)
    page.select_option("#right", "difference")
    expect(page.locator("#canvas-difference")).to_be_visible()
    expect(page.locator("#chip-right")).to_contain_text("8 times as strong")
    wrong = page.evaluate("""() => {
        const read = (name) => {
            const canvas = document.getElementById(`canvas-${name}`);
            return canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
        };
        const [a, b, map] = ["original", "cdc", "difference"].map(read);
        let wrong = 0;
        for (let i = 0; i < a.length; i++) {
            if (i % 4 < 3 && Math.abs(map[i] - Math.min(255, 8 * Math.abs(a[i] - b[i]))) > 8) wrong += 1;
        }
        return wrong;
    }""")
    assert wrong == 0


def test_a_change_marks_the_result_and_makes_another_when_it_rests(open_page: OpenPage, picture: bytes) -> None:
    page, watch = open_page()
    upload(page, picture)
    compress(page, steps=1)
    before = cells(page, 2)[1]
    expect(page.locator("#stale")).to_be_hidden()
    slide(page, "#quality", 80)
    expect(page.locator("#stale")).to_be_visible()
    expect(page.locator("#results")).to_have_class(re.compile("stale"))
    slide(page, "#quality", 90)  # it did not rest between the two: one run
    expect(page.locator("#stale")).to_be_hidden()
    expect(page.locator("#cancel")).to_be_hidden()
    assert cells(page, 2)[1] != before
    assert len([path for path, _ in watch.answers if path == "/encode"]) == 2


def test_defaults_are_those_of_the_model(open_page: OpenPage, server: httpx.Client) -> None:
    model = server.get("/models").json()["models"][0]
    page, _ = open_page()
    expect(page.locator("#steps")).to_have_value(str(model["default_steps"]))
    expect(page.locator("#gamma")).to_have_value(str(int(model["default_gamma"])))
    expect(page.locator("#gamma-help")).to_have_text(re.compile(r"faithful\s+natural"))


def test_samples_are_photographs(open_page: OpenPage) -> None:
    page, _ = open_page()
    assert page.locator("#samples button").all_inner_texts() == ["Astronaut", "Cat", "Coffee", "Portrait", "Rocket"]
    page.get_by_role("button", name="Cat").click()
    expect(page.locator("#chip-left")).to_contain_text("451 × 300")
    compress(page, steps=1)
    page.screenshot(path=PICTURES / "cat.png", full_page=True)


def test_a_job_survives_a_reload(open_page: OpenPage, server: httpx.Client, large_picture: bytes) -> None:
    page, _ = open_page()
    upload(page, large_picture, "large.jpg", "image/jpeg")
    slide(page, "#steps", 20)
    slide(page, "#gamma", 0.8)
    with page.expect_response(lambda r: "/decode" in r.url) as answer:
        page.click("#go")
    job = answer.value.json()["id"]
    expect(page.locator("#chip-right")).to_contain_text("of 20")
    page.reload()
    expect(page.locator("#progress")).to_be_visible()
    expect(page.locator("#figures tbody tr")).to_have_count(5)
    assert [cells(page, n)[0] for n in range(1, 6)] == ROWS
    assert server.get(f"/jobs/{job}").json()["state"] == "succeeded"
    expect(page.locator("#cancel")).to_be_hidden()
    page.reload()  # nothing is under way any more
    page.wait_for_selector("#samples button")
    expect(page.locator("#progress")).to_be_hidden()
    expect(page.locator("#start")).to_be_visible()


def test_a_card_to_keep(open_page: OpenPage, picture: bytes) -> None:
    page, _ = open_page()
    upload(page, picture)
    compress(page, steps=1)
    page.evaluate("navigator.canShare = undefined")
    with page.expect_download() as kept:
        page.click("#card")
    assert kept.value.suggested_filename == "cdc-comparison.png"
    kept.value.save_as(PICTURES / "card.png")
    with Image.open(PICTURES / "card.png") as card:
        assert card.size == (1200, 630)
        colours = card.convert("RGB").resize((120, 63)).getcolors(7560)
        assert colours is not None
        assert len(colours) > 500


def test_a_card_to_send(open_page: OpenPage, picture: bytes) -> None:
    page, _ = open_page()
    upload(page, picture)
    compress(page, steps=1)
    page.evaluate("""() => {
        window.sent = [];
        navigator.canShare = () => true;
        navigator.share = async ({ files }) => { window.sent.push([files[0].name, files[0].type, files[0].size]); };
    }""")
    page.click("#card")
    while page.evaluate("window.sent.length") == 0:
        page.wait_for_timeout(50)
    name, kind, size = page.evaluate("window.sent[0]")
    assert (name, kind) == ("cdc-comparison.png", "image/png")
    assert size > 10_000


def test_a_large_photograph_is_told_what_it_costs(open_page: OpenPage, huge_picture: bytes) -> None:
    page, _ = open_page()
    upload(page, huge_picture, "huge.jpg", "image/jpeg")
    expect(page.locator("#expected")).to_have_text(re.compile(r"^12\.0 megapixels: about .* (s|min)\.$"))
    slide(page, "#gamma", 0.8)  # without noise the model decodes in one pass, whatever the steps
    slide(page, "#steps", 30)
    expect(page.locator("#suggest")).to_be_visible()
    page.get_by_role("button", name="Take 1 step").click()
    expect(page.locator("#steps")).to_have_value("1")
    expect(page.locator("#fewer")).to_be_hidden()
    slide(page, "#steps", 30)
    expect(page.locator("#suggest")).to_be_visible()
    page.screenshot(path=PICTURES / "large.png")
    page.click("#go")
    expect(page.locator("#eta")).to_have_text(re.compile(r"about \d+ s left"))  # from the first second
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#error")).to_have_text("Cancelled.")
    page.get_by_role("button", name="Shrink to 2 megapixels").click()
    expect(page.locator("#chip-left")).to_contain_text("1632 × 1224")


@pytest.mark.slow
def test_a_photograph_of_twelve_megapixels(open_page: OpenPage, huge_picture: bytes) -> None:
    page, _ = open_page()
    upload(page, huge_picture, "huge.jpg", "image/jpeg")
    page.click("#go")
    expect(page.locator("#figures tbody tr")).to_have_count(5, timeout=300_000)
    expect(page.locator("#cancel")).to_be_hidden(timeout=120_000)
    for row in range(2, 6):
        assert re.fullmatch(r"0\.\d{4}", cells(page, row)[5]), cells(page, row)
    page.screenshot(path=PICTURES / "twelve.png", full_page=True)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious_at_three_sizes(open_page: OpenPage, picture: bytes, size: str, scheme: str) -> None:
    width, height = SIZES[size]
    page, _ = open_page(viewport={"width": width, "height": height}, color_scheme=scheme, has_touch=size != "desk")
    assert serious(page) == []
    upload(page, picture)
    compress(page, steps=1)
    page.select_option("#right", "difference")
    assert serious(page) == []
    assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
    page.screenshot(path=PICTURES / f"{size}-{scheme}.png", full_page=True)


def test_controls_are_large_enough_for_fingers(open_page: OpenPage, picture: bytes) -> None:
    page, _ = open_page(viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True)
    upload(page, picture)
    compress(page, steps=1)
    page.tap("text=API key")
    small = page.evaluate("""() => {
        const controls = [...document.querySelectorAll("button, a, select, input, summary, .segments label, .check")];
        const hidden = "input[type=radio], input[type=checkbox], input[type=file], .skip"; // their labels count
        return controls.filter((e) => e.checkVisibility() && !e.matches(hidden))
            .map((e) => [e.id || e.textContent.trim(), e.getBoundingClientRect()])
            .filter(([, box]) => box.height < 43.9 || box.width < 43.9)
            .map(([name, box]) => [name, box.width, box.height]);
    }""")
    assert small == []
