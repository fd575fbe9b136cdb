"""Alpha sections of `.cdc` files."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from model.container import SectionType
from model.errors import MalformedFile
from service.images.alpha import pack_alpha, unpack_alpha
from tests.service.conftest import image_file, png


def test_alpha_sections() -> None:
    alpha = np.random.default_rng(1).integers(0, 256, (20, 30)).astype(np.uint8)
    section = pack_alpha(alpha)
    assert section.type == SectionType.ALPHA
    np.testing.assert_array_equal(unpack_alpha(section.data, 30, 20), alpha)


ALPHA = pack_alpha(np.random.default_rng(2).integers(0, 256, (20, 30)).astype(np.uint8)).data


@pytest.mark.parametrize(
    "data",
    [
        b"",
        ALPHA[:20],
        ALPHA[:-60],
        ALPHA[:60] + bytes(len(ALPHA) - 60),
        pack_alpha(np.zeros((30, 20), np.uint8)).data,
        image_file(Image.new("RGB", (30, 20))),
        image_file(Image.new("1", (30, 20))),
        image_file(Image.new("L", (30, 20)), "JPEG"),
        png(60000, 60000, 8, 0, b""),
        png(30, 20, 4, 0, bytes(20 * 16)),
        png(30, 20, 8, 0, b"") + png(60000, 60000, 8, 0, b""),
    ],
)
def test_damaged_alpha_sections(data: bytes) -> None:
    with pytest.raises(MalformedFile, match="alpha section"):
        unpack_alpha(data, 30, 20)
