"""Image files that are cut short, damaged, no images, or larger than they seem."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from service.errors import AnimatedImage, BrokenImage, TooManyPixels, UnsupportedImage
from service.images.reading import InputImage, read_image
from tests.service.conftest import KINDS, image_file, photograph, png


def read(data: bytes) -> InputImage:
    return read_image(data, max_pixels=1_000_000)


@pytest.mark.parametrize("kind", KINDS)
def test_data_cut_short_is_a_broken_image(kind: str) -> None:
    data = image_file(photograph(200, 100), kind)
    for share in (0.2, 0.5, 0.9):
        with pytest.raises(BrokenImage):
            read(data[: int(len(data) * share)])


@pytest.mark.parametrize("kind", KINDS)
def test_damage_anywhere_gives_a_picture_or_a_typed_error(kind: str) -> None:
    data = image_file(photograph(), kind)
    random = np.random.default_rng(len(data))
    for _ in range(60):
        damaged = bytearray(data)
        for index in random.integers(0, len(data), 4):
            damaged[index] = random.integers(0, 256)
        try:
            picture = read(bytes(damaged))
        except (BrokenImage, UnsupportedImage, TooManyPixels, AnimatedImage):
            continue
        assert picture.pixels.ndim == 3


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"a text of some length, which is not an image",
        b"\x00" * 100,
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"%PDF-1.7\n",
        b"P3 1 1 255 0 0 0\n",
        b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic",
        b"RIFF\x04\x00\x00\x00WAVE",
    ],
)
def test_what_is_not_an_accepted_image(data: bytes) -> None:
    with pytest.raises(UnsupportedImage, match="accepted kind"):
        read(data)


def test_a_cdc_file_is_told_from_an_image() -> None:
    with pytest.raises(UnsupportedImage, match="/decode"):
        read(b"\x8fCDC\r\n\x1a\n")


def test_pixels_of_unbounded_range_are_not_taken() -> None:
    with pytest.raises(UnsupportedImage, match="'F'"):
        read(image_file(Image.new("F", (4, 4), 0.5), "TIFF"))


def test_a_header_that_claims_huge_sides_is_refused_undecoded() -> None:
    with pytest.raises(TooManyPixels, match="60000x60000 = 3600000000 pixels; the limit is 1000000"):
        read(png(60000, 60000, 8, 2, b"\x00"))


def test_a_small_file_of_a_huge_picture_is_refused_undecoded(monkeypatch: pytest.MonkeyPatch) -> None:
    data = png(20000, 20000, 1, 0, bytes(20000 * 2501))
    assert len(data) < 60_000

    def load(self: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", load)
    with pytest.raises(TooManyPixels):
        read(data)


def test_the_limit_is_exact() -> None:
    data = image_file(photograph(32, 24))
    assert read_image(data, max_pixels=768).pixels.shape == (24, 32, 3)
    with pytest.raises(TooManyPixels):
        read_image(data, max_pixels=767)


def test_text_and_profiles_that_inflate_are_bounded() -> None:
    text = b"Comment\x00\x00" + zlib.compress(bytes(50_000_000), 9)
    with pytest.raises(BrokenImage):
        read(png(1, 1, 8, 0, b"\x00\x00", (b"zTXt", text)))
    for size, fits in ((3_000_000, True), (50_000_000, False)):
        icc = b"profile\x00\x00" + zlib.compress(bytes(size), 9)
        data = png(1, 1, 8, 0, b"\x00\x00", (b"iCCP", icc))
        if fits:
            assert read(data).pixels.shape == (1, 1, 3)
        else:
            with pytest.raises(BrokenImage):
                read(data)


def test_a_tiff_tile_larger_than_the_limit_is_refused() -> None:
    data = zlib.compress(bytes(100))
    tags = {256: 16, 257: 16, 258: 8, 259: 8, 262: 1, 277: 1, 322: 60000, 323: 60000, 324: 200, 325: len(data)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    file = b"II*\x00\x08\x00\x00\x00" + struct.pack("<H", len(tags)) + entries + bytes(4)
    with pytest.raises(TooManyPixels, match="tile"):
        read(file.ljust(200, b"\x00") + data)
