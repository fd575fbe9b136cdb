"""A photograph of twelve megapixels, as phones make them, the whole way: through the client and through `cdc`."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks.server import running_server
from cdc_client import Client

pytestmark = pytest.mark.slow
WIDTH, HEIGHT = 4000, 3000


@pytest.fixture(scope="module")
def pixels(photograph: Any) -> np.ndarray:
    """uint8 [3000, 4000, 3], with the noise of a sensor."""
    noise = np.random.default_rng(0).integers(-6, 7, (HEIGHT, WIDTH, 1))
    large = Image.fromarray(photograph[:384]).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    return (np.asarray(large) + noise).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running_server() as (http, _):
        yield str(http.base_url).rstrip("/")


def test_an_array_goes_in_and_a_file_comes_out(url: str, pixels: np.ndarray, tmp_path: Path) -> None:
    with Client(url) as cdc:
        small = cdc.encode(pixels, target_bpp=0.1, out=tmp_path / "photo.cdc")
        assert (small.width, small.height) == (WIDTH, HEIGHT)
        assert small.bpp == pytest.approx(0.1, rel=0.1)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        image = cdc.decode(tmp_path / "photo.cdc", out=tmp_path / "photo.png")
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert image.path is not None
    assert grown * 1024 < image.path.stat().st_size / 2  # it was never held
    with Image.open(image.path) as opened:
        decoded = np.asarray(opened)
    error = np.mean((decoded[::4, ::4].astype(float) - pixels[::4, ::4]) ** 2)
    assert 10 * np.log10(255**2 / error) > 30


def test_a_folder_of_it_through_the_command(url: str, pixels: np.ndarray, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    Image.fromarray(pixels).save(tmp_path / "photos" / "large.jpg", quality=92)
    Image.fromarray(pixels[:300, :400]).save(tmp_path / "photos" / "small.jpg", quality=92)

    def cdc(*arguments: str) -> list[str]:
        argv = [sys.executable, "-m", "cdc_client", *arguments, "--url", url]
        done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, timeout=400)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    assert cdc("encode", "photos", "-o", "archive")[-1].startswith("2 done, 0 up to date, 0 failed: ")
    assert cdc("encode", "photos", "-o", "archive")[-1].startswith("0 done, 2 up to date")
    cdc("decode", "archive", "-o", "decoded", "--format", "jpeg")
    with Image.open(tmp_path / "decoded" / "large.jpg") as decoded:
        assert decoded.size == (WIDTH, HEIGHT)
    assert len(cdc("inspect", "archive")) == 3
