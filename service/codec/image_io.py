"""Image files to sRGB pixels and back. The only place that knows Pillow, and the only one that need distrust it.

Everything here blocks: call it from a worker thread. Every failure inside Pillow comes out as a typed error.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageCms, PngImagePlugin, TiffImagePlugin

from model.container import Section, SectionType
from model.errors import CodecError, InvalidParameter, MalformedFile
from service.codec.image_kind import PNG_MAGIC, image_kind
from service.errors import AnimatedImage, BrokenImage, ServiceError, TooManyPixels, UnsupportedImage

Plane = npt.NDArray[np.uint8]
Format = Literal["png", "webp", "jpeg"]

MAX_ICC_BYTES = 4 * 1024**2  # press profiles have up to 3 MiB
MAX_EXIF_BYTES = 65_000  # what fits a JPEG's APP1 segment
MAX_SIDE: dict[Format, int] = {"png": 2**31 - 1, "webp": 16383, "jpeg": 65500}
WHITE = (255, 255, 255)

# Sizes are checked here against the configured limit; Pillow's own check only warns below twice its constant.
Image.MAX_IMAGE_PIXELS = None
# Bounds what a compressed chunk of a PNG, a text or a colour profile, may inflate to.
PngImagePlugin.MAX_TEXT_CHUNK = MAX_ICC_BYTES

_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_PIL_MODULES = re.compile(r"PIL\.")
_Base = ExifTags.Base
# An allow-list: location, thumbnails, maker notes (they hold places and serial numbers) and file structure stay out.
_KEPT_TAGS = (
    _Base.ImageDescription,
    _Base.Make,
    _Base.Model,
    _Base.XResolution,
    _Base.YResolution,
    _Base.ResolutionUnit,
    _Base.Software,
    _Base.DateTime,
    _Base.Artist,
    _Base.Copyright,
)
_DROPPED_EXIF_TAGS = frozenset(
    {_Base.MakerNote, _Base.ExifImageWidth, _Base.ExifImageHeight, _Base.ExifInteroperabilityOffset, _Base.ColorSpace}
)


@dataclass(frozen=True)
class Picture:
    """A picture as the codec takes it.

    Attributes:
        pixels: uint8 [H, W, 3], sRGB, upright.
        alpha: uint8 [H, W], 255 opaque; None when the whole picture is.
        exif: TIFF structure without location and orientation; None when there is none or it was not asked for.
    """

    pixels: Plane
    alpha: Plane | None
    exif: bytes | None


def probe_image(data: bytes, *, max_pixels: int, frame: Literal["first"] | None = None) -> tuple[int, int]:
    """Return (width, height) from the header of an image file, before orientation; nothing is decoded.

    Raises:
        UnsupportedImage, BrokenImage, AnimatedImage, TooManyPixels: as `read_image`.
    """
    with _typed_errors():
        return _open(data, max_pixels, frame).size


def read_image(
    data: bytes,
    *,
    max_pixels: int,
    alpha: Literal["keep", "drop"] = "keep",
    frame: Literal["first"] | None = None,
    metadata: Literal["strip", "keep"] = "strip",
    background: tuple[int, int, int] = WHITE,
) -> Picture:
    """Read an image file: orientation applied (EXIF 2.3, tag 0x0112), colours converted to sRGB, 8 bits a channel.

    A damaged colour profile is ignored. `alpha="drop"` composes the picture over `background`, sRGB 0..255.

    Raises:
        UnsupportedImage: not an image, or of a kind that is not accepted.
        BrokenImage: an accepted kind, damaged or cut short.
        AnimatedImage: several frames, and `frame` is not "first". A phone's multi-picture JPEG counts as one.
        TooManyPixels: by its header it has more than `max_pixels` pixels; nothing was decoded.
    """
    with _typed_errors():
        image = _open(data, max_pixels, frame)
        image.load()
        exif = image.getexif()  # after load: a PNG may have it behind the pixels
        turn = _TRANSPOSE.get(_orientation(exif))
        colour, cover = _split_alpha(image)
        colour = _convert_profile(colour, image.info.get("icc_profile")).convert("RGB")
        if turn is not None:
            colour, cover = colour.transpose(turn), cover and cover.transpose(turn)
        if cover is not None and alpha == "drop":
            colour = Image.composite(colour, Image.new("RGB", colour.size, background), cover)
            cover = None
        plane = None if cover is None else np.array(cover)
        if plane is not None and bool((plane == 255).all()):
            plane = None
        return Picture(np.array(colour), plane, _kept_exif(exif) if metadata == "keep" else None)


def write_image(
    pixels: Plane, alpha: Plane | None, exif: bytes | None, format: Format, *, compress_level: int = 4
) -> bytes:
    """Return an image file of uint8 [H, W, 3] sRGB `pixels` and, where given, uint8 [H, W] `alpha`.

    PNG is lossless; `compress_level` 0..9 trades time for size: of a photograph, 4 makes a file 6 % larger than 9 in a
    fifth of the time. WebP and JPEG are lossy at quality 95, far above what the codec itself loses. JPEG knows no
    transparency: it is composed over white. EXIF data too long for a JPEG is left out of all three.

    Raises:
        InvalidParameter: the format cannot hold a picture of this size.
    """
    check_output_size(pixels.shape[1], pixels.shape[0], format)
    with _typed_errors():
        image = Image.fromarray(np.ascontiguousarray(pixels))
        if alpha is not None and format == "jpeg":
            image = Image.composite(image, Image.new("RGB", image.size, WHITE), Image.fromarray(alpha))
        elif alpha is not None:
            image.putalpha(Image.fromarray(alpha))
        out = BytesIO()
        block = b"Exif\x00\x00" + exif if exif and len(exif) <= MAX_EXIF_BYTES else b""
        if format == "png":
            chunks = PngImagePlugin.PngInfo()
            chunks.add(b"sRGB", b"\x00")  # PNG, 11.3.2.5: rendering intent 0, perceptual
            image.save(out, "PNG", compress_level=compress_level, pnginfo=chunks, exif=block)
        elif format == "webp":
            image.save(out, "WEBP", quality=95, method=2, exif=block)
        else:
            image.save(out, "JPEG", quality=95, subsampling=0, exif=block)
        return out.getvalue()


def check_output_size(width: int, height: int, format: Format) -> None:
    """Raise InvalidParameter when `format` cannot hold a picture of that size."""
    if max(width, height) > MAX_SIDE[format]:
        raise InvalidParameter(f"{format} holds at most {MAX_SIDE[format]} pixels a side; ask for png")


def pack_alpha(alpha: Plane) -> Section:
    """Return the ALPHA section of uint8 [H, W] `alpha`: an 8-bit greyscale PNG, so lossless."""
    out = BytesIO()
    Image.fromarray(np.ascontiguousarray(alpha)).save(out, "PNG", compress_level=6)
    return Section(SectionType.ALPHA, out.getvalue())


def unpack_alpha(data: bytes, width: int, height: int) -> Plane:
    """Return the uint8 [height, width] plane of an ALPHA section. Size and kind are checked before decoding.

    Raises:
        MalformedFile: not an 8-bit greyscale PNG of the picture's size, or damaged.
    """
    size = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    # PNG, 11.2.1: IHDR of 13 bytes is the first chunk; depth 8, colour type 0, no interlace.
    if data[:16] != PNG_MAGIC + b"\x00\x00\x00\rIHDR" or data[16:29] != size + b"\x08\x00\x00\x00\x00":
        raise MalformedFile(f"the alpha section is not an 8-bit greyscale PNG of {width}x{height} pixels")
    try:
        with _typed_errors():
            image = Image.open(BytesIO(data), formats=["PNG"])
            if image.size != (width, height) or image.mode != "L":
                raise BrokenImage("the header of the alpha plane contradicts itself")
            return np.array(image)
    except BrokenImage as error:
        raise MalformedFile("the alpha section is damaged") from error


@contextmanager
def _typed_errors() -> Iterator[None]:
    """Turn whatever Pillow raises into one of the service's errors, and keep its warnings quiet."""
    quiet = ("ignore", None, Warning, _PIL_MODULES, 0)
    if quiet not in warnings.filters:
        warnings.filterwarnings("ignore", module=_PIL_MODULES.pattern)
    try:
        yield
    except (ServiceError, CodecError):
        raise
    except MemoryError as error:
        raise TooManyPixels("there is no memory for a picture of this size") from error
    except Exception as error:
        # Pillow's decoders raise OSError, ValueError, SyntaxError, struct.error, zlib.error, OverflowError,
        # IndexError, KeyError and more for damaged data: a list of them would always lack one.
        raise BrokenImage("the image is damaged or cut short") from error


def _open(data: bytes, max_pixels: int, frame: Literal["first"] | None) -> Image.Image:
    """Open without decoding, with the one decoder the first bytes call for."""
    image = Image.open(BytesIO(data), formats=[image_kind(data)])
    width, height = image.size
    if width * height > max_pixels:
        raise TooManyPixels(f"the picture has {width}x{height} = {width * height} pixels; the limit is {max_pixels}")
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        # A tile is allocated whole, however small the picture is (TIFF 6.0, section 15).
        tile = [int(image.tag_v2.get(tag, 1)) for tag in (TiffImagePlugin.TILEWIDTH, TiffImagePlugin.TILELENGTH)]
        if tile[0] * tile[1] > max(max_pixels, 1 << 20):
            raise TooManyPixels("a tile of the TIFF file has more pixels than the limit")
    # A multi-picture JPEG (MPO) is a photograph with a preview or gain map behind it, not an animation.
    if frame != "first" and image.format != "MPO" and getattr(image, "is_animated", False):
        raise AnimatedImage("the image has several frames or pages; frame=first takes the first one")
    return image


def _split_alpha(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Return an 8-bit L, RGB or CMYK image and its alpha plane (L), None when it has none."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
        wide = np.asarray(image).astype(np.uint32)
        key = image.info.get("transparency")
        cover = Image.fromarray(np.where(wide == key, 0, 255).astype(np.uint8)) if isinstance(key, int) else None
        return Image.fromarray(((np.minimum(wide, 65535) + 128) // 257).astype(np.uint8)), cover
    if image.mode == "RGB" and isinstance(image.info.get("transparency"), tuple):
        key = image.info["transparency"]
        if max(key) > 255:  # a 16-bit file, of which Pillow keeps the high bytes
            image.info["transparency"] = tuple(v >> 8 for v in key)
    if image.has_transparency_data:
        grey = image.mode in ("LA", "La")
        image = image.convert("LA" if grey else "RGBA")
        image.info.pop("transparency", None)
        return image.convert("L" if grey else "RGB"), image.getchannel("A")
    if image.mode in ("1", "L"):
        return image.convert("L"), None
    if image.mode in ("P", "RGB", "RGBX", "YCbCr", "HSV"):
        return image.convert("RGB"), None
    if image.mode == "CMYK":
        return image, None
    raise UnsupportedImage(f"pixels of the kind {image.mode!r} are not accepted: 8 or 16 bits a channel are")


def _convert_profile(colour: Image.Image, icc: object) -> Image.Image:
    """Convert an L, RGB or CMYK image from its ICC profile to sRGB; without a usable profile return it as it is."""
    if not isinstance(icc, bytes) or not 128 <= len(icc) <= MAX_ICC_BYTES:
        return colour
    try:
        profile = ImageCms.ImageCmsProfile(BytesIO(icc))
        space = profile.profile.xcolor_space.strip()
        if colour.mode not in {"RGB": ("RGB", "L"), "GRAY": ("L",), "CMYK": ("CMYK",)}.get(space, ()):
            return colour
        if space == "RGB" and ImageCms.getProfileDescription(profile).strip().startswith("sRGB"):
            return colour  # the transform would change values by rounding alone
        source = colour.convert("RGB") if space == "RGB" else colour
        target = ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(source, profile, target, ImageCms.Intent.PERCEPTUAL, "RGB")
        return converted or colour
    except Exception:  # a damaged profile: lcms and Pillow raise many types
        return colour


def _orientation(exif: Image.Exif) -> int:
    try:
        return int(exif.get(_Base.Orientation, 1))
    except Exception:  # a damaged EXIF block must not cost the picture
        return 1


def _kept_exif(exif: Image.Exif) -> bytes | None:
    """Return the TIFF structure of the allowed tags, None when nothing is left or the block is damaged."""
    try:
        kept = Image.Exif()
        for tag in _KEPT_TAGS:
            if tag in exif:
                kept[tag] = exif[tag]
        details = {k: v for k, v in exif.get_ifd(ExifTags.IFD.Exif).items() if k not in _DROPPED_EXIF_TAGS}
        if details:
            kept[ExifTags.IFD.Exif] = details
        block = kept.tobytes().removeprefix(b"Exif\x00\x00")
        return block if len(kept) and len(block) <= MAX_EXIF_BYTES else None
    except Exception:
        return None
