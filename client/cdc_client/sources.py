"""What may be handed to a call: bytes, a path, or a file opened for reading in binary."""

from __future__ import annotations

from pathlib import Path
from typing import IO, TypeAlias

Source: TypeAlias = bytes | bytearray | memoryview | str | Path | IO[bytes]


def read_source(source: Source) -> bytes:
    """Return the bytes; blocks. A `str` is a path.

    Raises:
        OSError: the file cannot be read.
        TypeError: a file opened as text, or something else.
    """
    if isinstance(source, bytes):
        return source
    if isinstance(source, bytearray | memoryview):
        return bytes(source)
    if isinstance(source, str | Path):
        return Path(source).read_bytes()
    data = source.read()
    if not isinstance(data, bytes):
        raise TypeError("the file must be opened in binary mode")
    return data
