"""MAD: most apparent distortion (Larson & Chandler, Journal of Electronic Imaging 19(1), 2010)."""

from __future__ import annotations

import numpy as np

from model.evaluation.metrics.grey import Plane, luma
from model.types import Pixels

CELL, BLOCK = 4, 16  # blocks of 16x16 pixels, one every 4 pixels
SCALE_WEIGHTS = np.array([0.5, 0.75, 1.0, 5.0, 6.0]) / 13.25
ORIENTATIONS = 4
CYCLES_PER_DEGREE = 32.0  # at the Nyquist frequency
THRESHOLD = -5.0  # ln of the contrast below which nothing masks
BETA_1, BETA_2 = np.exp(-2.55 / 3.35), 1 / (np.log(10.0) * 3.35)


def mad(reference: Pixels, picture: Pixels) -> float:
    """Distance of two images, uint8 [H, W, 3] with sides of at least 16; 0 for equal ones, lower is better.

    Visible errors count where there are few (detection), changed local statistics where there are many (appearance).
    After the paper; the squared error of detection is that of the pixels, as in the authors' program (2011), which also
    leaves out a rim of 16 pixels and ignores dark areas more: values are not interchangeable with its own.
    """
    a, b = luma(reference), luma(picture)
    detected, apparent = detection(a, b), appearance(a, b)
    weight = 1 / (1 + BETA_1 * detected**BETA_2)
    return float(detected**weight * apparent ** (1 - weight))


def detection(reference: Plane, picture: Plane) -> float:
    """Squared errors of the pixels, weighed by how far their contrast lies above masking; planes 0..255."""
    first, second = ((0.02874 * p) ** (2.2 / 3) for p in (reference, picture))  # perceived luminance
    error = second - first
    kernel = _sensitivity(reference.shape)
    first, error = (np.fft.ifft2(np.fft.fft2(p) * kernel).real for p in (first, error))
    mean = _means(first, BLOCK)
    variance = np.maximum(_means(error**2, BLOCK) - _means(error, BLOCK) ** 2, 0)
    quarters = np.maximum(_means(first**2, BLOCK // 2) - _means(first, BLOCK // 2) ** 2, 0)
    step = BLOCK // 2 // CELL
    masking = np.minimum.reduce(
        [quarters[i : i + mean.shape[0], j : j + mean.shape[1]] for i in (0, step) for j in (0, step)]
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        bright = mean > 0.5
        noise = np.where(bright, np.log(np.sqrt(variance) / mean), -np.inf)
        mask = np.where(bright, np.log(np.sqrt(masking) / mean), -np.inf)
    visible = np.where(noise > np.maximum(mask, THRESHOLD), noise - np.maximum(mask, THRESHOLD), 0.0)
    return 200 * float(np.sqrt(np.square(visible * _means((picture - reference) ** 2, BLOCK)).mean()))


def appearance(reference: Plane, picture: Plane) -> float:
    """Change of deviation, skewness and kurtosis of log-Gabor magnitudes in blocks; planes 0..255."""
    spectra = [np.fft.fft2(p) for p in (reference, picture)]
    total = np.zeros(1)
    for scale, weight in enumerate(SCALE_WEIGHTS):
        for orientation in range(ORIENTATIONS):
            kernel = _log_gabor(reference.shape, scale, orientation)
            first, second = (_statistics(np.abs(np.fft.ifft2(s * kernel))) for s in spectra)
            change = [np.abs(u - v) for u, v in zip(first, second, strict=True)]
            total = total + weight * (change[0] + 2 * change[1] + change[2])
    return float(np.sqrt(np.square(total).mean()))


def _statistics(plane: Plane) -> tuple[Plane, Plane, Plane]:
    """Standard deviation, skewness and kurtosis of each block."""
    centred = plane - plane.mean()
    squared = centred * centred
    m1, m2, m3, m4 = (_means(p, BLOCK) for p in (centred, squared, squared * centred, squared * squared))
    variance = np.maximum(m2 - m1**2, 0)
    deviation = np.sqrt(variance)
    third = m3 - 3 * m1 * m2 + 2 * m1**3
    fourth = m4 - 4 * m1 * m3 + 6 * m1**2 * m2 - 3 * m1**4
    flat = variance < 1e-8
    skewness = np.where(flat, 0, third / np.where(flat, 1, variance**1.5))
    kurtosis = np.where(flat, 0, fourth / np.where(flat, 1, variance**2))
    return deviation, skewness, kurtosis


def _means(plane: Plane, side: int) -> Plane:
    """Means of side x side blocks, one every CELL pixels; sums of cells, so that nothing cancels."""
    height, width = (n // CELL for n in plane.shape)
    cells = plane[: height * CELL, : width * CELL].reshape(height, CELL, width, CELL).mean(axis=(1, 3))
    count = side // CELL
    rows, columns = height - count + 1, width - count + 1
    total = np.zeros((rows, columns))
    for i in range(count):
        for j in range(count):
            total += cells[i : i + rows, j : j + columns]
    return total / count**2


def _sensitivity(shape: tuple[int, ...]) -> Plane:
    """Contrast sensitivity at each frequency, flat below its peak, weaker along diagonals."""
    fy, fx = (np.fft.fftfreq(n)[:, None] * 2 * CYCLES_PER_DEGREE for n in shape)
    frequency, angle = np.hypot(fy, fx.T), np.arctan2(fy, fx.T)
    effective = frequency / (0.15 * np.cos(4 * angle) + 0.85)
    curve = 2.6 * (0.0192 + 0.114 * effective) * np.exp(-((0.114 * effective) ** 1.1))
    return np.asarray(np.where(effective < 7.8909, 0.9809, curve), dtype=np.float64)


def _log_gabor(shape: tuple[int, ...], scale: int, orientation: int) -> Plane:
    """One filter of the bank: wavelength 3 pixels times 3**scale, one half plane."""
    fy, fx = (np.fft.fftfreq(n)[:, None] for n in shape)
    radius = np.hypot(fy, fx.T)
    radius[0, 0] = 1
    radial = np.exp(-(np.log(radius * 3 * 3**scale) ** 2) / (2 * np.log(0.55) ** 2))
    radial[0, 0] = 0
    angle = np.arctan2(-fy, fx.T) - np.pi * orientation / ORIENTATIONS
    angle = np.mod(angle + np.pi, 2 * np.pi) - np.pi
    spread = np.pi / ORIENTATIONS / 1.5
    return np.asarray(radial * np.exp(-(angle**2) / (2 * spread**2)), dtype=np.float64)
