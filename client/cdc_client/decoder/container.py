"""The `.cdc` file: header, sections, checksum, as FORMAT.md describes them. Needs nothing but Python."""

from __future__ import annotations

from dataclasses import dataclass

from cdc_client.errors import UnreadableFile

MAGIC = b"\x8fCDC\r\n\x1a\n"
MAX_SIDE, MAX_SECTIONS, MAX_VARINT = 65535, 16, 9
HYPER, LATENT, ALPHA, COLOUR, EXIF, XMP = 1, 2, 3, 4, 128, 129
SPACES = {1: "display-p3", 2: "adobe-rgb", 3: "prophoto-rgb"}  # what COLOUR says
OPTIONAL = 128  # types at and above it may be skipped
HEADER_BYTES = 24  # at most


@dataclass(frozen=True)
class File:
    """Header and sections. `codec_id` 8 bytes, sides 1..65535, `rate` 0..255, `sections` by type."""

    codec_id: bytes
    width: int
    height: int
    rate: int
    sections: dict[int, bytes]


def read_varint(data: bytes, at: int, *, stream: bool = False) -> tuple[int, int]:
    """The integer at `at`, and where it ends. Raises UnreadableFile, "corrupt-stream" inside a `stream`."""
    value = 0
    for index in range(MAX_VARINT):
        if at + index >= len(data):
            raise UnreadableFile("corrupt-stream" if stream else "truncated-file", "the file ends inside an integer")
        byte = data[at + index]
        value |= (byte & 127) << 7 * index
        if byte < 128:
            if index and not byte:
                break
            return value, at + index + 1
    raise UnreadableFile("corrupt-stream" if stream else "malformed-file", "an integer is not in its shortest form")


def read_header(data: bytes, max_pixels: int | None = None) -> tuple[File, int]:
    """Header of a file, without sections, and where it ends; `HEADER_BYTES` are enough. Raises UnreadableFile."""
    if data[:8] != MAGIC:
        if data and MAGIC.startswith(data):
            raise UnreadableFile("truncated-file", "the file ends inside its magic")
        raise UnreadableFile("not-a-cdc-file", "this is not a .cdc file: its first 8 bytes differ")
    if len(data) < 17:
        raise UnreadableFile("truncated-file", "the file ends inside its header")
    if data[8] != 1:
        raise UnreadableFile("unsupported-version", f"format version {data[8]}; this decoder knows version 1")
    width, at = read_varint(data, 17)
    height, at = read_varint(data, at)
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE):
        raise UnreadableFile("malformed-file", f"a side must be 1..{MAX_SIDE} pixels")
    if max_pixels is not None and width * height > max_pixels:
        raise UnreadableFile("too-many-pixels", f"the image has {width}x{height} pixels; the limit is {max_pixels}")
    if at >= len(data):
        raise UnreadableFile("truncated-file", "the file ends inside its header")
    return File(data[9:17], width, height, data[at], {}), at + 1


def parse(data: bytes, max_pixels: int | None = None) -> File:
    """A whole file, its checksum verified; checks come in the order of FORMAT.md. Raises UnreadableFile."""
    header, at = read_header(data, max_pixels)
    found: list[tuple[int, bytes]] = []
    while True:
        if at >= len(data):
            raise UnreadableFile("truncated-file", "the file ends inside its list of sections")
        kind, at = data[at], at + 1
        if kind == 0:
            break
        if len(found) == MAX_SECTIONS:
            raise UnreadableFile("malformed-file", f"more than {MAX_SECTIONS} sections")
        length, at = read_varint(data, at)
        if length > len(data) - at:
            raise UnreadableFile("truncated-file", "a section is longer than the rest of the file")
        found.append((kind, data[at : at + length]))
        at += length
    if len(data) - at < 4:
        raise UnreadableFile("truncated-file", "the file ends before its checksum")
    if len(data) - at > 4:
        raise UnreadableFile("malformed-file", "bytes follow the checksum")
    if int.from_bytes(data[at:], "little") != crc32c(data[:at]):
        raise UnreadableFile("checksum-mismatch", "CRC-32C mismatch: the file is damaged")
    sections = dict(found)
    if len(sections) != len(found):
        raise UnreadableFile("malformed-file", "a section type appears twice")
    unknown = [kind for kind in sections if kind < OPTIONAL and kind not in (HYPER, LATENT, ALPHA, COLOUR)]
    if unknown:
        raise UnreadableFile("unsupported-version", f"critical section type {unknown[0]} is unknown to this decoder")
    if HYPER not in sections or LATENT not in sections:
        raise UnreadableFile("malformed-file", "a section with coded data is missing")
    if COLOUR in sections:
        space_of(sections[COLOUR])
    return File(header.codec_id, header.width, header.height, header.rate, sections)


def space_of(data: bytes) -> str:
    """Which of `SPACES` a COLOUR section names. Raises UnreadableFile."""
    if len(data) != 1:
        raise UnreadableFile("malformed-file", "the colour section is not one byte")
    if data[0] not in SPACES:
        raise UnreadableFile("unsupported-version", f"colour space {data[0]} is unknown to this decoder")
    return SPACES[data[0]]


def _crc_table() -> tuple[int, ...]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return tuple(table)


_CRC = _crc_table()


def crc32c(data: bytes) -> int:
    """CRC-32C (RFC 3720)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC[(crc ^ byte) & 255]
    return crc ^ 0xFFFFFFFF
