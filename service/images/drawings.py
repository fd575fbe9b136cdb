"""Icons, screenshots and line art: images that lossless WebP stores in fewer bytes than a codec for photographs."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image

from service.errors import LosslessIsSmaller

Pixels = npt.NDArray[np.uint8]  # [H, W, 3]

EQUAL_SHARE = 0.4  # of neighbours; photographs of the Kodak set have 0.03 to 0.17
ROWS = 512  # that are looked at
LOSSY_QUALITY = 50  # up to it a smaller file may be larger than a lossless one: its user asked for less than the image
MAX_PIXELS = 1 << 24  # beyond it the lossless file is not made
MAX_SIDE = 16383  # of WebP


def check_worth(pixels: Pixels, quality: int | None, size: int) -> None:
    """Refuse a file of more than quality 50 that is larger than the image without loss.

    Args:
        pixels: of the image.
        quality: 1..100 of the file, None where a model has one rate.
        size: of the file in bytes.

    Raises:
        LosslessIsSmaller: says both sizes and what to do.
    """
    if quality is None or quality <= LOSSY_QUALITY or not is_drawing(pixels):
        return
    lossless = lossless_size(pixels)
    if lossless is not None and lossless <= size:
        raise LosslessIsSmaller(
            f"this image takes {lossless} bytes as lossless WebP, and {size} at quality {quality} here: keep it so, "
            "ask for a quality of at most 50, or for drawing=allow"
        )


def is_drawing(pixels: Pixels) -> bool:
    """Whether many neighbours in a row are equal, as in no photograph but an empty one; looks at 512 rows at most."""
    rows = pixels[:: max(1, pixels.shape[0] // ROWS)]
    return pixels.shape[1] > 1 and float((rows[:, 1:] == rows[:, :-1]).all(axis=2).mean()) >= EQUAL_SHARE


def lossless_size(pixels: Pixels) -> int | None:
    """Bytes of the image as lossless WebP, None where it is too large for that."""
    if max(pixels.shape[:2]) > MAX_SIDE or pixels.shape[0] * pixels.shape[1] > MAX_PIXELS:
        return None
    out = BytesIO()
    Image.fromarray(pixels).save(out, "WEBP", lossless=True)
    return out.tell()
