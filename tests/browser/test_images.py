"""What a browser makes of odd image files, against what we read: size, transparency, colours, orientation."""

from __future__ import annotations

import base64
import struct
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser

from tests.service.conftest import photograph
from tests.service.images.builders import (
    chunk,
    exif_block,
    extended_webp,
    png,
    read,
    replaced,
    riff,
    saved,
    with_chunks,
    xmp,
)

pytestmark = pytest.mark.browser

DECODE = """async (address) => {
  const image = new Image();
  image.src = address;
  await image.decode();
  const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight);
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  return [canvas.width, canvas.height, Array.from(context.getImageData(0, 0, canvas.width, canvas.height).data)];
}"""
COLOURS = np.array([[(200, 100, 50), (40, 117, 90)], [(120, 130, 140), (250, 250, 5)]]).repeat(16, 0).repeat(24, 1)
GREY = np.arange(64 * 16).reshape(16, 64)


def signalled(*chunks: bytes) -> bytes:
    return png(COLOURS, 8, 2, *chunks)


def gama(gamma: float) -> bytes:
    return chunk(b"gAMA", struct.pack(">I", round(gamma * 100_000)))


def nclx(primaries: int, transfer: int) -> bytes:
    data = saved(Image.fromarray(COLOURS.astype(np.uint8)), "AVIF", quality=100, subsampling="4:4:4")
    return replaced(data, data.index(b"colrnclx") + 8, struct.pack(">HH", primaries, transfer))


def turned(kind: str, orientation: int) -> bytes:
    prefix = b"Exif\0\0" if kind == "JPEG" else b""
    return saved(photograph(), kind, exif=prefix + exif_block(orientation), quality=100)


def framed() -> bytes:
    data = bytearray(saved(photograph(20, 10).convert("P"), "GIF"))
    data[6:10] = struct.pack("<HH", 40, 30)
    return bytes(data)


PRIMARIES = chunk(b"cHRM", struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000))
SRGB = chunk(b"sRGB", b"\0")
FILES: dict[str, tuple[str, bytes]] = {
    "PNG, garbage of EXIF": ("png", signalled(chunk(b"eXIf", b"not a tiff header"))),
    "PNG, wrong CRC of time": ("png", signalled(chunk(b"tIME", bytes(7), crc=0))),
    "PNG, EXIF": ("png", turned("PNG", 6)),
    "PNG, linear": ("png", signalled(gama(1.0))),
    "PNG, gamma 2": ("png", signalled(gama(0.5))),
    "PNG, gamma of sRGB": ("png", signalled(gama(0.45455))),
    "PNG, Display P3 by cHRM": ("png", signalled(gama(0.5), PRIMARIES)),
    "PNG, sRGB before gamma": ("png", signalled(gama(1.0), SRGB)),
    "PNG, cICP before sRGB": ("png", signalled(chunk(b"cICP", bytes((12, 13, 0, 1))), SRGB)),
    **{
        f"PNG, cICP {p} {t}": ("png", signalled(chunk(b"cICP", bytes((p, t, 0, 1)))))
        for p, t in (
            (1, 1),
            (9, 1),
            (9, 13),
            (9, 14),
            (12, 13),
            (1, 4),
            (1, 5),
            (1, 7),
            (1, 8),
            (5, 6),
            (6, 6),
            (11, 17),
        )
    },
    "PNG, unknown cICP": ("png", signalled(chunk(b"cICP", bytes((99, 13, 0, 1))))),
    "PNG, 4 bit grey key": ("png", png(GREY % 16, 4, 0, chunk(b"tRNS", struct.pack(">H", 15)))),
    "PNG, 1 bit grey key": ("png", png(GREY % 2, 1, 0, chunk(b"tRNS", struct.pack(">H", 1)))),
    "PNG, 16 bit grey key": ("png", png(GREY, 16, 0, chunk(b"tRNS", struct.pack(">H", 7)))),
    "PNG, RGB key": ("png", signalled(chunk(b"tRNS", struct.pack(">HHH", 200, 100, 50)))),
    "PNG, 16 bit RGB key": (
        "png",
        png(GREY[..., None] + [0x8000, 0x3400, 0], 16, 2, chunk(b"tRNS", struct.pack(">HHH", 0x8007, 0x3407, 7))),
    ),
    "JPEG, XMP": ("jpeg", saved(photograph(), "JPEG", quality=100, xmp=xmp(6))),
    "JPEG, EXIF": ("jpeg", turned("JPEG", 8)),
    "JPEG, bytes behind it": ("jpeg", saved(photograph(), "JPEG", quality=100) + bytes(100)),
    # Chromium leaves a WebP as it is stored, whatever its EXIF block says; we turn it.
    "WebP, XMP": ("webp", saved(photograph(), "WEBP", lossless=True, xmp=xmp(6))),
    "WebP, garbage of EXIF": (
        "webp",
        extended_webp(saved(photograph(), "WEBP", lossless=True), (32, 24), 8, riff(b"EXIF", b"junk")),
    ),
    "AVIF, turned": ("avif", turned("AVIF", 7)),
    "AVIF, XMP": ("avif", saved(photograph(), "AVIF", quality=100, xmp=xmp(6))),
    **{
        f"AVIF, nclx {p} {t}": ("avif", nclx(p, t))
        for p, t in ((1, 13), (1, 1), (9, 1), (9, 13), (12, 13), (1, 8), (2, 2))
    },
    "GIF, frame in its screen": ("gif", framed()),
    "GIF, frame beyond its screen": ("gif", replaced(framed(), 6, struct.pack("<HH", 5, 5))),
}


@pytest.fixture(scope="module")
def decode(browser: Browser) -> Any:
    """A function: media type's second half, file -> RGBA uint8 [H, W, 4] as a canvas has it."""
    page = browser.new_page()

    def decoded(kind: str, data: bytes) -> Any:
        width, height, values = page.evaluate(DECODE, f"data:image/{kind};base64,{base64.b64encode(data).decode()}")
        return np.array(values, np.uint8).reshape(height, width, 4)

    yield decoded
    page.close()


@pytest.mark.parametrize("name", FILES)
def test_a_browser_shows_the_same(decode: Any, name: str) -> None:
    kind, data = FILES[name]
    expected, image = decode(kind, data), read(data)
    assert image.pixels.shape[:2] == expected.shape[:2]
    alpha = np.full(expected.shape[:2], 255) if image.alpha is None else image.alpha
    np.testing.assert_array_equal(alpha, expected[..., 3])
    # A canvas holds transparent pixels as black; decoders of lossy kinds differ in how they scale up chroma.
    difference = np.abs(image.pixels.astype(int) - expected[..., :3])[alpha > 0]
    assert difference.mean() <= 2 + 2 * (kind in ("jpeg", "avif"))
    assert difference.max() <= 3 or kind in ("jpeg", "avif", "webp")


@pytest.mark.parametrize("transfer", [16, 18])
def test_a_browser_tone_maps_hdr_too(decode: Any, transfer: int) -> None:
    """By another rule, which darkens diffuse white more; order and hues are the same."""
    ramp = np.linspace(0, 255, 64).round().astype(int)[None, :, None].repeat(16, 0).repeat(3, 2)
    data = with_chunks(png(ramp, 8, 2), chunk(b"cICP", bytes((9, transfer, 0, 1))))
    expected, found = decode("png", data)[0, :, :3].astype(int), read(data).pixels[0].astype(int)
    assert (np.diff(found[:, 0]) >= 0).all()
    assert (found.max(axis=1) - found.min(axis=1)).max() <= 1
    assert np.abs(found - expected).max() <= 64
    assert found[-1].tolist() == [255, 255, 255]
