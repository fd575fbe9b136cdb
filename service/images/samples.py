"""The samples of a decoded image: colour as the file has it, and alpha from every form of transparency."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image, PngImagePlugin

from service.errors import UnsupportedImage
from service.images.colour import Plane, Samples, eight_bits
from service.images.parts import Parts


def samples_of(image: Image.Image, parts: Parts) -> tuple[Samples, Plane | None]:
    """Return the samples of a loaded image, and its alpha.

    Returns:
        Samples, uint8 or uint16: [H, W] grey, [H, W, 3] RGB, uint8 [H, W, 4] CMYK. Alpha, uint8 [H, W], 255 opaque;
        None when the image has none.

    Raises:
        UnsupportedImage: samples without bounds, such as floats.
    """
    samples, alpha = _split(image, parts)
    if parts.key is not None and alpha is None:
        # Samples of less than 8 bits have been stretched to 0..255.
        unit = 255 // ((1 << parts.depth) - 1) if parts.depth < 8 else 1
        keyed = samples == np.array(parts.key, np.uint16) * np.uint16(unit)
        alpha = np.where(keyed if keyed.ndim == 2 else keyed.all(axis=2), np.uint8(0), np.uint8(255))
    if parts.box is not None and parts.box != (0, 0, image.width, image.height):
        left, top, right, bottom = parts.box
        inside = np.zeros(samples.shape[:2], np.uint8)
        inside[top:bottom, left:right] = 255 if alpha is None else alpha[top:bottom, left:right]
        alpha = inside
    return samples, alpha


def _split(image: Image.Image, parts: Parts) -> tuple[Samples, Plane | None]:
    """Samples and alpha as the decoder gives them."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
        return np.minimum(np.asarray(image), 65535).astype(np.uint16), None
    if parts.depth == 16 and image.mode == "RGB":
        return _sixteen_bits(image, parts), None
    if image.has_transparency_data:
        grey = image.mode in ("LA", "La")
        if parts.depth == 16 and parts.data[25] == 6:  # PNG, 11.2.1: RGB with alpha
            pixels = _sixteen_bits(image, parts)
        else:
            pixels = np.asarray(image.convert("LA" if grey else "RGBA"), np.uint8)
        colour = pixels[..., 0] if grey else pixels[..., :3]
        return np.ascontiguousarray(colour), eight_bits(np.ascontiguousarray(pixels[..., -1]))
    if image.mode in ("1", "L"):
        return np.array(image.convert("L")), None
    if image.mode in ("P", "RGB", "RGBX", "YCbCr", "HSV"):
        return np.array(image.convert("RGB")), None
    if image.mode == "CMYK":
        return np.array(image), None
    raise UnsupportedImage(f"pixels of the kind {image.mode!r} are not supported: 8 or 16 bits a channel are")


def _sixteen_bits(image: Image.Image, parts: Parts) -> Samples:
    """uint16 [H, W, C] of a 16-bit PNG file. Pillow gives one byte a sample: `image` has the high ones."""
    low = PngImagePlugin.PngImageFile(BytesIO(parts.data))
    low.tile = [tile._replace(args=f"{image.mode};16L") for tile in low.tile]
    samples: npt.NDArray[np.uint16] = np.asarray(image, np.uint16)
    samples <<= 8
    samples |= np.asarray(low)
    return samples
