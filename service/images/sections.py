"""What a `.cdc` file holds of an image beside its symbols: sections from an image file, and back into one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from model.container import Header, Section, SectionType, unpack_space
from service.framing import Frame
from service.images.alpha import pack_alpha, unpack_alpha
from service.images.colour import Plane
from service.images.reading import InputImage
from service.images.resizing import framed
from service.images.spaces import pack_space, space_to_srgb
from service.images.writing import write_image
from service.work import Format


def sections_of(image: InputImage) -> tuple[Section, ...]:
    """Colour space, alpha, EXIF and XMP of an image, as far as it has them, in file order. Blocks."""
    found = (
        None if image.space is None else pack_space(image.space),
        None if image.alpha is None else pack_alpha(image.alpha),
        None if image.exif is None else Section(SectionType.EXIF, image.exif),
        None if image.xmp is None else Section(SectionType.XMP, image.xmp),
    )
    return tuple(section for section in found if section is not None)


def image_file(
    pixels: Plane,
    sections: Sequence[Section],
    header: Header,
    frame: Frame,
    *,
    reduction: int,
    format: Format,
    colour: Literal["keep", "srgb"],
) -> bytes:
    """Return the image file of a decode. Blocks.

    Args:
        pixels: uint8 [H, W, 3] of the frame's region at 1/reduction of the size.
        sections: of the file, beside its symbols.
        header: of the file.
        frame: region and size of the answer.
        reduction: 1, 2 or 4.
        format: of the answer.
        colour: keep the file's colour space, or convert to sRGB.

    Raises:
        MalformedFile: the alpha or colour section is damaged.
        InvalidParameter: the format cannot hold an image of this size.
    """
    data = {section.type: section.data for section in sections}
    packed, named = data.get(SectionType.ALPHA), data.get(SectionType.COLOUR)
    alpha = None if packed is None else unpack_alpha(packed, header.width, header.height)
    pixels, alpha = framed(pixels, alpha, frame, reduction)
    space = None if named is None else unpack_space(named)
    if space is not None and colour == "srgb":
        pixels, space = space_to_srgb(pixels, space), None
    return write_image(pixels, alpha, data.get(SectionType.EXIF), format, space=space, xmp=data.get(SectionType.XMP))
