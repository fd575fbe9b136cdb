"""Sections and checksum: from a header and its sections to a file, and back."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

import google_crc32c

from model.container.header import Header, read_header
from model.container.space import unpack_space
from model.errors import ChecksumMismatch, InvalidParameter, MalformedFile, TruncatedFile, UnsupportedVersion
from model.varint import decode_varint, encode_varint

CRC_BYTES = 4
MAX_SECTIONS = 16
OPTIONAL = 0x80  # types at and above it may be skipped by a decoder that does not know them


class SectionType(IntEnum):
    """Known section types. Those below 0x80 are critical, as in PNG: a decoder that does not know one must refuse."""

    END = 0x00  # closes the list; has no length
    HYPER = 0x01  # entropy-coded z
    LATENT = 0x02  # entropy-coded y
    ALPHA = 0x03  # 8-bit greyscale PNG of the image's size
    COLOUR = 0x04  # the space of the pixels, where it is not sRGB
    EXIF = 0x80  # TIFF structure without location
    XMP = 0x81  # packet of the fields about rights


@dataclass(frozen=True)
class Section:
    """One section: `type` 1..255 and its bytes."""

    type: int
    data: bytes

    def __post_init__(self) -> None:
        if not 1 <= self.type <= 255:
            raise InvalidParameter(f"a section type must be 1..255, not {self.type}")


@dataclass(frozen=True)
class Container:
    """A parsed file whose checksum holds: header and sections in file order (unknown optional ones included)."""

    header: Header
    sections: tuple[Section, ...]

    def section(self, kind: SectionType) -> bytes | None:
        """Return the bytes of the section of that type, or None."""
        return next((s.data for s in self.sections if s.type == kind), None)


def pack(header: Header, sections: Iterable[Section]) -> bytes:
    """Return the file of `header` and `sections`, checksum included.

    Raises:
        InvalidParameter: a section type twice, or more than 16 sections.
    """
    listed = list(sections)
    if len({s.type for s in listed}) != len(listed) or len(listed) > MAX_SECTIONS:
        raise InvalidParameter(f"a file holds at most {MAX_SECTIONS} sections, each type once")
    body = header.to_bytes()
    body += b"".join(bytes([s.type]) + encode_varint(len(s.data)) + s.data for s in listed)
    body += bytes([SectionType.END])
    checksum: int = google_crc32c.value(body)
    return body + checksum.to_bytes(CRC_BYTES, "little")


def parse(data: bytes, max_pixels: int | None = None) -> Container:
    """Parse and verify a whole file.

    Header limits come first, then the list of sections, then the checksum, so that a large lie costs nothing, a short
    file is called truncated, and a damaged one damaged.

    Raises:
        FileError: any of its subclasses, see `model.errors`.
        LimitExceeded: more than `max_pixels` pixels.
    """
    view = memoryview(data)
    header, offset = read_header(view, max_pixels)
    sections: list[Section] = []
    while True:
        if offset >= len(view):
            raise TruncatedFile("the file ends inside its list of sections")
        kind = view[offset]
        offset += 1
        if kind == SectionType.END:
            break
        if len(sections) == MAX_SECTIONS:
            raise MalformedFile(f"more than {MAX_SECTIONS} sections")
        length, offset = decode_varint(view, offset)
        if length > len(view) - offset:
            raise TruncatedFile("a section is longer than the rest of the file")
        sections.append(Section(kind, bytes(view[offset : offset + length])))
        offset += length
    if len(view) - offset < CRC_BYTES:
        raise TruncatedFile("the file ends before its checksum")
    if len(view) - offset > CRC_BYTES:
        raise MalformedFile("bytes follow the checksum")
    if int.from_bytes(view[offset:], "little") != google_crc32c.value(bytes(view[:offset])):
        raise ChecksumMismatch("CRC-32C mismatch: the file is damaged")
    _check_sections(sections)
    return Container(header, tuple(sections))


def _check_sections(sections: list[Section]) -> None:
    types = [s.type for s in sections]
    if len(set(types)) != len(types):
        raise MalformedFile("a section type appears twice")
    known = {int(t) for t in SectionType}
    for kind in types:
        if kind < OPTIONAL and kind not in known:
            raise UnsupportedVersion(f"critical section type {kind} is unknown to this decoder")
    for kind in (SectionType.HYPER, SectionType.LATENT):
        if kind not in types:
            raise MalformedFile(f"the {kind.name} section is missing")
    for section in sections:
        if section.type == SectionType.COLOUR:
            unpack_space(section.data)
