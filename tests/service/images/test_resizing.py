"""Decoded regions to the size that is asked for."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from model.tiling import Region
from service.framing import Frame, frame_of
from service.images.resizing import framed

H, W = 120, 200
PIXELS = np.random.default_rng(1).integers(0, 256, (H, W, 3), np.uint8)
ALPHA = np.random.default_rng(2).integers(0, 256, (H, W), np.uint8)


def test_nothing_to_do_changes_nothing() -> None:
    pixels, alpha = framed(PIXELS, ALPHA, frame_of((W, H)))
    assert alpha is not None
    np.testing.assert_array_equal(pixels, PIXELS)
    np.testing.assert_array_equal(alpha, ALPHA)
    assert framed(PIXELS, None, frame_of((W, H)))[1] is None


def test_a_region_is_cut_from_alpha_too() -> None:
    region = Region(30, 40, 50, 60)
    pixels, alpha = framed(PIXELS[40:100, 30:80], ALPHA, Frame(region, (50, 60), (50, 60)))
    assert alpha is not None
    np.testing.assert_array_equal(pixels, PIXELS[40:100, 30:80])
    np.testing.assert_array_equal(alpha, ALPHA[40:100, 30:80])


def test_it_is_lanczos() -> None:
    pixels, _ = framed(PIXELS, None, frame_of((W, H), None, 77))
    expected = Image.fromarray(PIXELS).resize((77, 46), Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(pixels, np.asarray(expected))


@pytest.mark.parametrize("reduction", [2, 4])
@pytest.mark.parametrize("region", [Region(0, 0, W, H), Region(33, 17, 101, 66), Region(197, 117, 3, 3)])
def test_a_decode_at_a_fraction_lands_where_the_whole_would(reduction: int, region: Region) -> None:
    """A ramp tells where each pixel comes from."""
    y, x = np.mgrid[0 : 2 * H, 0 : 2 * W]  # wider than the image, as the canvas of a decode is
    ramp = np.stack([x, y, x], axis=-1).astype(np.uint8)[:, :, :]
    small = np.asarray(Image.fromarray(ramp).reduce(reduction))
    right, bottom = region.left + region.width, region.top + region.height
    part = small[region.top // reduction : -(-bottom // reduction), region.left // reduction : -(-right // reduction)]
    size = max(1, region.width // 5), max(1, region.height // 5)
    frame = Frame(region, size, size)
    found, alpha = framed(part, np.full((H, W), 255, np.uint8), frame, reduction)
    whole, _ = framed(ramp[region.top : bottom, region.left : right], None, frame)
    assert alpha is not None
    assert alpha.min() == 255
    assert np.abs(found.astype(int) - whole).max() <= 2


def test_contain_pads_with_nothing() -> None:
    pixels, alpha = framed(PIXELS, None, frame_of((W, H), None, 100, 100, "contain"))
    assert pixels.shape == (100, 100, 3)
    assert alpha is not None
    assert (alpha[20:80] == 255).all()
    assert not alpha[:20].any()
    assert not alpha[80:].any()


def test_hidden_colours_do_not_bleed() -> None:
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[:, ::2] = 200
    alpha = np.zeros((64, 64), np.uint8)
    alpha[:, ::2] = 255
    found, _ = framed(pixels, alpha, frame_of((64, 64), None, 16))
    assert found[2:-2, 2:-2].min() >= 190
