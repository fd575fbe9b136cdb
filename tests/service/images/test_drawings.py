"""Icons, screenshots and line art: refused above quality 50 where they are smaller without loss."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageDraw

from service.errors import LosslessIsSmaller
from service.images.drawings import check_worth, is_drawing, lossless_size
from service.transcode import Local


@pytest.fixture(scope="module")
def screenshot() -> np.ndarray:
    image = Image.new("RGB", (320, 240), "white")
    draw = ImageDraw.Draw(image)
    for line in range(10):
        draw.text((8, 8 + 22 * line), "The quick brown fox jumps over the lazy dog", fill="black")
    return np.asarray(image)


def as_png(pixels: np.ndarray) -> bytes:
    out = BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def test_photographs_are_no_drawings(photograph: np.ndarray, screenshot: np.ndarray) -> None:
    assert not is_drawing(photograph)
    assert is_drawing(screenshot)
    assert not is_drawing(photograph[:, :1])


def test_what_is_smaller_without_loss_is_refused(screenshot: np.ndarray, photograph: np.ndarray) -> None:
    size = lossless_size(screenshot)
    assert size is not None
    with pytest.raises(LosslessIsSmaller, match=f"{size} bytes as lossless WebP, and {size} at quality 51"):
        check_worth(screenshot, 51, size)
    check_worth(screenshot, 51, size - 1)  # smaller here
    check_worth(screenshot, 50, 10**6)
    check_worth(screenshot, None, 10**6)
    check_worth(photograph, 90, 10**9)


def test_images_too_large_to_try_are_let_be() -> None:
    assert lossless_size(np.zeros((1, 16384, 3), np.uint8)) is None


def test_the_library_and_its_way_out(screenshot: np.ndarray, photograph: np.ndarray) -> None:
    local = Local(None, "float32", quiet=True)
    with pytest.raises(LosslessIsSmaller, match="drawing=allow"):
        local.encode(as_png(screenshot), {"quality": 80})
    allowed = local.encode(as_png(screenshot), {"quality": 80, "drawing": "allow"})
    size = lossless_size(screenshot)
    assert size is not None
    assert len(allowed.data) > size
    local.encode(as_png(screenshot), {"quality": 40})
    local.encode(as_png(photograph[:64, :64]), {"quality": 90})
