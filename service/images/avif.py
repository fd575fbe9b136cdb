"""AVIF files taken apart (AVIF 1.1, HEIF: ISO/IEC 23008-12)."""

from __future__ import annotations

from service.images.boxes import Box, Items, boxes, read_items
from service.images.colour import MAX_ICC_BYTES
from service.images.parts import Parts
from service.images.signal import Signal, cicp_signal

_SRGB_TRANSFER = 13
# Cameras' video curves. Browsers show them in AVIF as sRGB, unlike in PNG, and so do those who write such files.
_VIDEO_TRANSFERS = frozenset({1, 6, 14, 15})
_CODED = frozenset({b"av01", b"grid"})  # kinds of items that are images to the decoder
_ALPHA = (b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha\0", b"urn:mpeg:hevc:2015:auxid:1\0")


def split_avif(data: bytes) -> Parts:
    """Take an AVIF file apart.

    Items of metadata are hidden from the decoder, which gives up when one of them is damaged; so is an alpha plane
    without data. An alpha plane whose size is not given, which HEIF demands, gets that of its image. Turning and
    mirroring (irot, imir) are left to the decoder, which reports them as an EXIF orientation.
    """
    meta = next((box for box in boxes(data, 0, len(data)) if box.kind == b"meta"), None)
    if meta is None:
        return Parts("AVIF", data)
    items = read_items(data, meta)
    mended = bytearray(data)
    exif = None
    for item, at in items.kinds.items():
        kind = data[at : at + 4]
        if kind == b"Exif" and exif is None:
            exif = _exif(data, items, item)
        if kind in (b"Exif", b"mime") or (_is_alpha(data, items, item) and not _has_data(items, item)):
            mended[at : at + 4] = b"skip"
    for item in items.auxiliary:
        if _is_alpha(data, items, item) and not any(p.kind == b"ispe" for p in items.properties_of(item)):
            mended = _with_size(mended, meta, items, item)
            break
    at = items.kinds.get(items.primary, len(data))
    kind = data[at : at + 4]
    layout = f"an AVIF whose image is of the kind {kind!r}" if kind.isalnum() and kind not in _CODED else None
    return Parts("AVIF", bytes(mended), colours=_colours(data, items), exif=exif, layout=layout)


def _is_alpha(data: bytes, items: Items, item: int) -> bool:
    """Whether an item is an alpha plane (AVIF, 4.1)."""
    names = (
        data[box.body + 4 : min(box.end, box.body + 64)] for box in items.properties_of(item) if box.kind == b"auxC"
    )
    return any(name.startswith(_ALPHA) for name in names)


def _has_data(items: Items, item: int) -> bool:
    return any(length for _, length in items.extents.get(item, []))


def _exif(data: bytes, items: Items, item: int) -> bytes | None:
    """The TIFF structure of an Exif item, which begins with its offset (23008-12, A.2.1)."""
    extents = items.extents.get(item, [])
    if len(extents) != 1:
        return None
    start, length = extents[0]
    block = data[start : start + length]
    return block[4 + int.from_bytes(block[:4], "big") :] or None


def _colours(data: bytes, items: Items) -> tuple[bytes | Signal, ...]:
    """The colour of the image (23008-12, 6.5.5): an ICC profile before code points."""
    profiles: list[bytes] = []
    signals: list[Signal] = []
    for box in items.properties_of(items.primary):
        name, at = data[box.body : box.body + 4], box.body + 4
        if box.kind == b"colr" and name in (b"prof", b"rICC") and not profiles:
            profiles.append(data[at : min(box.end, at + MAX_ICC_BYTES + 1)])
        elif box.kind == b"colr" and name == b"nclx" and box.end - at >= 7:
            primaries, transfer = int.from_bytes(data[at : at + 2], "big"), int.from_bytes(data[at + 2 : at + 4], "big")
            # The decoder has widened narrow ranges already.
            signal = cicp_signal(primaries, _SRGB_TRANSFER if transfer in _VIDEO_TRANSFERS else transfer, True)
            signals += [signal] if signal else []
    return (*profiles, *signals)


def _with_size(data: bytearray, meta: Box, items: Items, item: int) -> bytearray:
    """Link an item to the size (ispe) of the primary image.

    The meta box grows by that. The grown copy goes to the end of the file and the old one becomes free space: no other
    part moves, so all offsets stay right.
    """
    sizes = {n for n, box in enumerate(items.properties, 1) if box.kind == b"ispe"}
    size = next((n for n in items.links.get(items.primary, []) if n in sizes), 0)
    at, wide, parents = items.link_at[item]
    added = size.to_bytes(2 if wide else 1, "big")
    data[at] += 1
    for box in (meta, *parents):
        data[box.start : box.start + 4] = (box.end - box.start + len(added)).to_bytes(4, "big")
    grown = data[meta.start : at + 1] + added + data[at + 1 : meta.end]
    data[meta.start : meta.start + 8] = (meta.end - meta.start).to_bytes(4, "big") + b"free"
    return data + grown
