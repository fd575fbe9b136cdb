"""What an image file says besides its pixels."""

from __future__ import annotations

from dataclasses import dataclass

from service.images.signal import Signal

Key = tuple[int, ...]
Box = tuple[int, int, int, int]

MAX_BLOCKS = 100_000  # of a file: chunks, segments, boxes; a photograph has some thousands at most


@dataclass(frozen=True)
class Parts:
    """An image file taken apart. Optional metadata is left out of `data`, so that damage in it cannot cost the image.

    Attributes:
        kind: name of Pillow's decoder, see `service.images.kind`.
        data: a file of that kind with all that decoding the first image needs, and little else.
        animated: the file has several images of equal standing.
        colours: ICC profiles and colour signals, the one to prefer first; the first usable one holds.
        exif: TIFF structure of the EXIF block, unchecked; None when there is none.
        xmp, iptc: XMP packet and IPTC-IIM data, unchecked; None when there is none.
        orientation: 1..8 (EXIF 2.3, tag 0x0112) where the format itself says it; None: EXIF does.
        key: sample values, one a channel at the file's own depth, that stand for full transparency.
        box: left, top, right, bottom of the part that has pixels; the rest is transparent. None: all of it.
        depth: bits a sample of a PNG file; 8 for other kinds.
        layout: the kind of pixels in words, where the structure of the file is sound.
        rare: a layout that Pillow knows by name and may still be unable to decode.
        tile_pixels: of one tile, which the decoder allocates whole however small the image is.
        ended: the file has the end that its format demands.
    """

    kind: str
    data: bytes
    animated: bool = False
    colours: tuple[bytes | Signal, ...] = ()
    exif: bytes | None = None
    xmp: bytes | None = None
    iptc: bytes | None = None
    orientation: int | None = None
    key: Key | None = None
    box: Box | None = None
    depth: int = 8
    layout: str | None = None
    rare: bool = False
    tile_pixels: int = 0
    ended: bool = True
