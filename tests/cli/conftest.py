"""An image, its file, and models that are loaded once."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from service import transcode
from tests.cli.command import cdc

Pixels = npt.NDArray[np.uint8]


@pytest.fixture(scope="module", autouse=True)
def _quick() -> Iterator[None]:
    """Load models once; one thread, as waiting for a second costs more than it gives on images this small."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transcode, "registry_of", functools.cache(transcode.registry_of))
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def image(crop: Pixels, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PNG file of 64x56 pixels."""
    path = tmp_path_factory.mktemp("cli") / "in.png"
    Image.fromarray(crop[:56, :64]).save(path)
    return path


@pytest.fixture(scope="module")
def file(image: Path) -> Path:
    """The image as a `.cdc` file."""
    path = image.with_name("x.cdc")
    assert cdc("encode", image, path).code == 0
    return path
