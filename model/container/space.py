"""The section COLOUR: which space the pixels are of, where it is not sRGB."""

from __future__ import annotations

from enum import IntEnum

from model.errors import MalformedFile, UnsupportedVersion


class Space(IntEnum):
    """What the section COLOUR says."""

    DISPLAY_P3 = 1
    ADOBE_RGB = 2
    PROPHOTO_RGB = 3


def unpack_space(data: bytes) -> Space:
    """What a COLOUR section names.

    Raises:
        MalformedFile: it is not one byte.
        UnsupportedVersion: the space is not known.
    """
    if len(data) != 1:
        raise MalformedFile("the colour section is not one byte")
    if data[0] not in {int(space) for space in Space}:
        raise UnsupportedVersion(f"colour space {data[0]} is unknown to this decoder")
    return Space(data[0])
