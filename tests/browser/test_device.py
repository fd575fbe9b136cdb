"""Decoding in the browser: the page, the element, and their pixels, in a headless Chromium's WASM."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, Route

from benchmarks.server import running_server
from model.container import Space
from service.images.spaces import space_to_srgb
from tests.browser.conftest import PICTURES, TIMEOUT_MS
from tests.conformance.make import CODEC, FOLDER
from tests.programs import need
from tests.service.images.builders import read

PACKAGE = Path(__file__).parents[2] / "client" / "js"
pytestmark = [pytest.mark.browser, pytest.mark.slow]
LOAD_LIMIT = 16_000_000  # bytes of a first decode with everything
ELEMENT = """
<!doctype html><title>element</title>
<script type="module">
  const { defineElement } = await import("/decoder/cdc-image.js");
  defineElement();
</script>
<cdc-image id="image" src="/file.cdc" service="/" alt="a photograph"></cdc-image>
"""


@pytest.fixture(scope="module")
def device_server(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A server with the scripts for browsers, built now."""
    need("node")
    folder = tmp_path_factory.mktemp("browser")
    for argv in ([need("npm"), "ci", "--no-audit", "--no-fund", "--silent"], ["node", "bundle.mjs", str(folder)]):
        done = subprocess.run(argv, cwd=PACKAGE, capture_output=True, text=True, timeout=400)
        assert done.returncode == 0, done.stderr
    PICTURES.mkdir(parents=True, exist_ok=True)
    with running_server(PICTURES / "device.log", browser_dir=str(folder)) as (client, _):
        yield client


@pytest.fixture
def page(browser: Browser, device_server: httpx.Client) -> Iterator[Page]:
    """A page without faults, whose bytes on the wire are counted."""
    context = browser.new_context(viewport={"width": 1280, "height": 860})
    page = context.new_page()
    page.set_default_timeout(2 * TIMEOUT_MS)
    faults: list[str] = []
    page.on("console", lambda m: faults.append(m.text) if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    yield page
    context.close()
    assert faults == []


def close_to(pixels: Any, name: str) -> None:
    """Within a level for 99.9 % of the values."""
    with Image.open(FOLDER / CODEC / f"{name}.png") as image:
        difference = np.abs(pixels.astype(int) - np.asarray(image.convert("RGB")))
    assert (difference > 1).mean() <= 0.001


def test_the_page_decodes_on_the_device(page: Page, device_server: httpx.Client) -> None:
    loaded = 0
    sent: list[str] = []

    def count(response: Any) -> None:
        nonlocal loaded
        loaded += response.request.sizes()["responseBodySize"]

    page.on("requestfinished", lambda request: count(request.response()))
    page.on("request", lambda request: sent.append(request.url) if request.method == "POST" else None)
    page.goto(str(device_server.base_url))
    page.wait_for_selector("html[data-device=ready]")
    assert page.evaluate("crossOriginIsolated")  # threads
    file = FOLDER / CODEC / "150x120-rate-255.cdc"
    page.set_input_files("#file", {"name": "photo.cdc", "mimeType": "", "buffer": file.read_bytes()})
    page.wait_for_selector("#place:not([hidden])")
    text = page.inner_text("#place")
    assert "Decoded on your device in" in text
    assert "0 bytes sent" in text
    assert "the service would take about" in text
    assert [url for url in sent if url.endswith(("/decode", "/encode"))] == []
    with page.expect_download() as download:
        page.click("#download-png")
    with Image.open(BytesIO(download.value.path().read_bytes())) as image:
        close_to(np.asarray(image.convert("RGB")), "150x120-rate-255")
    assert 5_000_000 < loaded < LOAD_LIMIT
    page.screenshot(path=PICTURES / "device.png")


def serve_element(page: Page, name: str) -> None:
    """Answer /element.html and /file.cdc beside the real service."""

    def answer(route: Route) -> None:
        isolated = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}
        if route.request.url.endswith(".html"):
            route.fulfill(body=ELEMENT, content_type="text/html", headers=isolated)
        else:
            route.fulfill(body=(FOLDER / CODEC / f"{name}.cdc").read_bytes(), content_type="image/x-cdc")

    page.route("**/element.html", answer)
    page.route("**/file.cdc", answer)


LOADED = """
new Promise((resolve, reject) => {
  const element = document.querySelector("cdc-image");
  element.addEventListener("load", (event) => resolve(event.detail));
  element.addEventListener("error", (event) => reject(event.error));
  element.setAttribute("steps", "2");
})
"""
DRAWN = """
(() => {
  const { width, height } = document.querySelector("cdc-image").shadowRoot.querySelector("canvas");
  const canvas = document.querySelector("cdc-image").shadowRoot.querySelector("canvas");
  return { width, height, data: [...canvas.getContext("2d").getImageData(0, 0, width, height).data] };
})()
"""


@pytest.mark.parametrize("name", ["65x63", "150x120-alpha"])
def test_the_element_decodes(page: Page, device_server: httpx.Client, name: str) -> None:
    serve_element(page, name)
    page.goto(f"{device_server.base_url}/element.html")
    assert page.evaluate(LOADED)["where"] == "device"
    drawn = page.evaluate(DRAWN)
    pixels = np.array(drawn["data"], np.uint8).reshape(drawn["height"], drawn["width"], 4)
    if name.endswith("alpha"):
        assert pixels[0, 0, 3] == 0
        assert pixels[60, 75, 3] == 255
        opaque = pixels[..., 3] == 255
        with Image.open(FOLDER / CODEC / f"{name}.png") as image:
            difference = np.abs(pixels[..., :3].astype(int) - np.asarray(image.convert("RGB")))[opaque]
        assert (difference > 1).mean() <= 0.001
    else:
        close_to(pixels[..., :3], name)


WITHOUT_P3 = """
window.ImageData = class extends ImageData {
  constructor(first, second, third) {
    if (typeof third === "number") super(first, second, third);
    else super(first, second);
  }
  get colorSpace() {
    return undefined;
  }
};
"""
SPACE = """
document.querySelector("cdc-image").shadowRoot.querySelector("canvas").getContext("2d").getContextAttributes().colorSpace
"""


@pytest.mark.parametrize("has_p3", [True, False])
def test_the_element_draws_display_p3(page: Page, device_server: httpx.Client, has_p3: bool) -> None:
    """In its own space, or in sRGB where the browser does not know it."""
    if not has_p3:
        page.add_init_script(WITHOUT_P3)
    serve_element(page, "64x64-display-p3")
    page.goto(f"{device_server.base_url}/element.html")
    assert page.evaluate(LOADED)["where"] == "device"
    drawn = page.evaluate(DRAWN)
    assert page.evaluate(SPACE) == ("display-p3" if has_p3 else "srgb")
    pixels = np.array(drawn["data"], np.uint8).reshape(64, 64, 4)[..., :3].astype(int)
    with Image.open(FOLDER / CODEC / "64x64-display-p3.png") as image:
        wide = np.asarray(image.convert("RGB"))
    converted = space_to_srgb(wide, Space.DISPLAY_P3)
    assert (np.abs(converted.astype(int) - wide) > 2).mean() > 0.1  # so that one cannot pass for the other
    assert (np.abs(pixels - (wide if has_p3 else converted)) > (1 if has_p3 else 2)).mean() <= 0.001


def test_the_page_s_png_of_display_p3_keeps_it(page: Page, device_server: httpx.Client) -> None:
    page.goto(str(device_server.base_url))
    page.wait_for_selector("html[data-device=ready]")
    file = FOLDER / CODEC / "64x64-display-p3.cdc"
    page.set_input_files("#file", {"name": "photo.cdc", "mimeType": "", "buffer": file.read_bytes()})
    page.wait_for_selector("#place:not([hidden])")
    assert "Decoded on your device in" in page.inner_text("#place")
    with page.expect_download() as download:
        page.click("#download-png")
    data = download.value.path().read_bytes()
    assert read(data, colour="keep").space is Space.DISPLAY_P3
    with Image.open(BytesIO(data)) as image:
        close_to(np.asarray(image.convert("RGB")), "64x64-display-p3")


def test_the_element_falls_back_on_the_service(page: Page, device_server: httpx.Client) -> None:
    serve_element(page, "65x63")
    page.route("**/decoder/decoder.json", lambda route: route.fulfill(body="{}", content_type="application/json"))
    page.goto(f"{device_server.base_url}/element.html")
    assert page.evaluate(LOADED)["where"] == "service"
    assert page.evaluate("document.querySelector('cdc-image').shadowRoot.querySelector('img').alt") == "a photograph"
