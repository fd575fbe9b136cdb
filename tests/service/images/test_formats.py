"""What is odd about single formats: a JPEG's end, a TIFF's pages, an AVIF's alpha plane."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from PIL import Image

from service.errors import AnimatedImage, BrokenImage
from tests.service.conftest import image_file, photograph
from tests.service.images.builders import avif_items, item_of, read, replaced, saved, tiff

PLAIN = np.array(photograph())
JPEGS = [
    {},
    {"progressive": True},
    {"subsampling": 0},
    {"restart_marker_rows": 1},
    {"restart_marker_blocks": 1, "progressive": True},
    {"optimize": True, "quality": 20},
]


@pytest.mark.parametrize("options", JPEGS)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_jpeg_needs_its_rows_and_not_its_end(mode: str, options: dict[str, int]) -> None:
    data = image_file(photograph(90, 50).convert(mode), "JPEG", **options)
    expected = read(data).pixels
    for end in (b"", b"\xff", b"\0" * 50, b"garbage", b"\xff\x00\xff\x00"):
        np.testing.assert_array_equal(read(data[:-2] + end).pixels, expected)
    for tail in (b"garbage", b"\xff\xd8\xff", data, bytes(5000)):
        np.testing.assert_array_equal(read(data + tail).pixels, expected)


@pytest.mark.parametrize("options", JPEGS)
def test_a_jpeg_cut_short_anywhere_is_broken(options: dict[str, int]) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (50, 90, 3)).astype(np.uint8)  # of which every bit shows
    data = image_file(Image.fromarray(noise), "JPEG", **options)
    for length in range(len(data) // 4, len(data) - 2, 7):
        with pytest.raises(BrokenImage):
            read(data[:length])


def directory(order: str, following: int, **tags: int) -> bytes:
    """A TIFF directory of LONG entries, named t254 and so on."""
    entries = sorted((int(name[1:]), value) for name, value in tags.items())
    body = b"".join(struct.pack(order + "HHII", tag, 4, 1, value) for tag, value in entries)
    return struct.pack(order + "H", len(entries)) + body + struct.pack(order + "I", following)


PAGE = {"t256": 4, "t257": 4, "t258": 8, "t259": 1, "t262": 1, "t273": 24, "t277": 1, "t278": 4, "t279": 16}


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("tags", "is_page"),
    [
        ({"t254": 0}, True),
        ({"t254": 2}, True),  # a page of many
        ({}, True),
        ({"t254": 1}, False),
        ({"t254": 4}, False),
        ({"t254": 5}, False),
        ({"t254": 3}, False),
        ({"t255": 2}, False),
        ({"t255": 3}, True),
        ({"t262": 4}, False),
    ],
)
def test_thumbnails_and_masks_are_no_pages(tags: dict[str, int], is_page: bool, order: str) -> None:
    data = tiff(PLAIN, order=order, behind=directory(order, 0, **(PAGE | tags)))
    if is_page:
        with pytest.raises(AnimatedImage):
            read(data)
    np.testing.assert_array_equal(read(data, frame=None if not is_page else "first").pixels, PLAIN)


def test_a_thumbnail_may_come_first() -> None:
    big = tiff(PLAIN)
    start = struct.unpack("<I", big[4:8])[0]
    small = len(big)
    data = big[:4] + struct.pack("<I", small) + big[8:] + directory("<", start, **(PAGE | {"t254": 1}))
    np.testing.assert_array_equal(read(data).pixels, PLAIN)


def test_a_lone_thumbnail_is_the_image() -> None:
    np.testing.assert_array_equal(read(tiff(PLAIN, more=((254, 4, 1),))).pixels, PLAIN)


def translucent_avif(**options: bytes) -> bytes:
    image = photograph(64, 48)
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    return saved(image, "AVIF", quality=100, **options)


def test_an_avif_alpha_plane_without_a_size_gets_that_of_its_image() -> None:
    data = translucent_avif()
    _, items = avif_items(data)
    alpha = next(iter(items.auxiliary))
    at, wide, _ = items.link_at[alpha]
    numbers = items.links[alpha]
    assert not wide
    assert items.properties[numbers[0] - 1].kind == b"ispe"
    without = replaced(data, at + 1, bytes((numbers[1],)))  # named twice instead
    np.testing.assert_array_equal(read(without).alpha, read(data).alpha)  # type: ignore[arg-type]
    np.testing.assert_array_equal(read(without).pixels, read(data).pixels)


@pytest.mark.parametrize("extents", [0, 1])
def test_an_avif_alpha_plane_without_data_is_left_out(extents: int) -> None:
    data = translucent_avif()
    _, items = avif_items(data)
    offset, length = items.extents[next(iter(items.auxiliary))][0]
    entry = data.index(struct.pack(">HII", 1, offset, length))
    if extents:
        broken = replaced(data, entry + 6, bytes(4))
    else:
        # No extent at all; what follows is padded so that nothing else moves.
        others = data[entry + 10 :]
        last = items.extents[item_of(data, b"av01")][0]
        assert entry > data.index(struct.pack(">HII", 1, *last))  # alpha is the last entry
        broken = data[:entry] + bytes(10) + others
    image = read(broken)
    assert image.alpha is None
    np.testing.assert_array_equal(image.pixels, read(data).pixels)


def test_an_avif_that_does_not_conform_says_so() -> None:
    data = translucent_avif()
    av1c = next(box for box in avif_items(data)[1].properties if box.kind == b"av1C")
    with pytest.raises(BrokenImage, match="AVIF file is damaged or does not conform"):
        read(replaced(data, av1c.start + 4, b"junk"))
    cut = data[: len(data) // 2]
    with pytest.raises(BrokenImage):
        read(cut)


@pytest.mark.parametrize("angle", range(4))
@pytest.mark.parametrize("axis", range(2))
def test_avif_turns_by_irot_and_imir_alone(angle: int, axis: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = 5  # written as a turn and a mirror
    data = saved(photograph(48, 32), "AVIF", quality=100, subsampling="4:4:4", exif=exif)
    data = replaced(data, data.index(b"irot") + 4, bytes((angle,)))
    data = replaced(data, data.index(b"imir") + 4, bytes((axis,)))
    turned = np.rot90(np.array(photograph(48, 32)), angle)  # anticlockwise (ISO/IEC 23008-12, 6.5.10)
    expected = turned[:, ::-1] if axis else turned[::-1]  # 6.5.12: 0 exchanges top and bottom
    assert np.abs(read(data).pixels.astype(int) - expected).max() <= 12
