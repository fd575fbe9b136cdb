"""Image files made by hand, byte by byte, and files with parts put in."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from service.images.boxes import Box, Items, boxes, read_items
from service.images.reading import InputImage, read_image

MAX = 1_000_000
PNG_HEAD = 8 + 25  # signature and IHDR


def read(data: bytes, **options: Any) -> InputImage:
    return read_image(data, max_pixels=MAX, **options)


def chunk(name: bytes, body: bytes, crc: int | None = None) -> bytes:
    """A PNG chunk, with a CRC of its own where one is given."""
    return (
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body) if crc is None else crc)
    )


def packed(samples: npt.NDArray[np.integer[Any]], depth: int) -> bytes:
    """PNG rows, without filter, of integers [H, W] or [H, W, C] of `depth` bits."""
    bits = (samples.reshape(len(samples), -1)[..., None] >> np.arange(depth)[::-1]) & 1
    rows = np.packbits(bits.reshape(len(samples), -1).astype(np.uint8), axis=1)
    return b"".join(b"\0" + row.tobytes() for row in rows)


def png(samples: npt.NDArray[np.integer[Any]], depth: int, colour: int, *before: bytes, after: bytes = b"") -> bytes:
    """A PNG of integers [H, W] or [H, W, C], with chunks before and after its pixels."""
    head = struct.pack(">IIBBBBB", samples.shape[1], samples.shape[0], depth, colour, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(packed(samples, depth)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + b"".join(before) + body + after + chunk(b"IEND", b"")


def with_chunks(data: bytes, *before: bytes) -> bytes:
    """A PNG file with chunks put in behind its header."""
    return data[:PNG_HEAD] + b"".join(before) + data[PNG_HEAD:]


def with_segments(data: bytes, *segments: tuple[int, bytes]) -> bytes:
    """A JPEG file with segments, of a marker's second byte and a body, put in at its start."""
    put = b"".join(bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body for marker, body in segments)
    return data[:2] + put + data[2:]


def riff(name: bytes, body: bytes) -> bytes:
    return name + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)


def extended_webp(data: bytes, size: tuple[int, int], flags: int, *after: bytes) -> bytes:
    """A simple WebP file in the extended format, with chunks behind its image."""
    sides = b"".join((side - 1).to_bytes(3, "little") for side in size)
    return riff(b"RIFF", b"WEBP" + riff(b"VP8X", bytes((flags, 0, 0, 0)) + sides) + data[12:] + b"".join(after))


def tiff(
    pixels: npt.NDArray[Any],
    bits: int = 8,
    photometric: int = 2,
    format: int = 1,
    compression: int = 1,
    *,
    order: str = "<",
    more: tuple[tuple[int, int, int], ...] = (),
    behind: bytes = b"",
) -> bytes:
    """A TIFF of one strip; `more` are entries (tag, type, value), `behind` further directories or values."""
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    data = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    at = 8 + 8 * 2
    entries = {
        256: (4, 1, pixels.shape[1]), 257: (4, 1, pixels.shape[0]), 258: (3, channels, 8 if channels > 2 else bits),
        259: (3, 1, compression), 262: (3, 1, photometric), 273: (4, 1, at), 277: (3, 1, channels),
        278: (4, 1, pixels.shape[0]), 279: (4, 1, len(data)), 339: (3, channels, 16 if channels > 2 else format),
    } | {tag: (kind, 1, value) for tag, kind, value in more}  # fmt: skip
    listed = struct.pack(order + "8H", *[bits] * 4, *[format] * 4)  # at 8 and 16: the values of tags 258 and 339
    table = b""
    for tag, (kind, count, value) in sorted(entries.items()):
        short = kind == 3 and count < 3 and value < 65536
        table += struct.pack(order + "HHI", tag, kind, count)
        table += struct.pack(order + ("HH" if short else "I"), *((value, value) if short else (value,)))
    directory = at + len(data) + len(data) % 2
    following = directory + 2 + len(table) + 4
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", directory)
    body = head + listed + data + bytes(len(data) % 2) + struct.pack(order + "H", len(entries)) + table
    return body + struct.pack(order + "I", following if behind else 0) + behind


def exif_block(orientation: int) -> bytes:
    """A TIFF structure with an orientation and a maker's name."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "Maker"
    return exif.tobytes().removeprefix(b"Exif\0\0")


def xmp(orientation: int) -> bytes:
    return f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><d tiff:Orientation="{orientation}"/></x:xmpmeta>'.encode()


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    out = BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def avif_items(data: bytes) -> tuple[Box, Items]:
    """The meta box of an AVIF file and what it says."""
    meta = next(box for box in boxes(data, 0, len(data)) if box.kind == b"meta")
    return meta, read_items(data, meta)


def item_of(data: bytes, kind: bytes) -> int:
    """The id of the item of that kind in an AVIF file."""
    return next(item for item, at in avif_items(data)[1].kinds.items() if data[at : at + 4] == kind)


def replaced(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]
