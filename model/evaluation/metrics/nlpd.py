"""NLPD: normalised Laplacian pyramid distance (Laparra, Balle, Berardino & Simoncelli, Electronic Imaging 2016)."""

from __future__ import annotations

import numpy as np

from model.evaluation.metrics.grey import Plane, luma
from model.types import Pixels

LOW_PASS = np.array([0.05, 0.25, 0.4, 0.25, 0.05])
# Published parameters of the normalisation at each level: a constant, and the weights of the neighbours above, left of,
# right of and below a coefficient.
CONSTANTS = (0.0248, 0.0185, 0.0179, 0.0191, 0.0220, 0.2782)
NEIGHBOURS = (
    (0.1011, 0.1493, 0.1460, 0.1015),
    (0.0757, 0.1986, 0.1846, 0.0837),
    (0.0477, 0.2138, 0.2243, 0.0467),
    (0.0, 0.2503, 0.2616, 0.0),
    (0.0, 0.2598, 0.2552, 0.0),
    (0.0, 0.2215, 0.0717, 0.0),
)


def nlpd(reference: Pixels, picture: Pixels) -> float:
    """Distance of two images, uint8 [H, W, 3]; 0 for equal ones, lower is better.

    Root mean square differences of the normalised coefficients, averaged over six levels. On gamma-encoded luma 0..1.
    """
    levels = zip(_normalised(luma(reference) / 255), _normalised(luma(picture) / 255), strict=True)
    return float(np.mean([np.sqrt(np.square(a - b).mean()) for a, b in levels]))


def _normalised(plane: Plane) -> list[Plane]:
    bands, rest = [], plane
    for _ in range(len(CONSTANTS) - 1):
        smaller = _blurred(rest)[::2, ::2]
        bands.append(rest - _enlarged(smaller, rest.shape))
        rest = smaller
    bands.append(rest)
    return [b / (c + _surround(np.abs(b), w)) for b, c, w in zip(bands, CONSTANTS, NEIGHBOURS, strict=True)]


def _blurred(plane: Plane, gain: float = 1.0) -> Plane:
    for axis in (0, 1):
        pads = [(0, 0), (0, 0)]
        pads[axis] = (2, 2)
        wide = np.pad(plane, pads, mode="symmetric")
        length = plane.shape[axis]
        taps = (np.take(wide, range(i, i + length), axis=axis) * (gain * w) for i, w in enumerate(LOW_PASS))
        plane = np.sum(list(taps), axis=0)
    return plane


def _enlarged(plane: Plane, shape: tuple[int, ...]) -> Plane:
    spread = np.zeros(shape)
    spread[::2, ::2] = plane
    return _blurred(spread, gain=2.0)  # three quarters of the samples are zero


def _surround(magnitudes: Plane, weights: tuple[float, float, float, float]) -> Plane:
    wide = np.pad(magnitudes, 1, mode="symmetric")
    above, left, right, below = wide[:-2, 1:-1], wide[1:-1, :-2], wide[1:-1, 2:], wide[2:, 1:-1]
    total = weights[0] * above + weights[1] * left + weights[2] * right + weights[3] * below
    return np.asarray(total, dtype=np.float64)
