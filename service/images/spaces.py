"""Colour spaces that a file keeps: the pixels are coded as they are, and a section names the space.

Their ICC profiles are made here (ICC.1:2022: a matrix and one curve), so none is carried in a `.cdc` file.
"""

from __future__ import annotations

import struct
from functools import cache
from io import BytesIO

import numpy as np
from PIL import Image, ImageCms

from model.container import Section, SectionType, Space
from service.images.colour import Plane, from_signal, profile_of_rgb
from service.images.signal import D50, Signal, adapted, cicp_signal, power_curve, rgb_to_xyz

_D65 = (0.3127, 0.3290)
ADOBE_GAMMA, PROPHOTO_GAMMA = 563, 461  # in 1/256: Adobe RGB (1998), 4.3.1.2; ROMM RGB as profiles have it
MAX_DIFFERENCE = 2  # levels by which the values of a profile of the same space may differ
_D50_XYZ = (0.9642, 1.0, 0.8249)  # ICC.1:2022, 7.2.16


NAMES = {Space.DISPLAY_P3: "Display P3", Space.ADOBE_RGB: "Adobe RGB (1998)", Space.PROPHOTO_RGB: "ProPhoto RGB"}


def signal_of(space: Space) -> Signal:
    """Primaries and curve of a space."""
    if space is Space.DISPLAY_P3:
        signal = cicp_signal(12, 13, full_range=True)
        assert signal is not None
        return signal
    if space is Space.ADOBE_RGB:
        return Signal((*_D65, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06), power_curve(ADOBE_GAMMA / 256))
    return Signal((*D50, 0.7347, 0.2653, 0.1596, 0.8404, 0.0366, 0.0001), power_curve(PROPHOTO_GAMMA / 256))


def space_of(colours: tuple[bytes | Signal, ...]) -> Space | None:
    """The space of RGB samples whose colours these are, the first usable one counting; None for any other."""
    for colour in colours:
        if isinstance(colour, Signal):
            p3 = signal_of(Space.DISPLAY_P3)
            same = colour.full_range and (colour.primaries, colour.curve) == (p3.primaries, p3.curve)
            return Space.DISPLAY_P3 if same else None
        profile = profile_of_rgb(colour)
        if profile is not None:
            return next((space for space in Space if _is_like(profile, space)), None)
    return None


def pack_space(space: Space) -> Section:
    """The COLOUR section: a byte."""
    return Section(SectionType.COLOUR, bytes([space]))


def space_to_srgb(pixels: Plane, space: Space) -> Plane:
    """uint8 [H, W, 3] of a space -> sRGB; what sRGB cannot show is clipped."""
    return from_signal(pixels, signal_of(space))


@cache
def icc_of(space: Space) -> bytes:
    """An ICC profile of the space, version 4.3, some 500 bytes."""
    signal = signal_of(space)
    matrix, adaptation = rgb_to_xyz(signal.primaries), adapted(signal.primaries, D50)
    colorants = adaptation @ matrix
    if space is Space.DISPLAY_P3:  # parametric curve 3: IEC 61966-2-1
        curve = (
            b"para" + bytes(4) + struct.pack(">HH", 3, 0) + _fixed(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
        )
    else:
        gamma = ADOBE_GAMMA if space is Space.ADOBE_RGB else PROPHOTO_GAMMA
        curve = b"curv" + bytes(4) + struct.pack(">IHH", 1, gamma, 0)
    tags = {
        b"desc": _text(NAMES[space]),
        b"cprt": _text("No copyright, use freely"),
        b"wtpt": _xyz(*_D50_XYZ),
        b"chad": b"sf32" + bytes(4) + _fixed(*adaptation.ravel()),
        **{name: _xyz(*colorants[:, k]) for k, name in enumerate((b"rXYZ", b"gXYZ", b"bXYZ"))},
        b"rTRC": curve,
    }
    offset = 128 + 4 + 12 * (len(tags) + 2)
    table, body = b"", b""
    for name, data in tags.items():
        entry = struct.pack(">II", offset + len(body), len(data))
        names = (b"rTRC", b"gTRC", b"bTRC") if name == b"rTRC" else (name,)
        table += b"".join(n + entry for n in names)
        body += data + bytes(-len(data) % 4)
    rest = struct.pack(">I", len(tags) + 2) + table + body
    header = struct.pack(">I4sI4s4s4s", 128 + len(rest), bytes(4), 0x04300000, b"mntr", b"RGB ", b"XYZ ")
    header += struct.pack(">6H4s", 2026, 1, 1, 0, 0, 0, b"acsp") + bytes(28) + _fixed(*_D50_XYZ)
    return header.ljust(128, b"\0") + rest


def _is_like(profile: ImageCms.ImageCmsProfile, space: Space) -> bool:
    """Whether samples of a profile mean the same in a space: greys, and a lattice of colours, hardly change."""
    lattice = np.stack(np.meshgrid(*[np.array([0, 64, 128, 192, 255], np.uint8)] * 3, indexing="ij"), -1).reshape(-1, 3)
    samples = np.concatenate([np.repeat(np.arange(0, 256, 5, dtype=np.uint8)[:, None], 3, axis=1), lattice])[None]
    target = ImageCms.ImageCmsProfile(BytesIO(icc_of(space)))
    intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
    try:
        changed = ImageCms.profileToProfile(Image.fromarray(samples), profile, target, intent, "RGB")
    except Exception:  # a damaged profile: lcms and Pillow raise many types
        return False
    return changed is not None and bool(np.abs(np.asarray(changed).astype(int) - samples).max() <= MAX_DIFFERENCE)


def _fixed(*values: float) -> bytes:
    """s15Fixed16Number (ICC.1:2022, 4.6)."""
    return b"".join(struct.pack(">i", round(float(value) * 65536)) for value in values)


def _xyz(*values: float) -> bytes:
    return b"XYZ " + bytes(4) + _fixed(*values)


def _text(text: str) -> bytes:
    """A multiLocalizedUnicodeType of one language (10.15)."""
    data = text.encode("utf-16-be")
    return b"mluc" + bytes(4) + struct.pack(">II2s2sII", 1, 12, b"en", b"US", len(data), 28) + data
