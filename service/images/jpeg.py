"""JPEG files taken apart (ITU-T T.81, annex B; Exif 3.0, 4.7.2; ICC.1:2022, B.4)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from service.errors import BrokenImage, UnsupportedImage
from service.images.colour import MAX_ICC_BYTES
from service.images.parts import MAX_BLOCKS, Parts

MAX_SCANS = 100  # a progressive file has some ten
EXIF_NAME = b"Exif\0\0"
_XMP_NAME = b"http://ns.adobe.com/xap/1.0/\0"  # XMP part 3, 1.1.3
_IPTC_NAME = b"Photoshop 3.0\0"
_ICC_NAME = b"ICC_PROFILE\0"
_EOI, _SOS = 0xD9, 0xDA
_BARE = frozenset({0x01, *range(0xD0, 0xD9)})  # markers without a segment
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_CODED = frozenset({0xC4, 0xCC, _SOS, 0xDB, 0xDC, 0xDD})  # tables and scans
_MARKER_IN_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_PROCESSES = {  # T.81, table B.1: what is not Huffman-coded DCT
    **dict.fromkeys((0xC3, 0xCB), "lossless"),
    **dict.fromkeys((0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF), "hierarchical"),
    **dict.fromkeys((0xC9, 0xCA), "arithmetic-coded"),
}


def split_jpeg(data: bytes) -> Parts:
    """Take a JPEG file apart. What follows the image, such as the gain map in a phone's file, is left out.

    Where the end is missing (`ended` is False) `data` lacks it too.

    Raises:
        BrokenImage: no image in it, one without all of its components, or without its last scans.
        UnsupportedImage: more than 8 bits a sample, or 2 or more than 4 components, a height that comes last, more
            than 100 scans.
    """
    kept, scans, icc = [data[:2]], [], {}
    exif, xmp, iptc, process, ended = None, None, None, 0, False
    components: set[int] = set()
    for marker, body, segment in _segments(data):
        if marker in _FRAMES:
            process, components = marker, _components(body)
        elif marker == _SOS:
            scans.append(body)
        elif marker == 0xE1 and body.startswith(EXIF_NAME) and exif is None:
            exif = body[len(EXIF_NAME) :]
        elif marker == 0xE1 and body.startswith(_XMP_NAME) and xmp is None:
            xmp = body[len(_XMP_NAME) :]
        elif marker == 0xED and body.startswith(_IPTC_NAME) and iptc is None:
            iptc = body[len(_IPTC_NAME) :]
        elif marker == 0xE2 and body.startswith(_ICC_NAME) and len(body) > 14:
            icc[body[12]] = body
        # As the decoder, take JFIF and Adobe segments for what they say when they are whole alone.
        jfif = marker == 0xE0 and body.startswith(b"JFIF\0") and len(body) >= 14
        adobe = marker == 0xEE and body.startswith(b"Adobe") and len(body) >= 12
        if marker in _FRAMES or marker in _CODED or jfif or adobe:
            kept.append(segment)
        ended = marker == _EOI
    if len(scans) > MAX_SCANS:  # each costs a pass over the image, however few bytes it has
        raise UnsupportedImage(f"a JPEG of {len(scans)} scans is not supported: {MAX_SCANS} are")
    scanned = _scanned(scans)
    if not components or not components <= scanned.keys():
        raise BrokenImage("the JPEG file lacks its image, or a component of it")
    if not ended and any(len(scanned[component]) < 64 for component in components):
        raise BrokenImage("the JPEG file is cut short: its last scans are missing")
    image = b"".join(kept)
    return Parts(
        "JPEG",
        image + b"\xff\xd9" if ended else image.rstrip(b"\xff"),
        colours=_profile(icc),
        exif=exif,
        xmp=xmp,
        iptc=iptc,
        layout=f"a {_PROCESSES[process]} JPEG" if process in _PROCESSES else None,
        rare=process in _PROCESSES,
        ended=ended,
    )


def _segments(data: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Yield marker, body, and the whole segment, a scan with its coded data; ends with EOI or where the data does."""
    at = 2
    for _ in range(MAX_BLOCKS):
        at = data.find(b"\xff", at)
        if not 0 <= at < len(data) - 1:
            return
        marker = data[at + 1]
        if marker == _EOI:
            yield marker, b"", b""
            return
        if marker in (0, 0xFF) or marker in _BARE:
            at += 1 if marker == 0xFF else 2
            continue
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        body_end = end
        if marker == _SOS:
            following = _MARKER_IN_SCAN.search(data, end)
            end = following.start() if following else len(data)
        yield marker, data[at + 4 : body_end], data[at:end]
        at = end
    raise BrokenImage("the JPEG file has too many segments")


def _components(body: bytes) -> set[int]:
    """The component ids of a frame header (B.2.2). Raises as `split_jpeg`."""
    if len(body) < 6 or len(body) < 6 + 3 * body[5] or not body[5]:
        raise BrokenImage("the frame header of the JPEG file is damaged")
    if body[0] != 8:
        raise UnsupportedImage(f"a JPEG of {body[0]} bits a sample is not supported: 8 bits are")
    if body[5] not in (1, 3, 4):
        raise UnsupportedImage(f"a JPEG of {body[5]} components is not supported: 1, 3 or 4 are")
    if body[1:3] == b"\0\0":
        raise UnsupportedImage("a JPEG that gives its height behind its pixels (DNL) is not supported")
    return set(body[6 : 6 + 3 * body[5] : 3])


def _scanned(scans: list[bytes]) -> dict[int, set[int]]:
    """Of each component in these scan headers (B.2.3), the coefficients 0..63 that are then complete."""
    scanned: dict[int, set[int]] = {}
    for body in scans:
        count = body[0] if body else 0
        if len(body) >= 4 + 2 * count:
            first, last, bits_to_come = body[1 + 2 * count], body[2 + 2 * count], body[3 + 2 * count] & 15
            for component in body[1 : 1 + 2 * count : 2]:
                scanned.setdefault(component, set()).update(() if bits_to_come else range(first, last + 1))
    return scanned


def _profile(segments: dict[int, bytes]) -> tuple[bytes, ...]:
    """The ICC profile of APP2 segments by their number from 1; none when one is missing."""
    if not segments or set(segments) != set(range(1, segments[min(segments)][13] + 1)):
        return ()
    icc = b"".join(segments[number][14:] for number in sorted(segments))
    return (icc,) if len(icc) <= MAX_ICC_BYTES else ()
