"""Pixels and alpha to image files."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from PIL import Image, PngImagePlugin

from model.container import Space
from model.errors import InvalidParameter
from service.images.colour import Plane
from service.images.exif import MAX_EXIF_BYTES
from service.images.guard import typed_errors
from service.images.rights import MAX_XMP_BYTES
from service.images.spaces import icc_of
from service.work import Format

MAX_SIDE: dict[Format, int] = {"png": 2**31 - 1, "webp": 16383, "jpeg": 65500}
WHITE = (255, 255, 255)


def write_image(
    pixels: Plane,
    alpha: Plane | None,
    exif: bytes | None,
    format: Format,
    *,
    space: Space | None = None,
    xmp: bytes | None = None,
    compress_level: int = 4,
) -> bytes:
    """Return an image file of uint8 [H, W, 3] `pixels` and, where given, uint8 [H, W] `alpha`. Blocks.

    Pixels are sRGB, or of `space`, whose ICC profile goes with them.

    PNG is lossless; `compress_level` 0..9 trades time for size: of a photograph, 4 makes a file 6 % larger than 9 in a
    fifth of the time. WebP and JPEG are lossy at quality 95, far above what the codec itself loses. JPEG knows no
    transparency: it is composed over white. EXIF data or an XMP packet too long for a JPEG is left out of all three.

    Raises:
        InvalidParameter: the format cannot hold an image of this size.
    """
    check_output_size(pixels.shape[1], pixels.shape[0], format)
    with typed_errors():
        image = Image.fromarray(np.ascontiguousarray(pixels))
        if alpha is not None and format == "jpeg":
            image = Image.composite(image, Image.new("RGB", image.size, WHITE), Image.fromarray(alpha))
        elif alpha is not None:
            image.putalpha(Image.fromarray(alpha))
        out = BytesIO()
        block = b"Exif\x00\x00" + exif if exif and len(exif) <= MAX_EXIF_BYTES else b""
        xmp = xmp if xmp and len(xmp) <= MAX_XMP_BYTES else None
        icc = b"" if space is None else icc_of(space)
        if format == "png":
            chunks = PngImagePlugin.PngInfo()
            if space is None:
                chunks.add(b"sRGB", b"\x00")  # PNG, 11.3.2.5: rendering intent 0, perceptual
            if xmp:
                chunks.add_itxt("XML:com.adobe.xmp", xmp.decode("utf-8", "replace"))
            image.save(out, "PNG", compress_level=compress_level, pnginfo=chunks, exif=block, icc_profile=icc or None)
        elif format == "webp":
            image.save(out, "WEBP", quality=95, method=2, exif=block, icc_profile=icc, xmp=xmp or b"")
        else:
            image.save(out, "JPEG", quality=95, subsampling=0, exif=block, icc_profile=icc or None, xmp=xmp)
        return out.getvalue()


def check_output_size(width: int, height: int, format: Format) -> None:
    """Raise InvalidParameter when `format` cannot hold an image of that size."""
    if max(width, height) > MAX_SIDE[format]:
        raise InvalidParameter(f"{format} holds at most {MAX_SIDE[format]} pixels a side; ask for png")
