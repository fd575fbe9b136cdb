"""TIFF files taken apart (TIFF 6.0; sections are named)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from service.errors import BrokenImage
from service.images.colour import MAX_ICC_BYTES
from service.images.parts import Parts

Order = Literal["little", "big"]

MAX_PAGES = 1000
MAX_ENTRIES = 1000  # of a page; TIFF 6.0 and its supplements know some 100 tags
_SUBFILE, _OLD_SUBFILE, _WIDTH, _LENGTH, _BITS, _COMPRESSION, _PHOTOMETRIC = 254, 255, 256, 257, 258, 259, 262
_STRIPS, ORIENTATION, _TILE_WIDTH, _TILE_LENGTH, _TILES, _FORMAT, _ICC = 273, 274, 322, 323, 324, 339, 34675
_XMP, _IPTC = 700, 33723
_REDUCED, _MASK = 1, 4  # bits of NewSubfileType (section 8)
_ORDERS: dict[bytes, Order] = {b"II*\0": "little", b"MM\0*": "big"}
_NUMBERS = {1: 1, 3: 2, 4: 4}  # bytes of the types BYTE, SHORT and LONG
_SIZES = _NUMBERS | {2: 1, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
# What decoding needs: geometry, samples, compression and its parameters (sections 8 to 22, and JPEG tables).
_KEPT = frozenset(
    {_WIDTH, _LENGTH, _BITS, _COMPRESSION, _PHOTOMETRIC, 266, _STRIPS, 277, 278, 279, 284, 292, 293, 317, 320}
    | {_TILE_WIDTH, _TILE_LENGTH, _TILES, 325, 338, _FORMAT, 347, *range(512, 522), 529, 530, 531, 532}
)
_USUAL = frozenset({1, 2, 3, 4, 5, 7, 8, 32773, 32946, 50000})  # compressions the decoder has in all its builds


@dataclass(frozen=True)
class Page:
    """A directory: where it is, and its entries by tag (section 2)."""

    data: bytes
    order: Order
    offset: int
    entries: dict[int, bytes]

    def values(self, tag: int, limit: int = 8) -> tuple[int, ...]:
        """The first values of a BYTE, SHORT or LONG entry; none when it is missing or damaged."""
        entry = self.entries.get(tag, bytes(12))
        size = _NUMBERS.get(int.from_bytes(entry[2:4], self.order), 0)
        count = int.from_bytes(entry[4:8], self.order)
        at = int.from_bytes(entry[8:12], self.order)
        field = entry[8:12] if size * count <= 4 else self.data[at : at + size * min(count, limit)]
        count = min(count, limit, len(field) // size if size else 0)
        return tuple(int.from_bytes(field[k * size : (k + 1) * size], self.order) for k in range(count))

    def first(self, tag: int, default: int = 0) -> int:
        return next(iter(self.values(tag)), default)

    def block(self, tag: int, limit: int) -> bytes | None:
        """The bytes of a BYTE or UNDEFINED entry of 5..limit bytes; None when there is no such entry."""
        entry = self.entries.get(tag, bytes(12))
        count, at = int.from_bytes(entry[4:8], self.order), int.from_bytes(entry[8:12], self.order)
        if int.from_bytes(entry[2:4], self.order) not in (1, 7) or not 4 < count <= limit:
            return None
        return self.data[at : at + count]

    def whole(self, tag: int) -> bool:
        """Whether the values of an entry are all in the file."""
        entry = self.entries[tag]
        size = _SIZES.get(int.from_bytes(entry[2:4], self.order), 0) * int.from_bytes(entry[4:8], self.order)
        return size <= 4 or int.from_bytes(entry[8:12], self.order) + size <= len(self.data)

    @property
    def auxiliary(self) -> bool:
        """Whether the page is a thumbnail or a mask of another one (section 8, NewSubfileType)."""
        reduced = self.first(_OLD_SUBFILE) == 2
        return reduced or bool(self.first(_SUBFILE) & (_REDUCED | _MASK)) or self.first(_PHOTOMETRIC) == 4


def split_tiff(data: bytes) -> Parts:
    """Take a TIFF file apart: its first page that is neither a thumbnail nor a mask, with what its pixels need.

    Raises:
        BrokenImage: no directory in it.
    """
    page, images = None, 0
    for found in pages(data):
        if page is None or (page.auxiliary and not found.auxiliary):
            page = found
        images += not found.auxiliary
        if images > 1:
            break
    if page is None:
        raise BrokenImage("the TIFF file has no page")
    icc = page.block(_ICC, MAX_ICC_BYTES)
    compression = page.first(_COMPRESSION, 1)
    needed = (_WIDTH, _LENGTH, _STRIPS if _STRIPS in page.entries else _TILES)
    sound = all(map(page.first, needed)) and all(page.whole(tag) for tag in page.entries if tag in _KEPT)
    layout = (
        f"a TIFF of photometric interpretation {page.first(_PHOTOMETRIC)} and compression {compression}"
        f" with {page.values(_BITS) or (1,)} bits of sample format {page.first(_FORMAT, 1)}"
    )
    start = page.offset.to_bytes(4, page.order)
    return Parts(
        "TIFF",
        _rewritten(page),
        animated=images > 1,
        tile_pixels=page.first(_TILE_WIDTH) * page.first(_TILE_LENGTH),
        colours=(icc,) if icc else (),
        exif=data if data[4:8] == start else data[:4] + start + data[8:],
        xmp=page.block(_XMP, MAX_ICC_BYTES),
        iptc=page.block(_IPTC, MAX_ICC_BYTES),
        orientation=page.first(ORIENTATION, 1),
        layout=layout if sound else None,
        rare=compression not in _USUAL,
    )


def pages(data: bytes) -> Iterator[Page]:
    """The directories of a TIFF structure, each once, up to the first that is not whole; none of what is no TIFF."""
    order = _ORDERS.get(data[:4])
    if order is None:
        return
    seen: set[int] = set()
    offset = int.from_bytes(data[4:8], order)
    while 8 <= offset < len(data) and offset not in seen and len(seen) < MAX_PAGES:
        seen.add(offset)
        count = int.from_bytes(data[offset : offset + 2], order)
        table = data[offset + 2 : offset + 2 + 12 * count]
        if len(table) < 12 * count or count > MAX_ENTRIES:
            return
        entries = [table[k : k + 12] for k in range(0, len(table), 12)]
        yield Page(data, order, offset, {int.from_bytes(entry[:2], order): entry for entry in entries})
        end = offset + 2 + 12 * count
        offset = int.from_bytes(data[end : end + 4], order)


def _rewritten(page: Page) -> bytes:
    """The file with one directory, behind its data, of the entries that are kept."""
    entries = [entry for tag, entry in sorted(page.entries.items()) if tag in _KEPT]
    padding = bytes(len(page.data) % 2)
    start = (len(page.data) + len(padding)).to_bytes(4, page.order)
    directory = len(entries).to_bytes(2, page.order) + b"".join(entries) + bytes(4)
    return page.data[:4] + start + page.data[8:] + padding + directory
