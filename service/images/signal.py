"""Colour signals: which primaries and which curve the samples of a file have (ITU-T H.273; PNG cHRM and gAMA)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Curve = Callable[[Floats], Floats]
Chromaticities = tuple[float, ...]  # x and y of white, red, green, blue

WHITE_NITS = 203  # diffuse white of HDR images (ITU-R BT.2408, 2.2)
PEAK_NITS = 1000  # of the display that an HDR image is made for (HLG: BT.2100, table 5, nominal peak)

_UNSPECIFIED = 2
_D65 = (0.3127, 0.3290)
D50 = (0.34567, 0.35850)  # white of ICC's connection space
BT709 = (*_D65, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
# ITU-T H.273, table 2.
_PRIMARIES: dict[int, Chromaticities] = {
    1: BT709,
    _UNSPECIFIED: BT709,
    4: (0.310, 0.316, 0.67, 0.33, 0.21, 0.71, 0.14, 0.08),
    5: (*_D65, 0.64, 0.33, 0.29, 0.60, 0.15, 0.06),
    6: (*_D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    7: (*_D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    8: (0.310, 0.316, 0.681, 0.319, 0.243, 0.692, 0.145, 0.049),
    9: (*_D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    10: (1 / 3, 1 / 3, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0),
    11: (0.314, 0.351, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    12: (*_D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    22: (*_D65, 0.630, 0.340, 0.295, 0.605, 0.155, 0.077),
}
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


def srgb_curve(v: Floats) -> Floats:
    """IEC 61966-2-1: sample value 0..1 -> linear light 0..1."""
    return np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)


def srgb_inverse(light: Floats) -> Floats:
    """IEC 61966-2-1: linear light 0..1 -> sample value 0..1."""
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)


def power_curve(exponent: float) -> Curve:
    """v -> v^exponent."""
    return lambda v: v**exponent


def pq_curve(v: Floats) -> Floats:
    """SMPTE ST 2084 (BT.2100, table 4, EOTF): sample value 0..1 -> light, 1 being diffuse white."""
    root = v ** (1 / 78.84375)
    light: Floats = (np.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)) ** (1 / 0.1593017578125)
    return light * (10000 / WHITE_NITS)


def pq_inverse(light: Floats) -> Floats:
    """Inverse of `pq_curve`."""
    root = (light * (WHITE_NITS / 10000)) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * root) / (1 + 18.6875 * root)) ** 78.84375


def hlg_curve(v: Floats) -> Floats:
    """BT.2100, table 5, inverse OETF: sample value 0..1 -> light of the scene 0..1."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(v <= 0.5, v * v / 3, (np.exp((v - c) / a) + b) / 12)


def _smpte240_curve(v: Floats) -> Floats:
    return np.where(v < 0.0913, v / 4, ((v + 0.1115) / 1.1115) ** (1 / 0.45))


# ITU-T H.273, table 3. What a camera's curve (BT.709, 601, 2020 and their extensions) is shown with is BT.1886.
_CURVES: dict[int, Curve] = {
    **dict.fromkeys((1, 6, 11, 12, 14, 15), power_curve(2.4)),
    _UNSPECIFIED: srgb_curve,
    4: power_curve(2.2),
    5: power_curve(2.8),
    7: _smpte240_curve,
    8: power_curve(1.0),
    9: lambda v: np.where(v > 0, 10 ** (2 * (v - 1)), 0),
    10: lambda v: np.where(v > 0, 10 ** (2.5 * (v - 1)), 0),
    13: srgb_curve,
    16: pq_curve,
    17: lambda v: v**2.6 * (52.37 / 48),
    18: hlg_curve,
}


@dataclass(frozen=True)
class Signal:
    """How sample values stand for light.

    Attributes:
        primaries: chromaticities x, y of white, red, green and blue.
        curve: sample value 0..1 -> linear light; 1 is white, or diffuse white where the image is HDR.
        full_range: False: 16/255 is black and 235/255 white.
    """

    primaries: Chromaticities
    curve: Curve
    full_range: bool = True

    @property
    def hdr(self) -> bool:
        """Whether there is light beyond diffuse white."""
        return self.curve in (pq_curve, hlg_curve)


SRGB = Signal(BT709, srgb_curve)


def cicp_signal(primaries: int, transfer: int, full_range: bool) -> Signal | None:
    """The signal of code points of ITU-T H.273; None when both are unspecified, or one is reserved or unknown."""
    if primaries not in _PRIMARIES or transfer not in _CURVES or primaries == transfer == _UNSPECIFIED:
        return None
    return Signal(_PRIMARIES[primaries], _CURVES[transfer], full_range)


def gamma_signal(gamma: float | None, primaries: Chromaticities | None) -> Signal | None:
    """The signal of PNG's gAMA (file gamma, such as 0.45455) and cHRM; None when neither says anything usable.

    A gamma of 0.45455 is what PNG 3rd ed., 11.3.2.5, has sRGB images say, so it means sRGB's own curve.
    """
    if gamma is not None and not 0.1 <= gamma <= 10:
        gamma = None
    if primaries is not None and not _usable(primaries):
        primaries = None
    if gamma is None and primaries is None:
        return None
    as_srgb = gamma is None or abs(gamma - 0.45455) < 0.0005
    return Signal(primaries or BT709, srgb_curve if gamma is None or as_srgb else power_curve(1 / gamma))


def _usable(primaries: Chromaticities) -> bool:
    """Whether the primaries span colours, and white excites all cones: else no matrix comes of them."""
    matrix = rgb_to_xyz(primaries)
    return bool(np.linalg.cond(matrix) < 1e3 and (_BRADFORD @ matrix.sum(axis=1)).min() > 0.01)


def rgb_to_xyz(primaries: Chromaticities) -> Floats:
    """float64 [3, 3]: linear RGB of these primaries -> XYZ, white having Y = 1 (SMPTE RP 177)."""
    xy: Floats = np.array(primaries, np.float64).reshape(4, 2)
    columns: Floats = np.column_stack([xy, 1 - xy.sum(axis=1)]).T
    if xy[0, 1] <= 0 or abs(np.linalg.det(columns[:, 1:])) < 1e-6:
        return np.zeros((3, 3))
    white = columns[:, 0] / xy[0, 1]
    scaled: Floats = columns[:, 1:] * np.linalg.solve(columns[:, 1:], white)
    return scaled


def rgb_to_srgb(primaries: Chromaticities) -> Floats:
    """float64 [3, 3]: linear RGB of these primaries -> linear sRGB. White stays white (Bradford, ICC.1:2022, E.3)."""
    matrix: Floats = np.linalg.inv(rgb_to_xyz(BT709)) @ adapted(primaries, _D65) @ rgb_to_xyz(primaries)
    return matrix


def adapted(primaries: Chromaticities, white: tuple[float, float]) -> Floats:
    """float64 [3, 3]: XYZ under the white of these primaries -> under another white (Bradford, ICC.1:2022, E.3)."""
    source, target = rgb_to_xyz(primaries).sum(axis=1), np.array([white[0], white[1], 1 - sum(white)]) / white[1]
    gains = (_BRADFORD @ target) / (_BRADFORD @ source)
    matrix: Floats = np.linalg.inv(_BRADFORD) @ np.diag(gains) @ _BRADFORD
    return matrix
