"""Unsigned LEB128 integers, shortest form only: one value has one encoding, so one image has one file."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

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


def encode_varints(values: npt.NDArray[np.int64]) -> bytes:
    """Return the varints of `values` (int64 [n], each 0..2**63 - 1) one behind the other."""
    lengths = np.ones_like(values)
    for k in range(1, MAX_BYTES):
        lengths += values >> 7 * k > 0
    starts = np.cumsum(lengths) - lengths
    out = np.empty(int(lengths.sum()), np.uint8)
    for k in range(int(lengths.max(initial=0))):
        rows = lengths > k
        more = np.where(lengths[rows] > k + 1, 0x80, 0)
        out[starts[rows] + k] = values[rows] >> 7 * k & 0x7F | more
    return out.tobytes()


def decode_varints(data: bytes | memoryview, offset: int, count: int) -> tuple[npt.NDArray[np.int64], int]:
    """Read `count` varints from `offset` of `data` on; return (int64 [count], offset behind the last).

    Memory follows `count`, not the data. Raises as `decode_varint` does.
    """
    window = np.frombuffer(data, np.uint8)[offset : offset + MAX_BYTES * count]
    ends = np.flatnonzero(window < 0x80)[:count]
    starts = np.concatenate([[0], ends[:-1] + 1]) if count else ends
    lengths = ends - starts[: len(ends)] + 1
    if (lengths > MAX_BYTES).any() or (len(ends) < count and len(window) == MAX_BYTES * count):
        raise MalformedFile("a length field is longer than 9 bytes")
    if len(ends) < count:
        raise TruncatedFile("the file ends inside a length field")
    if ((window[ends] == 0) & (lengths > 1)).any():
        raise MalformedFile("a length field is not in its shortest form")
    values = np.zeros(count, np.int64)
    for k in range(int(lengths.max(initial=0))):
        rows = lengths > k
        values[rows] |= (window[starts[rows] + k] & 0x7F).astype(np.int64) << 7 * k
    return values, offset + (int(ends[-1]) + 1 if count else 0)
