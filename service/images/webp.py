"""WebP files taken apart (RFC 9649)."""

from __future__ import annotations

from service.errors import BrokenImage
from service.images.parts import MAX_BLOCKS, Parts

_ALPHA, _ANIMATION = 0x10, 0x02  # flags of VP8X (RFC 9649, 2.7.1)
_IMAGE = frozenset({b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ANIM"})


def split_webp(data: bytes) -> Parts:
    """Take a WebP file apart: its image, or the first frame of its animation.

    Raises:
        BrokenImage: more chunks than any image has.
    """
    kept: list[bytes] = []
    found: dict[bytes, bytes] = {}
    frames, at = 0, 12
    for _ in range(MAX_BLOCKS):
        if at + 8 > len(data):
            break
        name, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        end = at + 8 + size + size % 2
        if name == b"VP8X":
            flags = data[at + 8 : at + 9]
            kept.append(data[at : at + 8] + bytes(flag & (_ALPHA | _ANIMATION) for flag in flags) + data[at + 9 : end])
        elif name in _IMAGE or (name == b"ANMF" and not frames):
            kept.append(data[at:end])
        elif name in (b"ICCP", b"EXIF", b"XMP ") and name not in found:
            found[name] = data[at + 8 : at + 8 + size]
        frames += name == b"ANMF"
        at = end
    else:
        raise BrokenImage("the WebP file has too many chunks")
    body = b"WEBP" + b"".join(kept)
    return Parts(
        "WEBP",
        b"RIFF" + len(body).to_bytes(4, "little") + body,
        animated=frames > 1,
        colours=(found[b"ICCP"],) if b"ICCP" in found else (),
        exif=found.get(b"EXIF", b"").removeprefix(b"Exif\0\0") or None,
        xmp=found.get(b"XMP "),
    )
