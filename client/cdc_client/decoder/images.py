"""What was decoded, as a Pillow image."""

from __future__ import annotations

from io import BytesIO

from PIL import Image

from cdc_client.decoder.decoder import Decoded
from cdc_client.errors import UnreadableFile


def image_of(decoded: Decoded) -> Image.Image:
    """The image, RGB or RGBA, with its profile in `info` unless it is sRGB.

    Raises UnreadableFile where the alpha plane is damaged.
    """
    image = Image.fromarray(decoded.pixels)
    if decoded.alpha is not None:
        # PNG, 11.2.1: the size stands in the first chunk, and is checked before anything is decoded.
        width, height = (int.from_bytes(decoded.alpha[i : i + 4], "big") for i in (16, 20))
        try:
            if (width, height) != image.size:
                raise ValueError("another size than the image")
            alpha = Image.open(BytesIO(decoded.alpha), formats=["PNG"])
            if alpha.mode != "L" or alpha.size != image.size:
                raise ValueError("not 8-bit greyscale")
            image.putalpha(alpha)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise UnreadableFile("malformed-file", f"the alpha section is damaged: {error}") from error
    if decoded.icc_profile is not None:
        image.info["icc_profile"] = decoded.icc_profile
    return image
