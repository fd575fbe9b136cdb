"""Fixtures for all tests: a photograph, the shipped model, the folder of shared data."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def photograph() -> npt.NDArray[np.uint8]:
    """The public-domain portrait of Grace Hopper that matplotlib carries, uint8 [600, 512, 3]."""
    from matplotlib import cbook

    with cbook.get_sample_data("grace_hopper.jpg") as file:
        return np.asarray(Image.open(file).convert("RGB"))


@pytest.fixture(scope="session")
def crop(photograph: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """A part of the photograph whose sides are no multiples of 64, uint8 [120, 150, 3]."""
    return np.ascontiguousarray(photograph[60:180, 180:330])


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of shared data, from CDC_SHARED; tests that need it skip where it is absent."""
    folder = os.environ.get("CDC_SHARED")
    if not folder or not Path(folder).is_dir():
        pytest.skip("CDC_SHARED does not name the folder of shared data")
    return Path(folder)
