"""What is a valid file but not supported says so, and does not count as damaged."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from PIL import Image

from service.errors import BrokenImage, UnsupportedImage
from service.images.reading import probe_image
from tests.service.conftest import image_file, photograph
from tests.service.images.builders import MAX, PNG_HEAD, avif_items, chunk, read, replaced, riff, tiff

PLAIN = np.array(photograph())


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (tiff(PLAIN.astype("f4"), 32, 2, 3), "sample format 3"),
        (tiff(PLAIN.astype("f8"), 64, 2, 3), "sample format 3"),
        (tiff(PLAIN.astype("f2"), 16, 2, 3), "sample format 3"),
        (tiff(PLAIN.astype("u4"), 32, 2, 1), r"\(32, 32, 32\) bits"),
        (tiff(PLAIN.astype("i2"), 16, 2, 2), "sample format 2"),
        (tiff(PLAIN, compression=34712), "compression 34712"),  # JPEG 2000
        (tiff(PLAIN, compression=34887), "compression 34887"),  # LERC
        (tiff(PLAIN, compression=34676), "compression 34676"),  # SGILOG
        (tiff(PLAIN, compression=50001), "compression 50001"),  # WebP
        (tiff(PLAIN, photometric=9), "interpretation 9"),  # ICC Lab
        (tiff(PLAIN[..., 0], photometric=32803), "interpretation 32803"),  # colour filter array
        (tiff(PLAIN, photometric=8), "'LAB'"),
        (tiff(PLAIN[..., 0].astype("f4"), 32, 1, 3), "'F'"),
        (tiff(PLAIN[..., 0].astype("i4"), 32, 1, 2), "'I'"),
    ],
)
def test_tiff_layouts(data: bytes, reason: str) -> None:
    with pytest.raises(UnsupportedImage, match=f"{reason}.* not supported"):
        read(data)


@pytest.mark.parametrize("order", ["<", ">"])
def test_what_is_near_to_these_layouts_is_read(order: str) -> None:
    np.testing.assert_array_equal(read(tiff(PLAIN, order=order)).pixels, PLAIN)
    wide = PLAIN.astype("u2") * 257
    np.testing.assert_array_equal(read(tiff(wide, 16, order=order)).pixels, PLAIN)
    np.testing.assert_array_equal(read(tiff(255 - PLAIN[..., 0], 8, 0)).pixels[..., 0], PLAIN[..., 0])


def frame_at(data: bytes) -> int:
    """Where the frame header of a JPEG file starts."""
    return data.index(b"\xff\xc0")


@pytest.mark.parametrize("marker", [0xC3, 0xC5, 0xC6, 0xC7, 0xCB, 0xCD, 0xCE, 0xCF])
def test_jpeg_processes(marker: int) -> None:
    data = image_file(photograph(), "JPEG")
    with pytest.raises(UnsupportedImage, match=r"(lossless|hierarchical) JPEG is not supported"):
        read(replaced(data, frame_at(data) + 1, bytes((marker,))))


@pytest.mark.parametrize(
    ("at", "new", "reason"),
    [(4, b"\x0c", "12 bits"), (4, b"\x10", "16 bits"), (5, b"\0\0", "DNL")],
)
def test_jpeg_frames(at: int, new: bytes, reason: str) -> None:
    data = image_file(photograph(), "JPEG")
    for function in (read, lambda d: probe_image(d, max_pixels=MAX)):
        with pytest.raises(UnsupportedImage, match=reason):
            function(replaced(data, frame_at(data) + at, new))  # type: ignore[operator]


@pytest.mark.parametrize("components", [2, 5])
def test_jpeg_components(components: int) -> None:
    data = image_file(photograph(), "JPEG")
    start = frame_at(data)
    body = data[start + 4 : start + 9] + bytes((components,)) + b"".join(bytes((k, 0x11, 0)) for k in range(components))
    frame = b"\xff\xc0" + struct.pack(">H", len(body) + 2) + body
    with pytest.raises(UnsupportedImage, match=f"{components} components"):
        read(data[:start] + frame + data[start + 19 :])


def test_jpeg_of_very_many_scans() -> None:
    data = image_file(photograph(), "JPEG", progressive=True)
    with pytest.raises(UnsupportedImage, match="scans"):
        read(data[:-2] + b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00" * 200 + data[-2:])


def bmp(bits: int, compression: int, header: int = 40) -> bytes:
    fields = struct.pack("<IiiHHIIiiII", header, 8, 8, 1, bits, compression, 0, 0, 0, 0, 0).ljust(header, b"\0")
    return b"BM" + struct.pack("<IHHI", 2000, 0, 0, 14 + header) + fields + bytes(1500)


@pytest.mark.parametrize(("bits", "compression"), [(0, 4), (0, 5), (24, 4), (2, 0), (64, 0), (32, 11), (16, 3)])
def test_bmp_layouts(bits: int, compression: int) -> None:
    with pytest.raises(UnsupportedImage, match=f"BMP of {bits} bits and compression {compression} is not supported"):
        read(bmp(bits, compression))


def test_png_chunks_that_must_be_understood() -> None:
    data = image_file(photograph(), "PNG")
    apple = data[:8] + chunk(b"CgBI", bytes(4)) + data[8:]
    unknown = data[:PNG_HEAD] + chunk(b"NEWw", b"") + data[PNG_HEAD:]
    for file in (apple, unknown):
        with pytest.raises(UnsupportedImage, match=r"critical chunk .* not supported"):
            read(file)


@pytest.mark.parametrize(
    "data", [riff(b"RIFF", b"AVI "), b"\0\0\0\x18ftypheic" + bytes(4) + b"mif1heic", b"II+\0" + bytes(40)]
)
def test_other_kinds(data: bytes) -> None:
    with pytest.raises(UnsupportedImage, match="accepted kind"):
        read(data)


def test_an_avif_of_a_general_brand_is_read() -> None:
    data = image_file(photograph(), "AVIF")
    assert data[4:12] == b"ftypavif"
    np.testing.assert_array_equal(read(replaced(data, 8, b"mif1")).pixels, read(data).pixels)


@pytest.mark.parametrize("kind", [b"iovl", b"iden", b"hvc1"])
def test_avif_images_made_of_others(kind: bytes) -> None:
    data = image_file(photograph(), "AVIF")
    with pytest.raises(UnsupportedImage, match=kind.decode()):
        read(replaced(data, avif_items(data)[1].kinds[1], kind))


def test_damage_stays_damage() -> None:
    for data in (tiff(PLAIN)[:2000], image_file(photograph(), "JPEG")[:400], bmp(24, 0)[:60], bmp(24, 99)):
        with pytest.raises(BrokenImage):
            read(data)


def test_cmyk_is_read() -> None:
    image = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    for kind in ("JPEG", "TIFF"):
        assert np.abs(read(image_file(image, kind)).pixels.astype(int) - [255, 0, 0]).max() <= 6
