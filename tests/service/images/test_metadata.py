"""Optional metadata: whatever is wrong with it, the image is read; and EXIF alone turns it."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from service.images.exif import orientation_of
from tests.service.conftest import KINDS, image_file, photograph
from tests.service.images.builders import (
    avif_items,
    chunk,
    exif_block,
    extended_webp,
    item_of,
    read,
    replaced,
    riff,
    saved,
    tiff,
    with_chunks,
    with_segments,
    xmp,
)

PLAIN = np.array(photograph())
GARBAGE = [
    b"",
    b"\0",
    b"not a tiff header",
    b"II*\0\xff\xff\xff\xff",
    b"MM\0*\0\0\0\x08\xff\xff" + bytes(range(200)),
    b"\xff" * 300,
]
OPTIONAL = [
    b"eXIf", b"iCCP", b"sRGB", b"gAMA", b"cHRM", b"cICP", b"sBIT", b"tRNS", b"bKGD", b"hIST", b"pHYs", b"sPLT", b"tIME",
    b"tEXt", b"zTXt", b"iTXt", b"mDCV", b"cLLI", b"acTL", b"fcTL", b"fdAT", b"oFFs", b"pCAL", b"sCAL", b"sTER", b"prVt",
]  # fmt: skip


def is_plain(data: bytes, tolerance: int = 0) -> None:
    image = read(data, metadata="keep")
    assert image.pixels.shape == PLAIN.shape
    assert image.alpha is None
    assert np.abs(image.pixels.astype(int) - PLAIN).max() <= tolerance


@pytest.mark.parametrize("name", OPTIONAL)
def test_png_chunks_of_garbage(name: bytes) -> None:
    data = image_file(photograph(), "PNG")
    for garbage in GARBAGE:
        is_plain(with_chunks(data, chunk(name, garbage)))
        is_plain(with_chunks(data, chunk(name, garbage, crc=1)))
        is_plain(data[:-12] + chunk(name, garbage) + data[-12:])  # behind the pixels


@pytest.mark.parametrize(
    ("name", "body"),
    [
        (b"eXIf", exif_block(6)),
        (b"gAMA", (100_000).to_bytes(4, "big")),
        (b"cICP", bytes((9, 16, 0, 1))),
        (b"tRNS", bytes((0, 0, 0, 0, 0, 255))),
    ],
)
def test_a_png_chunk_counts_with_the_right_crc_alone(name: bytes, body: bytes) -> None:
    data = image_file(photograph(), "PNG")
    is_plain(with_chunks(data, chunk(name, body, crc=1)))
    image = read(with_chunks(data, chunk(name, body)))
    assert image.alpha is not None or image.pixels.shape != PLAIN.shape or (image.pixels != PLAIN).any()


def test_png_text_and_profiles_that_inflate_are_passed_over() -> None:
    data = image_file(photograph(), "PNG")
    bomb = zlib.compress(bytes(50_000_000), 9)
    for name in (b"zTXt", b"iCCP"):
        is_plain(with_chunks(data, chunk(name, b"name\0\0" + bomb)))
    is_plain(with_chunks(data, chunk(b"iTXt", b"name\0\1\0\0\0" + bomb)))


@pytest.mark.parametrize("garbage", GARBAGE)
@pytest.mark.parametrize("marker", [*range(0xE0, 0xF0), 0xFE])
def test_jpeg_segments_of_garbage(marker: int, garbage: bytes) -> None:
    data = image_file(photograph(), "JPEG", quality=95)
    names = (
        b"",
        b"Exif\0\0",
        b"ICC_PROFILE\0\1\1",
        b"ICC_PROFILE\0\1\2",
        b"JFIF\0",
        b"MPF\0",
        b"Photoshop 3.0\x008BIM",
    )
    for name in names:
        is_plain(with_segments(data, (marker, name + garbage)), 24)


@pytest.mark.parametrize("garbage", GARBAGE)
@pytest.mark.parametrize("flags", [0, 0x2C])
def test_webp_chunks_of_garbage(garbage: bytes, flags: int) -> None:
    data = image_file(photograph(), "WEBP", lossless=True)
    for name in (b"ICCP", b"EXIF", b"XMP ", b"junk"):
        is_plain(extended_webp(data, (32, 24), flags, riff(name, garbage)))
    is_plain(extended_webp(data, (32, 24), flags, riff(b"EXIF", garbage))[:-1])  # cut within its metadata


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [1, 2, 3, 4, 5, 7, 12, 13, 99])
def test_tiff_tags_of_garbage(kind: int, order: str) -> None:
    for tag in (
        269,
        270,
        271,
        282,
        283,
        296,
        305,
        306,
        315,
        330,
        333,
        700,
        33432,
        33723,
        34377,
        34665,
        34675,
        34853,
        37724,
        42112,
    ):
        for value in (0, 5, 0xFFFFFFFF):
            is_plain(tiff(PLAIN, order=order, more=((tag, kind, value),)))


@pytest.mark.parametrize("garbage", GARBAGE)
def test_gif_extensions_of_garbage(garbage: bytes) -> None:
    data = image_file(photograph(), "GIF")
    start = data.index(b"\x2c\0\0\0\0")
    blocks = b"".join(bytes((len(garbage[k : k + 255]),)) + garbage[k : k + 255] for k in range(0, len(garbage), 255))
    for label in (0x01, 0xCE, 0xF9, 0xFE, 0xFF):
        image = read(data[:start] + bytes((0x21, label)) + blocks + b"\0" + data[start:])
        assert image.pixels.shape == PLAIN.shape


@pytest.mark.parametrize("garbage", [b"", b"\xff" * 40, b"\0\0\0\0II*\0\xff\xff\xff\xff", b"\0\0\0\0not a tiff header"])
@pytest.mark.parametrize("kind", [b"Exif", b"mime"])
def test_avif_items_of_garbage(kind: bytes, garbage: bytes) -> None:
    data = image_file(photograph(), "AVIF", quality=95, exif=exif_block(1), xmp=xmp(6))
    at, length = avif_items(data)[1].extents[item_of(data, kind)][0]
    is_plain(replaced(data, at, garbage.ljust(length, b"\x55")[:length]), 40)


@pytest.mark.parametrize("size", [40, 52, 56, 108, 124])
def test_bmp_fields_of_garbage(size: int) -> None:
    """Resolution, sizes, colours that matter, and the colour space of the longer headers."""
    pixels = saved(photograph(), "BMP")[54:]
    fields = struct.pack("<IiiHHIIiiII", size, 32, 24, 1, 24, 0, 2**31, -1, 2**31 - 1, 0, 99)
    head = b"BM" + struct.pack("<IHHI", 7, 0xFFFF, 0xFFFF, 14 + size)
    is_plain(head + fields + b"\xff" * (size - 40) + pixels)


@pytest.mark.parametrize("garbage", GARBAGE)
def test_ppm_comments_of_garbage(garbage: bytes) -> None:
    comment = b"# " + garbage.replace(b"\n", b"").replace(b"\r", b"") + b"\n"
    is_plain(b"P6\n" + comment + b"32 " + comment + b"24\n255\n" + PLAIN.tobytes())


@pytest.mark.parametrize("kind", KINDS)
def test_bytes_behind_the_image_change_nothing(kind: str) -> None:
    data = image_file(photograph(), kind)
    expected = read(data).pixels
    for tail in (bytes(100), b"\xff" * 100, bytes(range(256)) * 4, b"PK\x03\x04" + bytes(300)):
        if kind == "AVIF" and tail[0]:
            continue  # what follows has the form of a box there
        np.testing.assert_array_equal(read(data + tail).pixels, expected)


# A file of a kind with an XMP packet that asks for a quarter turn, and an EXIF block.
WITH_BOTH: dict[str, Callable[[bytes], bytes]] = {
    "JPEG": lambda exif: saved(photograph(), "JPEG", xmp=xmp(6), exif=b"Exif\0\0" + exif),
    "PNG": lambda exif: with_chunks(
        saved(photograph(), "PNG", exif=exif), chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp(6))
    ),
    "WEBP": lambda exif: saved(photograph(), "WEBP", xmp=xmp(6), exif=exif),
    "TIFF": lambda exif: saved(photograph(), "TIFF", tiffinfo={700: xmp(6), 274: orientation_of(exif)}),
    "AVIF": lambda exif: saved(photograph(), "AVIF", xmp=xmp(6), exif=exif),
}


@pytest.mark.parametrize("kind", WITH_BOTH)
def test_xmp_turns_nothing_and_exif_does(kind: str) -> None:
    assert read(WITH_BOTH[kind](b"")).pixels.shape == (24, 32, 3)
    assert read(WITH_BOTH[kind](exif_block(1))).pixels.shape == (24, 32, 3)
    assert read(WITH_BOTH[kind](exif_block(8))).pixels.shape == (32, 24, 3)


def test_png_exif_may_come_behind_the_pixels() -> None:
    data = image_file(photograph(), "PNG")
    assert read(data[:-12] + chunk(b"eXIf", exif_block(6)) + data[-12:]).pixels.shape == (32, 24, 3)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "AVIF"])
def test_exif_is_kept_in_every_kind_that_has_it(kind: str) -> None:
    block = read(saved(photograph(), kind, exif=b"Exif\0\0" + exif_block(1)), metadata="keep").exif
    assert block is not None
    kept = Image.Exif()
    kept.load(block)
    assert dict(kept) == {0x010F: "Maker"}
