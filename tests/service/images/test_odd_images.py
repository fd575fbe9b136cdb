"""The shared cases of odd files."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from service.errors import UnsupportedImage
from tests.service.images.builders import read


@pytest.fixture(scope="module")
def cases(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, bytes, str]]:
    """Name, file and expectation of each case; skips where CDC_SHARED names no folder."""
    folder = tmp_path_factory.mktemp("odd")
    script = shared_data / "cases" / "odd_images.py"
    if not script.is_file():
        pytest.skip(f"there is no {script}")
    subprocess.run([sys.executable, script, folder], check=True, timeout=60)
    expected = json.loads((folder / "cases.json").read_text())
    return [(name, (folder / name).read_bytes(), text) for name, text in expected.items()]


def plain() -> np.ndarray:
    x, y = np.linspace(0, 255, 96), np.linspace(255, 0, 64)
    return np.stack([np.tile(x, (64, 1)), np.tile(y[:, None], (1, 96)), np.full((64, 96), 90)], axis=2).astype(np.uint8)


def test_the_shared_cases(cases: list[tuple[str, bytes, str]]) -> None:
    assert len(cases) >= 12
    for name, data, expected in cases:
        try:
            image = read(data)
        except UnsupportedImage:
            assert "unsupported" in expected, name
            continue
        size = re.search(r"size (\d+)x(\d+)", expected)
        assert image.pixels.shape[1::-1] == (tuple(map(int, size.groups())) if size else (96, 64)), name
        if "plain" in expected:
            assert np.abs(image.pixels.astype(int) - plain()).mean() <= 2, name
        if free := re.search(r"transparent (\d+)", expected):
            assert image.alpha is not None, name
            assert (image.alpha == 0).sum() == int(free[1]), name
        if means := re.search(r"mean (\d+) (\d+) (\d+)", expected):
            difference = image.pixels.reshape(-1, 3).mean(axis=0) - list(map(int, means.groups()))
            assert np.abs(difference).max() <= 3, name
        if "converted" in expected or "tone-mapped" in expected:
            assert np.abs(image.pixels.astype(int) - plain()).mean() > 2, name
