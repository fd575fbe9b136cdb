"""Image files in and out: every kind of pixel, orientation, profile and frame."""

from __future__ import annotations

import struct
from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms

from service.errors import AnimatedImage
from service.images.reading import InputImage, probe_image, read_image
from tests.service.conftest import KINDS, image_file, photograph, png

MAX = 1_000_000


def read(data: bytes, **options: Any) -> InputImage:
    return read_image(data, max_pixels=MAX, **options)


def opened(data: bytes) -> Image.Image:
    return Image.open(BytesIO(data))


@pytest.mark.parametrize("kind", KINDS)
def test_every_accepted_kind(kind: str) -> None:
    data = image_file(photograph(), kind)
    result = read(data)
    assert probe_image(data, max_pixels=MAX) == (32, 24)
    assert result.pixels.dtype == np.uint8
    assert result.pixels.shape == (24, 32, 3)
    assert result.alpha is None
    difference = np.abs(result.pixels.astype(int) - np.array(photograph()).astype(int))
    limit = 0 if kind in ("PNG", "BMP", "TIFF", "PPM") else 24
    assert difference.max() <= limit


@pytest.mark.parametrize("size", [(1, 1), (1, 4000), (4000, 1)])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_thin_and_tiny_images(kind: str, size: tuple[int, int]) -> None:
    assert read(image_file(photograph(*size), kind)).pixels.shape == (size[1], size[0], 3)


# How the stored image must be turned to stand upright (EXIF 2.3, tag 0x0112), in numpy's terms.
UPRIGHT: dict[int, Callable[[Any], Any]] = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.swapaxes(0, 1),
    6: lambda p: np.rot90(p, -1),
    7: lambda p: p[::-1, ::-1].swapaxes(0, 1),
    8: lambda p: np.rot90(p, 1),
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_orientation_is_applied_and_then_forgotten(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    exif[ExifTags.Base.Make] = "Maker"
    stored = photograph()
    stored.putalpha(Image.fromarray(np.arange(24 * 32).astype(np.uint8).reshape(24, 32)))
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    data = image_file(stored, kind, exif=exif, **options)
    result = read(data, metadata="keep")
    turn = UPRIGHT[orientation]
    np.testing.assert_array_equal(result.pixels, turn(np.array(stored)[..., :3]))
    assert result.alpha is not None
    np.testing.assert_array_equal(result.alpha, turn(np.array(stored)[..., 3]))
    assert result.exif is not None
    kept = Image.Exif()
    kept.load(b"Exif\x00\x00" + result.exif)
    assert dict(kept) == {int(ExifTags.Base.Make): "Maker"}


def test_an_orientation_out_of_range_is_ignored() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 9
    np.testing.assert_array_equal(read(image_file(photograph(), "PNG", exif=exif)).pixels, np.array(photograph()))


def test_location_maker_notes_and_thumbnail_never_stay() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Model] = "Camera"
    exif[ExifTags.IFD.GPSInfo] = {ExifTags.GPS.GPSLatitude: (51.0, 28.0, 38.0), ExifTags.GPS.GPSLatitudeRef: "N"}
    exif[ExifTags.IFD.Exif] = {
        ExifTags.Base.LensModel: "50 mm",
        ExifTags.Base.MakerNote: b"Greenwich",
        ExifTags.Base.ExposureTime: 0.01,
    }
    data = image_file(photograph(), "JPEG", exif=exif)
    assert opened(data).getexif().get_ifd(ExifTags.IFD.GPSInfo)  # the image does say where it was taken
    assert read(data).exif is None
    block = read(data, metadata="keep").exif
    assert block is not None
    kept = Image.Exif()
    kept.load(b"Exif\x00\x00" + block)
    assert kept[ExifTags.Base.Model] == "Camera"
    assert kept.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.LensModel] == "50 mm"
    assert not kept.get_ifd(ExifTags.IFD.GPSInfo)
    assert b"Greenwich" not in block


@pytest.mark.parametrize(
    "block", [b"Exif\x00\x00", b"Exif\x00\x00II*\x00\xff\xff\xff\xff", b"Exif\x00\x00" + b"MM" * 40]
)
def test_damaged_exif_costs_neither_image_nor_error(block: bytes) -> None:
    result = read(image_file(photograph(), "JPEG", exif=block), metadata="keep")
    assert result.exif is None
    assert result.pixels.shape == (24, 32, 3)


def test_grey_bilevel_and_palette() -> None:
    grey = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    expected = np.repeat(np.array(grey)[..., None], 3, axis=2)
    np.testing.assert_array_equal(read(image_file(grey)).pixels, expected)
    two = grey.point(lambda v: 255 if v > 99 else 0).convert("1")
    np.testing.assert_array_equal(read(image_file(two)).pixels[..., 1], np.where(np.array(grey) > 99, 255, 0))
    palette = photograph().quantize(16)
    np.testing.assert_array_equal(read(image_file(palette)).pixels, np.array(palette.convert("RGB")))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bit_grey_is_rounded_not_cut(kind: str) -> None:
    values = np.array([[0, 128, 129, 257, 32767, 32896, 65406, 65407, 65535]], np.uint16)
    if kind == "PPM":
        data = b"P5 9 1 65535\n" + values.astype(">u2").tobytes()
    else:
        data = image_file(Image.fromarray(values), kind)
    result = read(data)
    np.testing.assert_array_equal(result.pixels[..., 0], np.round(values / 257).astype(np.uint8))


def test_sixteen_bit_colour() -> None:
    rows = b"\x00" + np.array([[0x1234, 0x80FF, 0xFFFF], [0, 0x0100, 0xFE00]], ">u2").tobytes()
    pixels = read(png(2, 1, 16, 2, rows)).pixels
    assert np.abs(pixels.astype(int) - [[[0x12, 0x80, 0xFF], [0, 1, 0xFE]]]).max() <= 1


def test_a_transparent_colour_of_a_sixteen_bit_file() -> None:
    grey = png(3, 1, 16, 0, b"\x00" + np.array([5, 1000, 5], ">u2").tobytes(), (b"tRNS", struct.pack(">H", 5)))
    assert np.array_equal(read(grey).alpha, [[0, 255, 0]])  # type: ignore[arg-type]
    rows = b"\x00" + np.array([[0x1234, 0x2256, 0x3378], [0x4444, 0, 0]], ">u2").tobytes()
    colour = png(2, 1, 16, 2, rows, (b"tRNS", struct.pack(">HHH", 0x1234, 0x2256, 0x3378)))
    assert np.array_equal(read(colour).alpha, [[0, 255]])  # type: ignore[arg-type]


def test_palette_with_transparency() -> None:
    image = Image.new("P", (2, 2))
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.putdata([0, 1, 2, 0])
    result = read(image_file(image, "PNG", transparency=bytes([0, 128, 255])))
    np.testing.assert_array_equal(result.pixels, [[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 0, 0]]])
    np.testing.assert_array_equal(result.alpha, [[0, 128], [255, 0]])  # type: ignore[arg-type]
    gif = read(image_file(image, "GIF", transparency=1))
    np.testing.assert_array_equal(gif.alpha, [[255, 0], [255, 255]])  # type: ignore[arg-type]


def test_grey_with_alpha_and_colour_key() -> None:
    image = Image.merge("LA", (Image.new("L", (2, 1), 77), Image.fromarray(np.array([[10, 200]], np.uint8))))
    result = read(image_file(image))
    np.testing.assert_array_equal(result.pixels, np.full((1, 2, 3), 77))
    np.testing.assert_array_equal(result.alpha, [[10, 200]])  # type: ignore[arg-type]
    keyed = read(image_file(photograph(), "PNG", transparency=(0, 0, 255)))
    assert keyed.alpha is not None
    assert keyed.alpha[0, 0] == 0
    assert (keyed.alpha == 255).sum() == 32 * 24 - 1


def test_alpha_that_is_all_opaque_is_none_and_dropped_alpha_is_laid_over_the_background() -> None:
    opaque = photograph()
    opaque.putalpha(255)
    assert read(image_file(opaque)).alpha is None
    half = Image.new("RGBA", (1, 3), (200, 100, 0, 128))
    half.putpixel((0, 1), (200, 100, 0, 0))
    half.putpixel((0, 2), (200, 100, 0, 255))
    white = read(image_file(half), alpha="drop")
    assert white.alpha is None
    assert white.pixels[1].tolist() == [[255, 255, 255]]
    assert white.pixels[2].tolist() == [[200, 100, 0]]
    assert np.abs(white.pixels[0].astype(int) - [[227, 177, 127]]).max() <= 1
    black = read(image_file(half), alpha="drop", background=(0, 0, 0))
    assert black.pixels[1].tolist() == [[0, 0, 0]]


def test_cmyk_without_a_profile() -> None:
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    for kind in ("JPEG", "TIFF"):
        pixels = read(image_file(image, kind)).pixels
        assert np.abs(pixels.astype(int) - [255, 0, 0]).max() <= 6, kind


def profile(name: str) -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile(name)).tobytes()  # type: ignore[arg-type]


def swapped_profile(renamed: bool = True) -> bytes:
    """Return an sRGB profile whose red and green primaries have changed places, under another name or its own."""
    data = bytearray(profile("sRGB"))
    count = struct.unpack(">I", data[128:132])[0]
    entries = {bytes(data[o : o + 4]): o for o in range(132, 132 + 12 * count, 12)}
    red, green = entries[b"rXYZ"], entries[b"gXYZ"]
    data[red + 4 : red + 12], data[green + 4 : green + 12] = data[green + 4 : green + 12], data[red + 4 : red + 12]
    if not renamed:
        return bytes(data)
    return bytes(data).replace("sRGB".encode("utf-16-be"), "swap".encode("utf-16-be")).replace(b"sRGB b", b"swap b")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_colours_are_converted_from_the_profile(kind: str) -> None:
    image = Image.new("RGB", (16, 16), (255, 0, 0))
    plain = read(image_file(image, kind)).pixels
    converted = read(image_file(image, kind, icc_profile=swapped_profile())).pixels
    assert np.abs(plain.astype(int) - [255, 0, 0]).max() <= 3
    assert np.abs(converted.astype(int) - [0, 255, 0]).max() <= 8


def test_alpha_is_no_colour_to_a_profile() -> None:
    image = Image.new("RGBA", (2, 1), (255, 0, 0, 90))
    result = read(image_file(image, "PNG", icc_profile=swapped_profile()))
    np.testing.assert_array_equal(result.alpha, [[90, 90]])  # type: ignore[arg-type]
    assert np.abs(result.pixels.astype(int) - [0, 255, 0]).max() <= 8


def test_srgb_damaged_and_unfitting_profiles_change_nothing() -> None:
    srgb = profile("sRGB")
    damaged = srgb[:200] + bytes(len(srgb) - 200)
    by_name = swapped_profile(renamed=False)  # what calls itself sRGB is not transformed
    for icc in (srgb, by_name, damaged, b"x" * 200, b"x", profile("LAB")):
        np.testing.assert_array_equal(
            read(image_file(photograph(), "PNG", icc_profile=icc)).pixels, np.array(photograph())
        )


def frames() -> list[Image.Image]:
    return [Image.new("RGB", (8, 6), colour) for colour in ("red", "green", "blue")]


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_several_frames_are_refused_unless_the_first_is_asked_for(kind: str) -> None:
    first, *rest = frames()
    data = image_file(first, kind, save_all=True, append_images=rest)
    with pytest.raises(AnimatedImage, match="frame=first"):
        read(data)
    with pytest.raises(AnimatedImage):
        probe_image(data, max_pixels=MAX)
    pixels = read(data, frame="first").pixels
    assert np.abs(pixels.astype(int) - [255, 0, 0]).max() <= 6


def test_a_multi_picture_jpeg_is_a_photograph() -> None:
    data = image_file(photograph(), "MPO", save_all=True, append_images=[Image.new("RGB", (8, 6))])
    assert opened(data).format == "MPO"
    assert read(data).pixels.shape == (24, 32, 3)
