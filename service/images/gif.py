"""GIF files taken apart (GIF89a; sections are named)."""

from __future__ import annotations

from service.errors import BrokenImage
from service.images.parts import MAX_BLOCKS, Box, Parts

_EXTENSION, _IMAGE, _CONTROL = 0x21, 0x2C, 0xF9
_SCREEN_BYTES, _IMAGE_BYTES = 13, 10


def split_gif(data: bytes) -> Parts:
    """Take a GIF file apart: its screen and the first frame. The image is the logical screen (18).

    A frame that reaches beyond the screen enlarges it, as in browsers.

    Raises:
        BrokenImage: there is no frame.
    """
    at = _SCREEN_BYTES + (_table_bytes(data[10]) if len(data) > 10 else 0)
    head, control, first, box, frames = data[:at], b"", b"", None, 0
    for _ in range(MAX_BLOCKS):
        start = at
        if at >= len(data) or frames > 1:
            break
        if data[at] == 0:  # stray ends of blocks
            at += 1
        elif data[at] == _EXTENSION:
            at = _blocks_end(data, at + 2)
            block = data[start:at]
            # 23: flags, delay and index of the transparent colour, of the frame that follows.
            control = block if block[1:3] == bytes((_CONTROL, 4)) and len(block) == 8 and not frames else control
        elif data[at] == _IMAGE and at + _IMAGE_BYTES <= len(data):
            at = _blocks_end(data, at + _IMAGE_BYTES + _table_bytes(data[at + 9]) + 1)
            frames += 1
            if frames == 1:
                first, box = data[start:at], _box(data[start + 1 : start + 9])
        else:
            break
    if box is None:
        raise BrokenImage("the GIF file has no image")
    return Parts("GIF", head + control + first + b";", animated=frames > 1, box=box)


def _table_bytes(flags: int) -> int:
    """Length of the colour table that the flags of a screen or image descriptor announce (18, 20)."""
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _blocks_end(data: bytes, at: int) -> int:
    """Where the chain of data sub-blocks at `at` ends (15)."""
    while at < len(data) and data[at]:
        at += 1 + data[at]
    return at + 1


def _box(fields: bytes) -> Box:
    left, top, width, height = (int.from_bytes(fields[k : k + 2], "little") for k in range(0, 8, 2))
    return left, top, left + width, top + height
