"""Image files that are cut short, damaged, no images, or larger than they seem."""

from __future__ import annotations

import struct
import time
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
def test_damage_anywhere_gives_a_image_or_a_typed_error(kind: str) -> None:
    data = image_file(photograph(), kind)
    random = np.random.default_rng(len(data))
    for _ in range(60):
        damaged = bytearray(data)
        for index in random.integers(0, len(data), 4):
            damaged[index] = random.integers(0, 256)
        try:
            result = read(bytes(damaged))
        except (BrokenImage, UnsupportedImage, TooManyPixels, AnimatedImage):
            continue
        assert result.pixels.ndim == 3


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


def test_a_small_file_of_a_huge_image_is_refused_undecoded(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_tiff_tile_larger_than_the_limit_is_refused() -> None:
    data = zlib.compress(bytes(100))
    tags = {256: 16, 257: 16, 258: 8, 259: 8, 262: 1, 277: 1, 322: 60000, 323: 60000, 324: 200, 325: len(data)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    file = b"II*\x00\x08\x00\x00\x00" + struct.pack("<H", len(tags)) + entries + bytes(4)
    with pytest.raises(TooManyPixels, match="tile"):
        read(file.ljust(200, b"\x00") + data)


def test_tables_of_items_end_where_their_box_does() -> None:
    """A box of 40 bytes that announces millions of entries costs no time."""
    iloc = b"\0" * 4 + b"\x00\x00" + b"\xff\xff" + b"\0\1\0\0\xff\xff" * 5
    ipma = b"\0\0\0\0\xff\xff\xff\xff" + b"\0\1\xff" * 5
    boxes = b"".join(
        struct.pack(">I", len(body) + 8) + kind + body
        for kind, body in ((b"iloc", iloc), (b"iprp", struct.pack(">I", len(ipma) + 8) + b"ipma" + ipma))
    )
    data = b"\0\0\0\x10ftypavif\0\0\0\0" + struct.pack(">I", len(boxes) + 12) + b"meta\0\0\0\0" + boxes
    start = time.process_time()
    with pytest.raises(BrokenImage, match="AVIF"):
        read(data)
    assert time.process_time() - start < 1


@pytest.mark.parametrize(
    "data",
    [
        b"\x89PNG\r\n\x1a\n" + b"\0\0\0\0teXt\0\0\0\0" * 700_000,
        b"\xff\xd8" + b"\xff\x01" * 4_000_000,
        b"\xff\xd8\xff\xda\0\2" + b"\xff" * 8_000_000,
        b"\xff\xd8" + b"\xff\xda\0\2" * 2_000_000,
        b"GIF89a" + bytes(8_000_000),
        b"GIF89a" + bytes(7) + b"!\xfe\0" * 2_000_000,
        b"RIFF\0\0\0\0WEBP" + b"junk\0\0\0\0" * 1_000_000,
        b"\0\0\0\x10ftypavif\0\0\0\0" + b"\0\0\0\x08free" * 1_000_000,
        b"II*\0\x08\0\0\0" + b"\xff\xff" * 4_000_000,
    ],
    ids=["PNG", "JPEG", "JPEG fill", "JPEG scans", "GIF", "GIF blocks", "WebP", "AVIF", "TIFF"],
)
def test_eight_megabytes_of_empty_parts_cost_little(data: bytes) -> None:
    start = time.process_time()
    with pytest.raises(BrokenImage):
        read(data)
    assert time.process_time() - start < 3


def test_pages_of_a_tiff_are_counted_to_an_end() -> None:
    """Thumbnails that refer to each other, without end."""
    entry = struct.pack("<HHII", 254, 4, 1, 1)
    pages = b"".join(struct.pack("<H", 1) + entry + struct.pack("<I", 8 + 18 * (k + 1)) for k in range(50_000))
    with pytest.raises(BrokenImage):
        read(b"II*\0\x08\0\0\0" + pages)
