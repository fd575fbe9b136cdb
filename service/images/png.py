"""PNG files taken apart (PNG, 3rd edition; sections are named where they decide)."""

from __future__ import annotations

import struct
import zlib

from service.errors import BrokenImage, UnsupportedImage
from service.images.colour import MAX_ICC_BYTES
from service.images.kind import PNG_MAGIC
from service.images.parts import MAX_BLOCKS, Key, Parts
from service.images.signal import SRGB, Signal, cicp_signal, gamma_signal

_CRITICAL = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND"})
# Of the optional chunks these alone are looked at; all but eXIf and iTXt must come before the pixels (table 7).
_USED = frozenset({b"tRNS", b"cICP", b"iCCP", b"sRGB", b"gAMA", b"cHRM", b"acTL", b"eXIf", b"iTXt"})
_LATE = frozenset({b"eXIf", b"iTXt"})  # may follow the pixels
_XMP_NAME = b"XML:com.adobe.xmp\0\0\0\0\0"  # XMP part 3, 1.1.5: not compressed, without language
_GREY, _RGB, _PALETTE = 0, 2, 3


def split_png(data: bytes) -> Parts:
    """Take a PNG file apart. Optional chunks with a wrong CRC or content are passed over.

    Raises:
        BrokenImage: more chunks than any image has.
        UnsupportedImage: a critical chunk that the standard does not know, such as Apple's CgBI.
    """
    view = memoryview(data)
    kept: list[memoryview | bytes] = [PNG_MAGIC]
    found: dict[bytes, bytes] = {}
    depth, kind = (data[24], data[25]) if len(data) > 25 else (8, _GREY)
    entries, frames, at, pixels = 0, 0, len(PNG_MAGIC), False
    for _ in range(MAX_BLOCKS):
        name = data[at + 4 : at + 8]
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        if len(name) < 4:
            break
        if not name[0] & 0x20:  # 5.4: an upper-case first letter marks a critical chunk
            if name not in _CRITICAL and _sound(view, at, end):
                raise UnsupportedImage(f"the PNG file has a critical chunk {name!r}, which is not supported")
            kept.append(view[at:end])  # its CRC is checked by the decoder
            pixels |= name == b"IDAT"
            entries = (end - at - 12) // 3 if name == b"PLTE" else entries
        elif name == b"iTXt" and not data.startswith(_XMP_NAME, at + 8):
            pass
        elif name in _USED and name not in found and (not pixels or name in _LATE) and _sound(view, at, end):
            found[name] = data[at + 8 : end - 4]
            if name == b"tRNS" and kind == _PALETTE and entries:
                kept.append(_chunk(b"tRNS", found[name][:entries]))
        elif name == b"fcTL":
            frames += _sound(view, at, end)
        if name == b"IEND":
            break
        at = end
    else:
        raise BrokenImage("the PNG file has too many chunks")
    return Parts(
        "PNG",
        b"".join(kept),
        animated=len(found.get(b"acTL", b"")) == 8 and frames > 1,
        colours=_colours(found),
        exif=found.get(b"eXIf"),
        xmp=found[b"iTXt"].removeprefix(_XMP_NAME) if b"iTXt" in found else None,
        key=_key(found.get(b"tRNS", b""), kind, depth),
        depth=depth,
    )


def _sound(view: memoryview, at: int, end: int) -> bool:
    """Whether the chunk view[at:end] is whole and its CRC right (5.3)."""
    return end <= len(view) and zlib.crc32(view[at + 4 : end - 4]) == int.from_bytes(view[end - 4 : end], "big")


def _chunk(name: bytes, body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + name + body + zlib.crc32(name + body).to_bytes(4, "big")


def _key(body: bytes, kind: int, depth: int) -> Key | None:
    """The transparent colour (11.3.1.1): two bytes a channel, of which the low `depth` bits count."""
    channels = {_GREY: 1, _RGB: 3}.get(kind, 0)
    if not channels or len(body) != 2 * channels:
        return None
    return tuple(value & ((1 << depth) - 1) for value in struct.unpack(f">{channels}H", body))


def _colours(found: dict[bytes, bytes]) -> tuple[bytes | Signal, ...]:
    """Colour chunks, the one to prefer first (4.3): cICP, iCCP, sRGB, gAMA and cHRM. Malformed ones are left out."""
    colours: list[bytes | Signal | None] = []
    if len(cicp := found.get(b"cICP", b"")) == 4 and cicp[2] == 0 and cicp[3] <= 1:  # 11.3.2.6: the matrix must be 0
        colours.append(cicp_signal(cicp[0], cicp[1], cicp[3] == 1))
    if b"iCCP" in found:
        colours.append(_profile(found[b"iCCP"]))
    if len(found.get(b"sRGB", b"")) == 1:
        colours.append(SRGB)
    gamma, primaries = found.get(b"gAMA", b""), found.get(b"cHRM", b"")
    colours.append(
        gamma_signal(
            int.from_bytes(gamma, "big") / 100_000 if len(gamma) == 4 else None,
            tuple(v / 100_000 for v in struct.unpack(">8I", primaries)) if len(primaries) == 32 else None,
        )
    )
    return tuple(colour for colour in colours if colour is not None)


def _profile(body: bytes) -> bytes | None:
    """The ICC profile of an iCCP chunk (11.3.2.3), inflated to at most MAX_ICC_BYTES."""
    name, _, rest = body.partition(b"\0")
    if not 1 <= len(name) <= 79 or rest[:1] != b"\0":
        return None
    inflater = zlib.decompressobj()
    try:
        icc = inflater.decompress(rest[1:], MAX_ICC_BYTES)
    except zlib.error:
        return None
    return icc if inflater.eof else None
