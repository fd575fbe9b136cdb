"""What kind of image file some bytes are, by how they begin. Names are those of Pillow's decoders."""

from __future__ import annotations

from service.errors import UnsupportedImage

ACCEPTED = "PNG, JPEG, WebP, GIF, BMP, TIFF, AVIF and binary PPM"
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"

_MAGICS: tuple[tuple[bytes, str], ...] = (
    (PNG_MAGIC, "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
    (b"P4", "PPM"),  # the plain-text kinds P1..P3 are left out: a slow parser for little use
    (b"P5", "PPM"),
    (b"P6", "PPM"),
)


_AVIF_BRANDS = {b"avif", b"avis"}
_MAX_FTYP_BYTES = 256


def image_kind(data: bytes) -> str:
    """Return the kind of an image file: PNG, JPEG, GIF, BMP, TIFF, PPM, WEBP or AVIF. Only that decoder sees the data.

    Raises:
        UnsupportedImage: none of them.
    """
    for magic, kind in _MAGICS:
        if data.startswith(magic):
            return kind
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] == b"ftyp" and not _AVIF_BRANDS.isdisjoint(_brands(data)):
        return "AVIF"
    if data.startswith(b"\x8fCDC"):
        raise UnsupportedImage("this is a .cdc file already: /decode takes it")
    raise UnsupportedImage(f"not an image of an accepted kind: {ACCEPTED}")


def _brands(data: bytes) -> set[bytes]:
    """The major and compatible brands of an ISO base media file (ISO/IEC 14496-12, 4.3)."""
    end = min(int.from_bytes(data[:4], "big"), _MAX_FTYP_BYTES)
    return {data[8:12], *(data[k : k + 4] for k in range(16, end - 3, 4))}
