"""Boxes of ISO base media files, and what the items of a HEIF file are (ISO/IEC 14496-12, ISO/IEC 23008-12)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from service.images.parts import MAX_BLOCKS

MAX_ITEMS = 10_000
MAX_TABLE_BYTES = 1 << 18  # of a table of items; a photograph in a grid of 1000 tiles needs a tenth


@dataclass(frozen=True)
class Box:
    """A box of `data`: its four-letter kind, where it starts, where its body starts, where it ends."""

    kind: bytes
    start: int
    body: int
    end: int


class Reader:
    """Reads big-endian numbers one after the other. Beyond the end everything is 0."""

    def __init__(self, data: bytes, at: int, end: int) -> None:
        self.data, self.at, self.end = data, at, min(end, at + MAX_TABLE_BYTES, len(data))

    def number(self, size: int) -> int:
        """The next `size` bytes, 0..8."""
        value = int.from_bytes(self.data[self.at : min(self.at + size, self.end)], "big")
        self.at += size
        return value

    @property
    def left(self) -> bool:
        return self.at < self.end


def boxes(data: bytes, at: int, end: int) -> Iterator[Box]:
    """The boxes of data[at:end], one level; ends at the first that is not whole (14496-12, 4.2)."""
    end = min(end, len(data))
    for _ in range(MAX_BLOCKS):
        if at + 8 > end:
            return
        size, kind, head = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8], 8
        if size == 1:
            size, head = int.from_bytes(data[at + 8 : at + 16], "big"), 16
        size = size or end - at
        if size < head or at + size > end:
            return
        yield Box(kind, at, at + head, at + size)
        at += size


@dataclass
class Items:
    """What a meta box says of its items.

    Attributes:
        primary: id of the image to show.
        kinds: item id -> the box that declares it and the position of its four-letter type.
        extents: item id -> offset and length of each of its parts; offsets count from the start of the file.
        properties: the property boxes; numbers in `links` count them from 1.
        links: item id -> numbers of its properties.
        link_at: item id -> position of the count of these numbers, whether they have 2 bytes, the boxes around them.
        auxiliary: ids of the items that belong to another image, such as its alpha.
    """

    primary: int = 0
    kinds: dict[int, int] = field(default_factory=dict)
    extents: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    properties: list[Box] = field(default_factory=list)
    links: dict[int, list[int]] = field(default_factory=dict)
    link_at: dict[int, tuple[int, bool, tuple[Box, ...]]] = field(default_factory=dict)
    auxiliary: set[int] = field(default_factory=set)

    def properties_of(self, item: int) -> list[Box]:
        """The property boxes of an item."""
        return [self.properties[n - 1] for n in self.links.get(item, []) if 0 < n <= len(self.properties)]


def read_items(data: bytes, meta: Box) -> Items:
    """Read a meta box (14496-12, 8.11). What is damaged in it is left out."""
    items = Items()
    children = {box.kind: box for box in boxes(data, meta.body + 4, meta.end)}
    idat = children.get(b"idat")
    if pitm := children.get(b"pitm"):
        items.primary = Reader(data, pitm.body + 4, pitm.end).number(4 if data[pitm.body] else 2)
    if iinf := children.get(b"iinf"):
        for box in boxes(data, iinf.body + (8 if data[iinf.body] else 6), iinf.end):
            wide = data[box.body] == 3
            items.kinds[Reader(data, box.body + 4, box.end).number(4 if wide else 2)] = box.body + (10 if wide else 8)
    if iref := children.get(b"iref"):
        for box in boxes(data, iref.body + 4, iref.end):
            if box.kind == b"auxl":
                items.auxiliary.add(Reader(data, box.body, box.end).number(4 if data[iref.body] else 2))
    if iprp := children.get(b"iprp"):
        parts = list(boxes(data, iprp.body, iprp.end))
        ipco = next((box for box in parts if box.kind == b"ipco"), iprp)
        items.properties = list(boxes(data, ipco.body, ipco.end))
        for box in [box for box in parts if box.kind == b"ipma"][:2]:  # one for short and one for long item ids
            _read_links(data, box, iprp, items)
    if iloc := children.get(b"iloc"):
        _read_extents(data, iloc, idat.body if idat else 0, items)
    return items


def _read_links(data: bytes, box: Box, iprp: Box, items: Items) -> None:
    """Read an ipma box (23008-12, 9.3): per item the numbers of its properties."""
    reader = Reader(data, box.body, box.end)
    version, flags = reader.number(1), reader.number(3)
    for _ in range(min(reader.number(4), MAX_ITEMS)):
        item = reader.number(4 if version else 2)
        wide = flags & 1
        items.link_at[item] = reader.at, bool(wide), (iprp, box)
        links = [reader.number(1 + wide) & (0x7FFF if wide else 0x7F) for _ in range(reader.number(1))]
        if not reader.left and reader.at > reader.end:
            return
        items.links[item] = links


def _read_extents(data: bytes, box: Box, idat: int, items: Items) -> None:
    """Read an iloc box (14496-12, 8.11.3): per item where its parts lie."""
    reader = Reader(data, box.body, box.end)
    version = reader.number(4) >> 24
    sizes = reader.number(2)
    offset_size, length_size, base_size, index_size = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
    for _ in range(min(reader.number(4 if version == 2 else 2), MAX_ITEMS)):
        item = reader.number(4 if version == 2 else 2)
        inside = version and reader.number(2) & 15 == 1
        reader.number(2)
        base = reader.number(base_size) + (idat if inside else 0)
        extents = []
        count = reader.number(2)
        for _ in range(count if offset_size + length_size else 0):
            reader.number(index_size if version else 0)
            extents.append((base + reader.number(offset_size), reader.number(length_size)))
            if not reader.left:
                break
        items.extents[item] = extents
        if not reader.left:
            return
