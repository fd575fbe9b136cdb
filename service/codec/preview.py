"""Small pictures of a decode under way."""

from __future__ import annotations

import io

from PIL import Image

from service.engine.job import Pixels

SIDE = 768  # longest, in pixels
QUALITY = 70
MEDIA_TYPE = "image/webp"


def preview_file(pixels: Pixels) -> bytes:
    """uint8 [H, W, 3] -> a WebP file of at most 768 pixels a side; blocks."""
    image = Image.fromarray(pixels)
    image.thumbnail((SIDE, SIDE), Image.Resampling.BILINEAR)
    out = io.BytesIO()
    image.save(out, "WEBP", quality=QUALITY, method=0)
    return out.getvalue()
