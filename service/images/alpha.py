"""The alpha section of a `.cdc` file: an 8-bit greyscale PNG."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from PIL import Image

from model.container import Section, SectionType
from model.errors import MalformedFile
from service.errors import BrokenImage
from service.images.colour import Plane
from service.images.guard import typed_errors
from service.images.kind import PNG_MAGIC


def pack_alpha(alpha: Plane) -> Section:
    """Return the ALPHA section of uint8 [H, W] `alpha`: an 8-bit greyscale PNG, so lossless."""
    out = BytesIO()
    Image.fromarray(np.ascontiguousarray(alpha)).save(out, "PNG", compress_level=6)
    return Section(SectionType.ALPHA, out.getvalue())


def unpack_alpha(data: bytes, width: int, height: int) -> Plane:
    """Return the uint8 [height, width] plane of an ALPHA section. Size and kind are checked before decoding.

    Raises:
        MalformedFile: not an 8-bit greyscale PNG of the image's size, or damaged.
    """
    size = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    # PNG, 11.2.1: IHDR of 13 bytes is the first chunk; depth 8, colour type 0, no interlace.
    if data[:16] != PNG_MAGIC + b"\x00\x00\x00\rIHDR" or data[16:29] != size + b"\x08\x00\x00\x00\x00":
        raise MalformedFile(f"the alpha section is not an 8-bit greyscale PNG of {width}x{height} pixels")
    try:
        with typed_errors():
            image = Image.open(BytesIO(data), formats=["PNG"])
            if image.size != (width, height) or image.mode != "L":
                raise BrokenImage("the header of the alpha plane contradicts itself")
            return np.array(image)
    except BrokenImage as error:
        raise MalformedFile("the alpha section is damaged") from error
