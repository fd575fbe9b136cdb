"""A folder of small pictures to train on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

SIDE = 160


@pytest.fixture(scope="session")
def pictures(photograph: npt.NDArray[np.uint8], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine parts of a photograph, 160x160, as PNG."""
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(9):
        top, left = 40 + 140 * (number // 3), 10 + 165 * (number % 3)
        Image.fromarray(photograph[top : top + SIDE, left : left + SIDE]).save(folder / f"{number}.png")
    return folder
