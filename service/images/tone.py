"""HDR light to what an SDR screen shows.

The rule: diffuse white is 203 nits (ITU-R BT.2408), the brightest light 1000 nits, and the curve of BT.2390-11,
5.4.1 (EETF) brings that range into 0..203 nits: dark and middle tones stay, highlights are compressed. It is applied to
the largest of red, green and blue and the others keep their ratio to it, so hues stay.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from service.images.signal import PEAK_NITS, WHITE_NITS, Floats, Signal, hlg_curve, pq_curve, pq_inverse

PEAK = PEAK_NITS / WHITE_NITS
_LUMA_2020 = np.array([0.2627, 0.6780, 0.0593], np.float32)


def eetf(light: Floats) -> Floats:
    """BT.2390-11, 5.4.1, with black at 0: light 0.. -> light 0..1, 1 being diffuse white."""
    peak = pq_inverse(np.array(PEAK))
    target = pq_inverse(np.array(1.0)) / peak
    knee = 1.5 * target - 0.5
    e = np.minimum(pq_inverse(light) / peak, 1)
    t = np.maximum(e - knee, 0) / (1 - knee)
    spline = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (3 * t**2 - 2 * t**3) * target
    mapped: Floats = pq_curve(np.where(e < knee, e, spline) * peak)
    return mapped


_LIGHTS = pq_curve(np.linspace(0, 1, 1024))
_GAINS = eetf(_LIGHTS[1:]) / _LIGHTS[1:]
_GAINS = np.concatenate([_GAINS[:1], _GAINS])


def tone_map(light: npt.NDArray[np.float32], signal: Signal) -> npt.NDArray[np.float32]:
    """Return float32 [..., 3] linear light of an HDR `signal`, 1 being diffuse white, as light of 0..1."""
    if signal.curve is hlg_curve:
        # BT.2100, table 5, OOTF: of the scene's light to a display of 1000 nits, whose gamma is 1.2.
        luminance = np.maximum(light @ _LUMA_2020, 1e-6)
        light = light * (PEAK * luminance**0.2)[..., None].astype(np.float32)
    gains = np.interp(light.max(axis=-1), _LIGHTS, _GAINS)
    return light * gains[..., None].astype(np.float32)
