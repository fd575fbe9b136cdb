"""Colour spaces that are kept."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageCms

from model.container import Space, unpack_space
from model.errors import MalformedFile, UnsupportedVersion
from service.images.colour import from_signal
from service.images.signal import cicp_signal
from service.images.spaces import icc_of, pack_space, signal_of, space_of, space_to_srgb
from service.images.writing import write_image
from service.work import Format
from tests.service.conftest import image_file, photograph
from tests.service.images.builders import chunk, png, read

PIXELS = np.random.default_rng(4).integers(0, 256, (24, 32, 3), np.uint8)


def profile_of(icc: bytes) -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(BytesIO(icc))


def other_profile(space: Space) -> bytes:
    """The profile under another name and of version 2's kind of number, as other programs write it."""
    data = icc_of(space).replace("Adobe RGB (1998)".encode("utf-16-be"), "Something else ".encode("utf-16-be") + b"\0!")
    return data[:64] + b"\0\0\0\1" + data[68:]


@pytest.mark.parametrize("space", Space)
def test_our_profiles_say_what_the_signal_says(space: Space) -> None:
    """Two roads to sRGB: the profile by lcms, primaries and curve by our own arithmetic."""
    srgb = ImageCms.createProfile("sRGB")
    intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
    inside = (60 + PIXELS.astype(int) // 4).astype(np.uint8)  # what sRGB can show
    image = ImageCms.profileToProfile(Image.fromarray(inside), profile_of(icc_of(space)), srgb, intent, "RGB")
    assert image is not None
    assert np.abs(np.asarray(image).astype(int) - space_to_srgb(inside, space)).max() <= 1
    assert len(icc_of(space)) < 700


def test_known_values() -> None:
    """The primaries of P3 by the standards' matrices, and a red of sRGB in Adobe RGB (219, 0, 0)."""
    adobe = np.array([[[219, 0, 0]]], np.uint8)
    assert np.abs(space_to_srgb(adobe, Space.ADOBE_RGB)[0, 0].astype(int) - (255, 0, 0)).max() <= 1
    p3 = np.array([[[234, 51, 35]]], np.uint8)  # sRGB's red
    assert np.abs(space_to_srgb(p3, Space.DISPLAY_P3)[0, 0].astype(int) - (255, 0, 0)).max() <= 5
    for space in Space:
        white = space_to_srgb(np.full((1, 1, 3), 255, np.uint8), space)
        assert white.min() >= 254


@pytest.mark.parametrize("space", Space)
def test_profiles_are_told_by_what_they_do(space: Space) -> None:
    assert space_of((icc_of(space),)) is space
    assert space_of((other_profile(space),)) is space
    assert space_of((b"damaged" * 40, icc_of(space))) is space


def test_other_colours_are_of_no_kept_space() -> None:
    srgb = profile_of(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()).tobytes()
    assert space_of(()) is None
    assert space_of((srgb,)) is None
    assert space_of((srgb, icc_of(Space.ADOBE_RGB))) is None
    p3, hlg, narrow = cicp_signal(12, 13, True), cicp_signal(9, 18, True), cicp_signal(12, 13, False)
    assert p3
    assert hlg
    assert narrow
    assert space_of((p3,)) is Space.DISPLAY_P3
    assert space_of((hlg,)) is None
    assert space_of((narrow,)) is None


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("space", Space)
def test_samples_of_a_kept_space_stay(kind: str, space: Space) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    tagged = image_file(photograph(), kind, icc_profile=icc_of(space), **options)
    bare = image_file(photograph(), kind, **options)
    kept, converted = read(tagged, colour="keep"), read(tagged)
    assert kept.space is space
    np.testing.assert_array_equal(kept.pixels, read(bare).pixels)
    assert converted.space is None
    assert np.abs(converted.pixels.astype(int) - from_signal(kept.pixels, signal_of(space))).max() <= 3


def test_a_png_that_signals_p3_stays() -> None:
    data = png(PIXELS.astype(np.uint16), 8, 2, chunk(b"cICP", bytes((12, 13, 0, 1))))
    found = read(data, colour="keep")
    assert found.space is Space.DISPLAY_P3
    np.testing.assert_array_equal(found.pixels, PIXELS)


def test_grey_and_cmyk_become_srgb() -> None:
    assert read(image_file(photograph().convert("CMYK"), "JPEG"), colour="keep").space is None
    grey = image_file(photograph().convert("L"), "PNG", icc_profile=icc_of(Space.DISPLAY_P3))
    assert read(grey, colour="keep").space is None


@pytest.mark.parametrize("format", ["png", "webp", "jpeg"])
@pytest.mark.parametrize("space", Space)
def test_written_files_carry_the_profile(format: Format, space: Space) -> None:
    data = write_image(PIXELS, None, None, format, space=space)
    assert Image.open(BytesIO(data)).info["icc_profile"] == icc_of(space)
    assert read(data, colour="keep").space is space
    assert "icc_profile" not in Image.open(BytesIO(write_image(PIXELS, None, None, format))).info


def test_the_section() -> None:
    for space in Space:
        assert unpack_space(pack_space(space).data) is space
    with pytest.raises(UnsupportedVersion, match="colour space 9 is unknown"):
        unpack_space(b"\x09")
    for data in (b"", b"\1\1"):
        with pytest.raises(MalformedFile):
            unpack_space(data)
