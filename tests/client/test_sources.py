"""What an image may be given as: arrays and PIL images become PNG files without loss, addresses are fetched."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from cdc_client import ClientConfig, SourceFailed, sources
from cdc_client.sources import read_source

CONFIG = ClientConfig(api_key="secret", max_fetch_bytes=1000)
Handler = Callable[[httpx.Request], httpx.Response]
RANDOM = np.random.default_rng(0)


def opened(data: bytes) -> Image.Image:
    return Image.open(BytesIO(data))


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (5, 7, 2), (5, 7, 3), (5, 7, 4), (1, 1, 3)])
def test_an_array_becomes_a_png(shape: tuple[int, ...]) -> None:
    pixels = RANDOM.integers(0, 256, shape, np.uint8)
    image = opened(read_source(pixels, CONFIG))
    np.testing.assert_array_equal(np.asarray(image).reshape(shape), pixels)
    np.testing.assert_array_equal(opened(read_source(pixels[::-1, ::-1], CONFIG)), np.asarray(image)[::-1, ::-1])


@pytest.mark.parametrize(
    ("array", "error", "words"),
    [
        (np.zeros((4, 4, 3), np.float32), TypeError, "uint8, 0 to 255, not float32"),
        (np.zeros((4, 4, 5), np.uint8), ValueError, "not (4, 4, 5)"),
        (np.zeros((0, 4, 3), np.uint8), ValueError, "not (0, 4, 3)"),
        (np.zeros(4, np.uint8), ValueError, "not (4,)"),
        (7, TypeError, "not <class 'int'>"),
    ],
)
def test_what_is_no_image(array: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error) as caught:
        read_source(array, CONFIG)
    assert words in str(caught.value)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_a_pil_image_becomes_a_png(mode: str) -> None:
    image = Image.fromarray(RANDOM.integers(0, 256, (5, 7, 3), np.uint8)).convert(mode)
    exif = image.getexif()
    exif[0x0112] = 6
    image.info["icc_profile"] = b"a profile"
    made = opened(read_source(image, CONFIG))
    np.testing.assert_array_equal(made.convert("RGBA"), image.convert("RGBA"))
    assert made.getexif()[0x0112] == 6
    assert made.info["icc_profile"] == b"a profile"


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "HSV"])
def test_other_modes_become_rgb_without_their_profile(mode: str) -> None:
    image = Image.new("RGB", (4, 4), (200, 30, 90)).convert(mode)
    image.info["icc_profile"] = b"a profile of another kind"
    made = opened(read_source(image, CONFIG))
    assert (made.mode, "icc_profile" in made.info) == ("RGB", False)


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Callable[[Handler], list[httpx.Request]]:
    """Put a function in place of the network; returns the list of requests that reach it."""
    seen: list[httpx.Request] = []

    def install(handler: Handler) -> list[httpx.Request]:
        def handle(request: httpx.Request) -> httpx.Response:
            seen.append(request)
            return handler(request)

        inner = httpx.Client

        def connect(**options: Any) -> httpx.Client:
            return inner(**options, transport=httpx.MockTransport(handle))

        monkeypatch.setattr(sources.httpx, "Client", connect)
        return seen

    return install


def test_an_address_is_fetched_without_the_key(web: Callable[[Handler], list[httpx.Request]]) -> None:
    def handle(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/moved":
            return httpx.Response(302, headers={"Location": "/photo.jpg"})
        return httpx.Response(200, content=b"photo")

    seen = web(handle)
    assert read_source("https://images.test/moved", CONFIG) == b"photo"
    assert [r.url.path for r in seen] == ["/moved", "/photo.jpg"]
    assert all("authorization" not in r.headers for r in seen)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (httpx.Response(404), "answered 404 Not Found"),
        (httpx.Response(200, content=bytes(1001)), "more than 1000 bytes"),
        (httpx.Response(302, headers={"Location": "http://images.test/photo.jpg"}), "not https://"),
        (httpx.Response(302, headers={"Location": "https://images.test/"}), "TooManyRedirects"),
    ],
)
def test_addresses_that_fail(web: Callable[[Handler], list[httpx.Request]], answer: httpx.Response, words: str) -> None:
    web(lambda request: httpx.Response(answer.status_code, headers=answer.headers, content=answer.content))
    with pytest.raises(SourceFailed, match=words):
        read_source("https://images.test/", CONFIG)


def test_addresses_that_are_not_fetched(web: Callable[[Handler], list[httpx.Request]]) -> None:
    def lost(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("lost")

    seen = web(lost)
    with pytest.raises(ValueError, match="only https://"):
        read_source("http://images.test/photo.jpg", CONFIG)
    assert seen == []
    with pytest.raises(SourceFailed, match="ConnectError: lost"):
        read_source("https://images.test/photo.jpg", CONFIG)
    with pytest.raises(SourceFailed):
        read_source("https://[", CONFIG)


def test_a_path_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "https:").write_bytes(b"x")
    assert read_source("https:", CONFIG) == b"x"
