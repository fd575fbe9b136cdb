"""Fixtures for the evaluation's tests: five small images, a folder of them, distorted copies."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from model.types import Pixels


@pytest.fixture(scope="session")
def pictures(photograph: Pixels) -> list[Pixels]:
    """Five images, uint8 [192, 192, 3]: details of a portrait, a gradient with a disc, smooth noise."""
    side = 192
    details = [np.ascontiguousarray(photograph[t : t + side, c : c + side]) for t, c in ((0, 0), (90, 160), (400, 60))]
    y, x = np.mgrid[:side, :side]
    disc = np.stack([x, y, np.where(np.hypot(x - 90, y - 100) < 60, 220, 30)], axis=2).astype(np.uint8)
    noise = np.random.default_rng(3).integers(0, 255, (12, 12, 3), dtype=np.uint8)
    smooth = np.array(Image.fromarray(noise).resize((side, side), Image.Resampling.BICUBIC))
    return [*details, disc, smooth]


@pytest.fixture(scope="session")
def distorted(pictures: list[Pixels]) -> list[Pixels]:
    """The same as JPEG of quality 15."""
    return [as_jpeg(p, 15) for p in pictures]


@pytest.fixture
def folder(pictures: list[Pixels], tmp_path: Path) -> Path:
    """A folder of two of them."""
    path = tmp_path / "own"
    path.mkdir()
    for i, picture in enumerate(pictures[:2]):
        Image.fromarray(picture).save(path / f"{i}.png")
    return path


def as_jpeg(picture: Pixels, quality: int) -> Pixels:
    """Through a JPEG file and back."""
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "JPEG", quality=quality)
    return np.array(Image.open(out))


@pytest.fixture(scope="session")
def damaged(photograph: Pixels) -> list[tuple[Pixels, Pixels]]:
    """Five images, uint8 [128, 192, 3], each damaged in its own way: blur, noise, JPEG, blocks, lost contrast."""
    height, width = 128, 192
    details = [photograph[t : t + height, c : c + width].copy() for t, c in ((0, 0), (90, 160), (400, 60))]
    y, x = np.mgrid[:height, :width]
    disc = np.stack([x, y, np.where(np.hypot(x - 90, y - 70) < 40, 220, 30)], axis=2).astype(np.uint8)
    colours = np.random.default_rng(3).integers(0, 255, (12, 12, 3), dtype=np.uint8)
    smooth = np.array(Image.fromarray(colours).resize((width, height), Image.Resampling.BICUBIC))
    blurred = gaussian_filter(details[0].astype(float), (1.5, 1.5, 0))
    noisy = details[1] + np.random.default_rng(5).normal(0, 12, details[1].shape)
    blocks = disc.reshape(height // 8, 8, width // 8, 8, 3).mean(axis=(1, 3)).repeat(8, axis=0).repeat(8, axis=1)
    faded = 128 + 0.6 * (smooth - 128.0)
    after = [np.round(p).clip(0, 255).astype(np.uint8) for p in (blurred, noisy, blocks, faded)]
    after.insert(2, as_jpeg(details[2], 15))
    return list(zip([*details, disc, smooth], after, strict=True))
