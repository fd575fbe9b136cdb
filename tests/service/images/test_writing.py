"""Pixels and alpha to image files."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import ExifTags, Image

from model.errors import InvalidParameter
from service.images.writing import Format, write_image
from tests.service.conftest import photograph


def opened(data: bytes) -> Image.Image:
    return Image.open(BytesIO(data))


@pytest.mark.parametrize("format", ["png", "webp", "jpeg"])
@pytest.mark.parametrize("with_alpha", [False, True])
def test_writing(format: Format, with_alpha: bool) -> None:
    pixels = np.array(photograph())
    alpha = np.linspace(0, 255, 24 * 32).astype(np.uint8).reshape(24, 32) if with_alpha else None
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Maker"
    block = exif.tobytes().removeprefix(b"Exif\x00\x00")
    image = opened(write_image(pixels, alpha, block, format))
    assert image.mode == ("RGBA" if with_alpha and format != "jpeg" else "RGB")
    assert image.getexif()[ExifTags.Base.Make] == "Maker"
    if format == "png":
        np.testing.assert_array_equal(np.array(image)[..., :3], pixels)
        assert image.info["srgb"] == 0
    if with_alpha and format == "jpeg":
        cover = alpha[..., None] / 255  # type: ignore[index]
        expected = pixels * cover + 255 * (1 - cover)
        assert np.abs(np.array(image) - expected).max() <= 12
    elif with_alpha:
        np.testing.assert_array_equal(np.array(image)[..., 3], alpha)  # type: ignore[arg-type]


@pytest.mark.parametrize("format", ["png", "webp", "jpeg"])
def test_exif_too_long_for_a_jpeg_is_left_out(format: Format) -> None:
    assert "exif" not in opened(write_image(np.array(photograph()), None, bytes(70_000), format)).info


@pytest.mark.parametrize(("format", "side"), [("webp", 16384), ("jpeg", 65501)])
def test_sides_a_format_cannot_hold(format: Format, side: int) -> None:
    with pytest.raises(InvalidParameter, match="ask for png"):
        write_image(np.zeros((1, side, 3), np.uint8), None, None, format)
    assert opened(write_image(np.zeros((1, side - 1, 3), np.uint8), None, None, format)).size == (side - 1, 1)
