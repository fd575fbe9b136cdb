"""The fixed part of a `.cdc` file: what can be known of an image before anything is allocated."""

from __future__ import annotations

from dataclasses import dataclass

from model.errors import InvalidParameter, LimitExceeded, MalformedFile, NotACdcFile, TruncatedFile, UnsupportedVersion
from model.varint import decode_varint, encode_varint

MAGIC = b"\x8fCDC\r\n\x1a\n"  # high bit and CR LF, as PNG: a transfer that strips or translates either is found at once
VERSION = 1
CODEC_ID_BYTES = 8
MAX_SIDE = (1 << 16) - 1


@dataclass(frozen=True)
class Header:
    """What every `.cdc` file says before its sections.

    Attributes:
        codec_id: 8 bytes that name the meaning of the symbols (FORMAT.md, "Codec id").
        width: image width in pixels, 1..65535, before padding.
        height: image height in pixels, 1..65535, before padding.
        rate: rate byte, 0..255; q = rate / 255.
    """

    codec_id: bytes
    width: int
    height: int
    rate: int

    def __post_init__(self) -> None:
        if len(self.codec_id) != CODEC_ID_BYTES:
            raise InvalidParameter(f"a codec id has {CODEC_ID_BYTES} bytes, not {len(self.codec_id)}")
        if not (1 <= self.width <= MAX_SIDE and 1 <= self.height <= MAX_SIDE):
            raise InvalidParameter(f"an image side must be 1..{MAX_SIDE} pixels, not {self.width}x{self.height}")
        if not 0 <= self.rate <= 255:
            raise InvalidParameter(f"the rate byte must be 0..255, not {self.rate}")

    @property
    def pixels(self) -> int:
        """Number of pixels of the image."""
        return self.width * self.height

    def to_bytes(self) -> bytes:
        """Return the header as stored: magic, version, codec id, width, height, rate."""
        return (
            MAGIC
            + bytes([VERSION])
            + self.codec_id
            + encode_varint(self.width)
            + encode_varint(self.height)
            + bytes([self.rate])
        )


def read_header(data: bytes | memoryview, max_pixels: int | None = None) -> tuple[Header, int]:
    """Read the header at the start of `data`; return it and the offset of the first section.

    Looks at no more than the first 24 bytes and verifies no checksum: use it to refuse work early, `parse` to decode.

    Raises:
        NotACdcFile, TruncatedFile, UnsupportedVersion, MalformedFile: see `model.errors`.
        LimitExceeded: the image has more than `max_pixels` pixels.
    """
    view = memoryview(data)
    start = bytes(view[: len(MAGIC)])
    if start != MAGIC:
        if start and MAGIC.startswith(start):
            raise TruncatedFile("the file ends inside its magic")
        raise NotACdcFile("this is not a .cdc file: its first 8 bytes differ")
    fixed = len(MAGIC) + 1 + CODEC_ID_BYTES
    if len(view) < fixed:
        raise TruncatedFile("the file ends inside its header")
    if view[len(MAGIC)] != VERSION:
        raise UnsupportedVersion(f"format version {view[len(MAGIC)]}; this decoder knows version {VERSION}")
    codec_id = bytes(view[len(MAGIC) + 1 : fixed])
    width, offset = decode_varint(view, fixed)
    height, offset = decode_varint(view, offset)
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE):
        raise MalformedFile(f"an image side must be 1..{MAX_SIDE} pixels")
    if max_pixels is not None and width * height > max_pixels:
        raise LimitExceeded(f"the image has {width}x{height} pixels; the limit is {max_pixels}")
    if offset >= len(view):
        raise TruncatedFile("the file ends inside its header")
    return Header(codec_id, width, height, view[offset]), offset + 1
