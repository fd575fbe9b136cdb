"""CW-SSIM (Sampat et al., IEEE TIP 18(11), 2009) on the pyramid of Portilla & Simoncelli (IJCV 40(1), 2000).

The pyramid is built as it is defined, level by level: high and low pass, bands of directions, low pass, every other
sample; no closed form of one band.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from model.types import Pixels

Plane = npt.NDArray[np.float64]
Band = npt.NDArray[np.complex128]
WINDOW = 7
LUMA = np.array([0.299, 0.587, 0.114])


def cw_ssim(
    reference: Pixels, picture: Pixels, *, constant: float = 0.0, levels: int = 6, orientations: int = 16
) -> float:
    """Similarity of uint8 [H, W, 3]: 1 for equal ones, 0..1, on the coarsest level that holds a window."""
    while min(reference.shape[:2]) // 2 ** (levels - 1) < WINDOW:
        levels -= 1
    first, second = (coarsest_bands(p @ LUMA, levels, orientations) for p in (reference, picture))
    values = [_of_band(x, y, constant) for x, y in zip(first, second, strict=True)]
    return sum(values) / len(values)


def _of_band(x: Band, y: Band, constant: float) -> float:
    """Window by window, weighted by a Gaussian of a quarter of the band's height about the centre."""
    height, width = (n - WINDOW + 1 for n in x.shape)
    deviation = x.shape[0] / 4
    total = weights = 0.0
    for i in range(height):
        for j in range(width):
            u, v = (values[i : i + WINDOW, j : j + WINDOW].ravel() for values in (x, y))
            similarity = (2 * abs(np.vdot(v, u)) + constant) / (np.vdot(u, u).real + np.vdot(v, v).real + constant)
            distance = (i - (height - 1) / 2) ** 2 + (j - (width - 1) / 2) ** 2
            weight = math.exp(-distance / (2 * deviation**2))
            total, weights = total + weight * similarity, weights + weight
    return float(total / weights)


def coarsest_bands(plane: Plane, levels: int, orientations: int = 16) -> list[Band]:
    """The oriented complex bands of the last level."""
    spectrum = np.fft.fftshift(np.fft.fft2(plane))
    # Frequencies in units of the original's Nyquist frequency; they are cut down together with the spectrum.
    rows, columns = (np.fft.fftshift(np.fft.fftfreq(n)) * 2 for n in plane.shape)
    spectrum = spectrum * _low(rows, columns, 1.0)
    edge = 1.0
    for _ in range(levels - 1):
        edge /= 2
        spectrum = spectrum * _low(rows, columns, edge)
        middle = tuple(slice(n // 2 - (n // 2) // 2, n // 2 - (n // 2) // 2 + n // 2) for n in spectrum.shape)
        spectrum, rows, columns = spectrum[middle], rows[middle[0]], columns[middle[1]]
    high = np.sqrt(1 - _low(rows, columns, edge / 2) ** 2)
    angle = np.arctan2(rows[:, None], columns[None])
    bands = []
    for orientation in range(orientations):
        cosine = np.cos(angle - math.pi * orientation / orientations)
        half = np.where(cosine > 0, 2 * cosine ** (orientations - 1), 0)  # one half plane: an analytic band
        bands.append(
            np.fft.ifft2(np.fft.ifftshift(spectrum * high * half)) * _gain(spectrum.size, plane.size, orientations)
        )
    return bands


def _low(rows: Plane, columns: Plane, edge: float) -> Plane:
    """Raised cosine in log frequency: 1 up to edge / 2, 0 from edge on."""
    radius = np.maximum(np.hypot(rows[:, None], columns[None]), 1e-9)
    position = np.clip(np.log2(radius / edge) + 1, 0, 1)
    return np.asarray(np.cos(np.pi / 2 * position))


def _gain(samples: int, pixels: int, orientations: int) -> float:
    """Makes coefficients of all levels comparable, in grey values, with directions that sum to one."""
    order = orientations - 1
    unit = 2**order * math.factorial(order) / math.sqrt(orientations * math.factorial(2 * order))
    return unit * samples / pixels
