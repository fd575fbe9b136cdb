"""Fixtures for the evaluation's tests: five small pictures, a folder of them, distorted copies."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model.types import Pixels


@pytest.fixture(scope="session")
def pictures(photograph: Pixels) -> list[Pixels]:
    """Five pictures, uint8 [192, 192, 3]: details of a portrait, a gradient with a disc, smooth noise."""
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
