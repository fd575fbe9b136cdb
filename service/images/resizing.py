"""Pixels to another size."""

from __future__ import annotations

import numpy as np
from PIL import Image

from service.framing import Frame
from service.images.colour import Plane
from service.images.guard import typed_errors

Box = tuple[float, float, float, float]  # left, top, right, bottom


def framed(pixels: Plane, alpha: Plane | None, frame: Frame, reduction: int = 1) -> tuple[Plane, Plane | None]:
    """Bring a decoded region to the size that is asked for. Blocks.

    Args:
        pixels: uint8 [H, W, 3] of the region at 1/reduction of the size, to the next whole pixel outwards.
        alpha: uint8 of the whole image at its full size, or None where all is opaque.
        frame: region and size.
        reduction: 1, 2 or 4.

    Returns:
        As `resize`.
    """
    region = frame.region
    right, bottom = region.left + region.width, region.top + region.height
    left, top = region.left // reduction, region.top // reduction
    if alpha is not None and reduction > 1:  # to the same grid as the pixels
        grid = (
            left * reduction,
            top * reduction,
            -(-right // reduction) * reduction,
            -(-bottom // reduction) * reduction,
        )
        alpha = np.pad(alpha, ((0, max(0, grid[3] - alpha.shape[0])), (0, max(0, grid[2] - alpha.shape[1]))), "edge")
        cut = Image.fromarray(np.ascontiguousarray(alpha[grid[1] : grid[3], grid[0] : grid[2]]))
        alpha = np.asarray(cut.reduce(reduction))
    elif alpha is not None:
        alpha = alpha[region.top : bottom, region.left : right]
    box = (
        region.left / reduction - left,
        region.top / reduction - top,
        right / reduction - left,
        bottom / reduction - top,
    )
    return resize(pixels, alpha, box, frame.scaled, frame.size)


def resize(
    pixels: Plane, alpha: Plane | None, box: Box, scaled: tuple[int, int], size: tuple[int, int]
) -> tuple[Plane, Plane | None]:
    """Scale a part of an image, and lay it in the middle of a transparent ground where that is larger. Blocks.

    Lanczos over the sample values as they are, three lobes wide at the smaller size; colour counts as much as it is
    opaque.

    Args:
        pixels: uint8 [H, W, 3].
        alpha: uint8 [H, W], or None where all is opaque.
        box: what of `pixels` is scaled, in pixels of theirs and fractions.
        scaled: width and height that it gets.
        size: width and height of the result, at least `scaled`.

    Returns:
        uint8 [height, width, 3], and [height, width] where something is not opaque.
    """
    with typed_errors():
        image = Image.fromarray(np.ascontiguousarray(pixels))
        whole = (0.0, 0.0, *map(float, image.size))
        if alpha is not None:
            image.putalpha(Image.fromarray(np.ascontiguousarray(alpha)))
        if box != whole or scaled != image.size:
            image = image.convert("RGBa") if alpha is not None else image
            image = image.resize(scaled, Image.Resampling.LANCZOS, box)
            image = image.convert("RGBA") if alpha is not None else image
        if size != scaled:
            ground = Image.new("RGBA", size, (0, 0, 0, 0))
            ground.paste(image, ((size[0] - scaled[0]) // 2, (size[1] - scaled[1]) // 2))
            image = ground
        found = np.asarray(image)
        return found[..., :3], (found[..., 3] if found.shape[2] == 4 else None)
