"""BMP files taken apart, which means their header is read."""

from __future__ import annotations

from service.images.parts import Parts

_SHORT = 12  # bytes of an OS/2 header; others begin alike


def split_bmp(data: bytes) -> Parts:
    """Name the layout of a BMP file; nothing in it is left out. Raises nothing."""
    size = int.from_bytes(data[14:18], "little")
    at = 24 if size == _SHORT else 28
    bits = int.from_bytes(data[at : at + 2], "little")
    compression = 0 if size == _SHORT else int.from_bytes(data[30:34], "little")
    # A compression or depth beyond all that were ever defined is damage.
    sound = 14 + size <= len(data) and bits in (0, 1, 2, 4, 8, 16, 24, 32, 64) and compression <= 13
    return Parts("BMP", data, layout=f"a BMP of {bits} bits and compression {compression}" if sound else None)
