"""JPEG files taken apart (ITU-T T.81, annex B; Exif 3.0, 4.7.2; ICC.1:2022, B.4)."""

from __future__ import annotations

import re

from service.errors import BrokenImage, UnsupportedImage
from service.images.colour import MAX_ICC_BYTES
from service.images.parts import MAX_BLOCKS, Parts

EXIF_NAME = b"Exif\0\0"
_ICC_NAME = b"ICC_PROFILE\0"
_EOI, _SOS = 0xD9, 0xDA
_BARE = frozenset({0x01, *range(0xD0, 0xD9)})  # markers without a segment
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_TABLES = frozenset({0xC4, 0xCC, 0xDB, 0xDC, 0xDD})
_MARKER_IN_SCAN = re.compile(rb"\xff+[^\x00\xd0-\xd7\xff]")
_PROCESSES = {  # T.81, table B.1: what is not Huffman-coded DCT
    **dict.fromkeys((0xC3, 0xCB), "lossless"),
    **dict.fromkeys((0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF), "hierarchical"),
    **dict.fromkeys((0xC9, 0xCA), "arithmetic-coded"),
}


def split_jpeg(data: bytes) -> Parts:
    """Take a JPEG file apart. What follows the image, such as the other pictures of a phone's file, is left out.

    Where the end is missing (`ended` is False) `data` lacks it too.

    Raises:
        BrokenImage: no image in it, or one without all of its components.
        UnsupportedImage: more than 8 bits a sample, or 2 or more than 4 components, or a height that comes last.
    """
    kept: list[bytes] = [data[:2]]
    icc: dict[int, bytes] = {}
    exif, process, missing, at, ended = None, 0, None, 2, False
    for _ in range(MAX_BLOCKS):
        at = data.find(b"\xff", at)
        marker = data[at + 1] if 0 <= at < len(data) - 1 else None
        if marker is None or marker == _EOI:
            ended = marker == _EOI
            break
        if marker in (0, 0xFF) or marker in _BARE:
            at += 1 if marker == 0xFF else 2
            continue
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        segment, body = data[at:end], data[at + 4 : end]
        if marker in _FRAMES:
            process, missing = marker, _components(body)
        elif marker == 0xE1 and body.startswith(EXIF_NAME) and exif is None:
            exif = body[len(EXIF_NAME) :]
        elif marker == 0xE2 and body.startswith(_ICC_NAME) and len(body) > 14:
            icc[body[12]] = body
        # As the decoder, take JFIF and Adobe segments for what they say when they are whole alone.
        jfif = marker == 0xE0 and body.startswith(b"JFIF\0") and len(body) >= 14
        adobe = marker == 0xEE and body.startswith(b"Adobe") and len(body) >= 12
        if marker in _FRAMES or marker in _TABLES or jfif or adobe:
            kept.append(segment)
        at = end
        if marker == _SOS:
            missing = missing and missing - set(body[1 : 1 + 2 * (body[0] if body else 0) : 2])
            following = _MARKER_IN_SCAN.search(data, end)
            at = following.start() if following else len(data)
            kept += [segment, data[end:at]]
    else:
        raise BrokenImage("the JPEG file has too many segments")
    if missing is None or missing:
        raise BrokenImage("the JPEG file lacks its image, or a component of it")
    return Parts(
        "JPEG",
        b"".join(kept) + (b"\xff\xd9" if ended else b""),
        colours=_profile(icc),
        exif=exif,
        layout=f"a {_PROCESSES[process]} JPEG" if process in _PROCESSES else None,
        rare=process in _PROCESSES,
        ended=ended,
    )


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


def _profile(segments: dict[int, bytes]) -> tuple[bytes, ...]:
    """The ICC profile of APP2 segments by their number from 1; none when one is missing."""
    if not segments or set(segments) != set(range(1, segments[min(segments)][13] + 1)):
        return ()
    icc = b"".join(segments[number][14:] for number in sorted(segments))
    return (icc,) if len(icc) <= MAX_ICC_BYTES else ()
