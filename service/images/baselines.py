"""The codecs that an image is compared with: JPEG, WebP and AVIF of at most as many bytes, by Pillow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any, Literal

import numpy as np
from PIL import Image

from service.images.guard import typed_errors
from service.images.reading import read_image

Baseline = Literal["jpeg", "webp", "avif"]
OPTIONS: Mapping[Baseline, Mapping[str, Any]] = {
    "jpeg": {"optimize": True},
    "webp": {"method": 4},
    "avif": {"speed": 8, "max_threads": 1},
}
MAX_QUALITY = 100


@dataclass(frozen=True)
class Encoded:
    """An image file of another codec; `fits` is False where even quality 0 takes more bytes than were asked for."""

    data: bytes = field(repr=False)
    quality: int
    fits: bool


def compare_with(
    format: Baseline, image: bytes, max_bytes: int, *, max_pixels: int, go_on: Callable[[], bool] = lambda: True
) -> Encoded | None:
    """Return the best file of `format` of at most `max_bytes` bytes, of an image file laid over white. Blocks.

    `go_on` is asked before every try, of which there are at most seven; the answer is None once it says no.

    Raises:
        UnsupportedImage, BrokenImage, AnimatedImage, TooManyPixels: see `read_image`.
    """
    pixels = read_image(image, max_pixels=max_pixels, alpha="drop").pixels
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    best: Encoded | None = None
    low, high = 0, MAX_QUALITY
    while low <= high:
        if not go_on():
            return None
        quality = (low + high) // 2
        data = _encode(picture, format, quality)
        if len(data) <= max_bytes:
            best, low = Encoded(data, quality, fits=True), quality + 1
        else:
            high = quality - 1
    return best or Encoded(_encode(picture, format, 0), 0, fits=False)


def _encode(picture: Image.Image, format: Baseline, quality: int) -> bytes:
    out = BytesIO()
    with typed_errors():
        picture.save(out, format.upper(), quality=quality, **OPTIONS[format])
    return out.getvalue()
