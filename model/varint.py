"""Unsigned LEB128 integers, shortest form only: one value has one encoding, so one picture has one file."""

from __future__ import annotations

from model.errors import MalformedFile, TruncatedFile

MAX_BYTES = 9  # 63 bits: more than any length this format can hold


def encode_varint(value: int) -> bytes:
    """Return `value` (0 <= value < 2**63) as 1 to 9 bytes, least significant group first."""
    if not 0 <= value < 1 << 63:
        raise ValueError(f"varint out of range: {value}")
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def decode_varint(data: bytes | memoryview, offset: int) -> tuple[int, int]:
    """Read a varint at `offset` of `data`; return (value, offset behind it).

    Raises:
        TruncatedFile: the data ends inside the integer.
        MalformedFile: longer than 9 bytes, or not in its shortest form.
    """
    value = 0
    for index in range(MAX_BYTES):
        if offset + index >= len(data):
            raise TruncatedFile("the file ends inside a length field")
        byte = data[offset + index]
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            if byte == 0 and index:
                raise MalformedFile("a length field is not in its shortest form")
            return value, offset + index + 1
    raise MalformedFile("a length field is longer than 9 bytes")
