"""What runs are made of: a folder of small images, and a backbone to judge by."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

SIDE = 160
FIRES = {3: (64, 16, 64), 4: (128, 16, 64), 6: (128, 32, 128), 7: (256, 32, 128)}
FIRES |= {9: (256, 48, 192), 10: (384, 48, 192), 11: (384, 64, 256), 12: (512, 64, 256)}


@pytest.fixture(scope="session")
def pictures(photograph: npt.NDArray[np.uint8], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine parts of a photograph, 160x160, as PNG."""
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(9):
        top, left = 40 + 140 * (number // 3), 10 + 165 * (number % 3)
        Image.fromarray(photograph[top : top + SIDE, left : left + SIDE]).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def squeezenet(tmp_path: Path) -> str:
    """A SqueezeNet 1.1 with random weights."""
    sizes = {"features.0": (64, 3, 3)}
    for i, (into, squeezed, wide) in FIRES.items():
        sizes[f"features.{i}.squeeze"] = (squeezed, into, 1)
        sizes[f"features.{i}.expand1x1"] = (wide, squeezed, 1)
        sizes[f"features.{i}.expand3x3"] = (wide, squeezed, 3)
    rng = np.random.default_rng(0)
    arrays = {}
    for name, (out, into, kernel) in sizes.items():
        spread = (into * kernel**2) ** -0.5
        arrays[f"{name}.weight"] = rng.normal(0, spread, (out, into, kernel, kernel)).astype(np.float16)
        arrays[f"{name}.bias"] = np.zeros(out, np.float16)
    np.savez(tmp_path / "squeezenet.npz", **arrays)
    return f"squeezenet:{tmp_path / 'squeezenet.npz'}"
