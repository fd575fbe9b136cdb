"""CW-SSIM: complex wavelet structural similarity (Sampat, Wang, Gupta, Bovik & Markey, IEEE TIP 2009)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from model.evaluation.metrics.grey import Plane, luma
from model.types import Pixels

Band = npt.NDArray[np.complex128]  # [h, w]
SCALES = 6
ORIENTATIONS = 16
WINDOW = 7
K = 0.01


def cw_ssim(reference: Pixels, picture: Pixels, *, scales: int = SCALES, orientations: int = ORIENTATIONS) -> float:
    """Similarity of two images, uint8 [H, W, 3]: 1 for equal ones, 0..1; blind to small shifts.

    The mean over orientations and 7x7 windows of |sum x y*| against energies, on the coarsest band of the complex
    steerable pyramid: number `scales`, or the coarsest that holds a window. Windows weigh by a Gaussian about the
    centre, its deviation a quarter of the band's height, as in the authors' program.
    """
    a, b = luma(reference), luma(picture)
    scale = min(scales, 1 + int(math.log2(min(a.shape) / WINDOW)))
    values = []
    for i in range(orientations):
        x, y = band(a, scale, i, orientations), band(b, scale, i, orientations)
        common = np.abs(_windows(x * y.conj()))
        energy = _windows(np.abs(x) ** 2) + _windows(np.abs(y) ** 2)
        similarity = (2 * common + K) / (energy.real + K)
        values.append(np.average(similarity, weights=_centre_weights(similarity.shape, x.shape[0] / 4)))
    return float(np.mean(values))


def cw_ssim_4x8(reference: Pixels, picture: Pixels) -> float:
    """CW-SSIM on the fourth scale with 8 orientations."""
    return cw_ssim(reference, picture, scales=4, orientations=8)


def band(plane: Plane, scale: int, orientation: int, orientations: int) -> Band:
    """One band of a complex steerable pyramid (Portilla & Simoncelli, IJCV 2000), subsampled by 2**(scale - 1).

    Args:
        plane: [H, W].
        scale: 1 is the finest, centred at half the Nyquist frequency; each further one lies an octave below.
        orientation: 0..orientations - 1, times pi / orientations.
    """
    fy, fx = (2 * np.pi * np.fft.fftfreq(n) for n in plane.shape)
    radius = np.hypot(fy[:, None], fx[None])
    angle = np.arctan2(fy[:, None], fx[None]) - np.pi * orientation / orientations
    angle = np.mod(angle + np.pi, 2 * np.pi) - np.pi
    octaves = np.log2(np.maximum(radius, 1e-12) / (np.pi / 2**scale))
    radial = np.where(np.abs(octaves) < 1, np.cos(np.pi / 2 * octaves), 0.0)
    # One half plane only: the band is analytic, magnitude and phase are separate.
    order = orientations - 1
    gain = 2**order * math.factorial(order) / math.sqrt(orientations * math.factorial(2 * order))
    angular = np.where(np.abs(angle) < np.pi / 2, 2 * gain * np.cos(angle) ** order, 0.0)
    spectrum = np.fft.fftshift(np.fft.fft2(plane) * radial * angular)
    height, width = (max(1, n >> (scale - 1)) for n in plane.shape)
    top, left = (n // 2 - m // 2 for n, m in zip(plane.shape, (height, width), strict=True))
    part = spectrum[top : top + height, left : left + width]
    return np.asarray(np.fft.ifft2(np.fft.ifftshift(part)) * (height * width / plane.size), dtype=np.complex128)


def _centre_weights(shape: tuple[int, ...], deviation: float) -> Plane:
    """A Gaussian about the centre of a map of that shape; the deviation in samples."""
    down, across = (np.exp(-((np.arange(n) - (n - 1) / 2) ** 2) / (2 * deviation**2)) for n in shape)
    return np.outer(down, across)


def _windows(values: npt.NDArray[Any]) -> Band:
    """Sums over all windows that lie within."""
    side = min(WINDOW, *values.shape)
    sums = np.lib.stride_tricks.sliding_window_view(values, (side, side)).sum(axis=(2, 3))
    return np.asarray(sums, dtype=np.complex128)
