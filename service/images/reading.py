"""Image files to upright sRGB pixels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Any, Literal

import numpy as np
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from model.container import Space
from service.errors import AnimatedImage, BrokenImage, TooManyPixels, UnsupportedImage
from service.images.avif import split_avif
from service.images.bmp import split_bmp
from service.images.colour import Plane, eight_bits_rgb, to_srgb
from service.images.exif import kept_exif, orientation_of
from service.images.gif import split_gif
from service.images.guard import typed_errors
from service.images.jpeg import split_jpeg
from service.images.kind import image_kind
from service.images.parts import Parts
from service.images.png import split_png
from service.images.rights import rights_packet
from service.images.samples import samples_of
from service.images.spaces import space_of
from service.images.tiff import split_tiff
from service.images.webp import split_webp
from service.images.writing import WHITE

_SPLITTERS: dict[str, Callable[[bytes], Parts]] = {
    "PNG": split_png,
    "JPEG": split_jpeg,
    "WEBP": split_webp,
    "GIF": split_gif,
    "BMP": split_bmp,
    "TIFF": split_tiff,
    "AVIF": split_avif,
    "PPM": lambda data: Parts("PPM", data),
}
_DECODERS: dict[str, type[ImageFile.ImageFile]] = {
    "PNG": PngImagePlugin.PngImageFile,
    "JPEG": JpegImagePlugin.JpegImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "AVIF": AvifImagePlugin.AvifImageFile,
    "PPM": PpmImagePlugin.PpmImageFile,
}
# How stored pixels must be turned to stand upright (EXIF 2.3, tag 0x0112).
_TURNS: dict[int, Callable[[Plane], Any]] = {
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.swapaxes(0, 1),
    6: lambda p: np.rot90(p, -1),
    7: lambda p: p[::-1, ::-1].swapaxes(0, 1),
    8: lambda p: np.rot90(p, 1),
}
_JPEG_END = b"\xff\xd9"
# Coded data that means something, in the present restart interval and in others.
_FILLER = b"".join(bytes(range(254, 0, -1)) + bytes((0xFF, 0xD0 + k % 8)) for k in range(512))


@dataclass(frozen=True)
class InputImage:
    """An image as the codec takes it.

    Attributes:
        pixels: uint8 [H, W, 3], upright, sRGB or of `space`.
        alpha: uint8 [H, W], 255 opaque; None when the whole image is.
        exif: TIFF structure without location and orientation; None when there is none or it was not asked for.
        space: None for sRGB.
        xmp: a packet of the fields about rights; None as with `exif`.
    """

    pixels: Plane
    alpha: Plane | None
    exif: bytes | None
    space: Space | None = None
    xmp: bytes | None = None


def probe_image(data: bytes, *, max_pixels: int, frame: Literal["first"] | None = None) -> tuple[int, int]:
    """Return (width, height) from the header of an image file, before orientation; nothing is decoded. Blocks.

    Raises:
        UnsupportedImage, BrokenImage, AnimatedImage, TooManyPixels: as `read_image`.
    """
    with typed_errors():
        return _open(data, max_pixels, frame)[0].size


def read_image(
    data: bytes,
    *,
    max_pixels: int,
    alpha: Literal["keep", "drop"] = "keep",
    frame: Literal["first"] | None = None,
    metadata: Literal["strip", "copyright", "keep"] = "strip",
    background: tuple[int, int, int] = WHITE,
    colour: Literal["keep", "srgb"] = "srgb",
) -> InputImage:
    """Read an image file: orientation applied, colours converted to sRGB, 8 bits a channel. Blocks.

    Orientation is EXIF's (2.3, tag 0x0112), in AVIF what irot and imir say. Colours are what an ICC profile or a colour
    signal says, sRGB without one; HDR is tone-mapped (`service.images.tone`). Damage in optional metadata changes
    nothing. `alpha="drop"` composes the image over `background`, 0..255. `colour="keep"` leaves RGB samples of a space
    that has a name (`service.images.spaces`) as they are.

    Raises:
        UnsupportedImage: not an image, or of a kind that is not supported.
        BrokenImage: an accepted kind, damaged or cut short.
        AnimatedImage: several frames or pages, and `frame` is not "first". What else a phone puts into a JPEG,
            thumbnails and masks do not count.
        TooManyPixels: by its header it has more than `max_pixels` pixels; nothing was decoded.
    """
    with typed_errors():
        file, parts = _open(data, max_pixels, frame)
        file = _load(file, parts)
        samples, cover = samples_of(file, parts)
        keep = colour == "keep" and samples.ndim == 3 and file.mode != "CMYK"
        space = space_of(parts.colours) if keep else None
        pixels = to_srgb(samples, file.mode == "CMYK", parts.colours) if space is None else eight_bits_rgb(samples)
        turn = _TURNS.get(orientation_of(parts.exif) if parts.orientation is None else parts.orientation)
        if turn is not None:
            pixels = np.ascontiguousarray(turn(pixels))
            cover = None if cover is None else np.ascontiguousarray(turn(cover))
        if cover is not None and bool((cover == 255).all()):
            cover = None
        if cover is not None and alpha == "drop":
            image = Image.fromarray(pixels)
            ground = Image.new("RGB", image.size, background)
            pixels, cover = np.array(Image.composite(image, ground, Image.fromarray(cover))), None
        if metadata == "strip":
            return InputImage(pixels, cover, None, space)
        exif = kept_exif(parts.exif, rights_only=metadata == "copyright")
        return InputImage(pixels, cover, exif, space, rights_packet(parts.xmp, parts.iptc))


def _open(data: bytes, max_pixels: int, frame: Literal["first"] | None) -> tuple[ImageFile.ImageFile, Parts]:
    """Open without decoding, with the one decoder the first bytes call for."""
    parts = _SPLITTERS[image_kind(data)](data)
    try:
        image = _DECODERS[parts.kind](BytesIO(parts.data))
    except MemoryError:
        raise
    except Exception as error:
        if parts.layout is not None:
            raise UnsupportedImage(f"{parts.layout} is not supported") from error
        if parts.kind == "AVIF":  # the decoder is strict, and says what it misses
            raise BrokenImage(f"the AVIF file is damaged or does not conform to its standard: {error}") from error
        raise
    width, height = image.size
    if width * height > max_pixels:
        raise TooManyPixels(f"the image has {width}x{height} = {width * height} pixels; the limit is {max_pixels}")
    if parts.tile_pixels > max(max_pixels, 1 << 20):
        raise TooManyPixels("a tile of the TIFF file has more pixels than the limit")
    if frame != "first" and (parts.animated or getattr(image, "is_animated", False)):
        raise AnimatedImage("the image has several frames or pages; frame=first takes the first one")
    if parts.kind == "AVIF":
        parts = replace(parts, orientation=orientation_of(image.info.get("exif", b"").removeprefix(b"Exif\0\0")))
    return image, parts


def _load(image: ImageFile.ImageFile, parts: Parts) -> ImageFile.ImageFile:
    """Decode the pixels."""
    if not parts.ended:
        return _load_unended(parts.data)
    try:
        image.load()
    except MemoryError:
        raise
    except Exception as error:
        if parts.rare:
            raise UnsupportedImage(f"{parts.layout} is not supported") from error
        raise
    return image


def _load_unended(data: bytes) -> ImageFile.ImageFile:
    """Decode a JPEG without its end marker.

    The decoder makes up what is missing. So it decodes twice, with the end added at once and with other data before it:
    where all rows are there, both give the same pixels.
    """
    image, other = (JpegImagePlugin.JpegImageFile(BytesIO(data + tail + _JPEG_END)) for tail in (b"", _FILLER))
    if image.tobytes() != other.tobytes():
        raise BrokenImage("the JPEG file is cut short")
    return image
