"""EXIF: how an image is turned, and the metadata that may stay with it."""

from __future__ import annotations

from PIL import ExifTags, Image

from service.images.tiff import ORIENTATION, pages

MAX_EXIF_BYTES = 65_000  # what fits a JPEG's APP1 segment

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
_RIGHTS_TAGS = (_Base.Artist, _Base.Copyright)
_DROPPED_EXIF_TAGS = frozenset(
    {_Base.MakerNote, _Base.ExifImageWidth, _Base.ExifImageHeight, _Base.ExifInteroperabilityOffset, _Base.ColorSpace}
)


def orientation_of(block: bytes | None) -> int:
    """Return the orientation (EXIF 2.3, tag 0x0112) that a TIFF structure states; 1, upright, where it says nothing."""
    page = next(pages(block or b""), None)
    return page.first(ORIENTATION, 1) if page else 1


def kept_exif(block: bytes | None, *, rights_only: bool = False) -> bytes | None:
    """Return the TIFF structure of the allowed tags, None when nothing is left or the block is damaged.

    `rights_only` keeps Artist and Copyright.
    """
    if not block:
        return None
    try:
        exif = Image.Exif()
        exif.load(block)
        kept = Image.Exif()
        for tag in _RIGHTS_TAGS if rights_only else _KEPT_TAGS:
            if tag in exif:
                kept[tag] = exif[tag]
        details = {k: v for k, v in exif.get_ifd(ExifTags.IFD.Exif).items() if k not in _DROPPED_EXIF_TAGS}
        if details and not rights_only:
            kept[ExifTags.IFD.Exif] = details
        out = kept.tobytes().removeprefix(b"Exif\x00\x00")
        return out if len(kept) and len(out) <= MAX_EXIF_BYTES else None
    except Exception:  # Pillow's reader raises many types
        return None
