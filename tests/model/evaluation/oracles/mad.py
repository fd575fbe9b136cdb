"""MAD (Larson & Chandler, Journal of Electronic Imaging 19(1), 2010), block by block.

As in the paper; the squared error of detection is that of the pixels, times 200, as in the authors' program.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from model.types import Pixels

Plane = npt.NDArray[np.float64]
BLOCK, STEP = 16, 4
LUMA = np.array([0.299, 0.587, 0.114])
NYQUIST = 32.0  # cycles per degree
DARKEST = 0.5  # mean lightness below which nothing is seen
DELTA = -5.0  # ln of the threshold contrast
SCALE_WEIGHTS = (0.5, 0.75, 1.0, 5.0, 6.0)
STATISTIC_WEIGHTS = (1.0, 2.0, 1.0)  # deviation, skewness, kurtosis


def mad(reference: Pixels, picture: Pixels) -> float:
    """Distance of uint8 [H, W, 3] with sides of 16 or more: 0 for equal ones."""
    a, b = (p @ LUMA for p in (reference, picture))
    detect, appear = detection(a, b), appearance(a, b)
    if detect == 0 or appear == 0:
        return 0.0
    alpha = 1 / (1 + math.exp(-2.55 / 3.35) * math.exp(math.log10(detect) / 3.35))
    return math.exp(alpha * math.log(detect) + (1 - alpha) * math.log(appear))


def detection(a: Plane, b: Plane) -> float:
    """Visible errors of planes 0..255: ln contrast above the mask's, times the squared error of the pixels."""
    first, second = (seen(p) for p in (a, b))
    squares = []
    for rows, columns in blocks(a.shape):
        block, error = first[rows, columns], (second - first)[rows, columns]
        half = BLOCK // 2
        quarters = [block[i : i + half, j : j + half].std() for i in (0, half) for j in (0, half)]
        visible = 0.0
        if block.mean() > DARKEST and error.std() > 0:
            contrast = math.log(error.std() / block.mean())
            mask = math.log(min(quarters) / block.mean()) if min(quarters) > 0 else -math.inf
            visible = max(contrast - max(mask, DELTA), 0.0)
        squares.append((visible * ((a - b)[rows, columns] ** 2).mean()) ** 2)
    return 200 * math.sqrt(sum(squares) / len(squares))


def seen(plane: Plane) -> Plane:
    """Pixels 0..255 to lightness (cube root of cd/m2) through the eye's contrast sensitivity."""
    lightness = np.cbrt((0.02874 * plane) ** 2.2)
    kernel = np.empty(plane.shape)
    for i, u in enumerate(np.fft.fftfreq(plane.shape[0])):
        for j, v in enumerate(np.fft.fftfreq(plane.shape[1])):
            angle, frequency = math.atan2(u, v), math.hypot(u, v) * 2 * NYQUIST
            frequency /= (1 - 0.7) / 2 * math.cos(4 * angle) + (1 + 0.7) / 2
            peak = 0.114 * frequency
            kernel[i, j] = 0.9809 if frequency < 7.8909 else 2.6 * (0.0192 + peak) * math.exp(-(peak**1.1))
    return np.fft.ifft2(np.fft.fft2(lightness) * kernel).real


def appearance(a: Plane, b: Plane) -> float:
    """Changed statistics of log-Gabor magnitudes: five scales of four directions."""
    differences = np.zeros(len(list(blocks(a.shape))))
    for scale, weight in enumerate(SCALE_WEIGHTS):
        for direction in range(4):
            kernel = log_gabor(a.shape, 3.0 * 3**scale, math.pi / 4 * direction)
            first, second = (np.abs(np.fft.ifft2(np.fft.fft2(p) * kernel)) for p in (a, b))
            for k, at in enumerate(blocks(a.shape)):
                change = np.abs(np.subtract(statistics(first[at]), statistics(second[at])))
                differences[k] += weight / sum(SCALE_WEIGHTS) * float(change @ STATISTIC_WEIGHTS)
    return math.sqrt((differences**2).mean())


def statistics(block: Plane) -> tuple[float, float, float]:
    """Standard deviation, skewness, kurtosis; the latter two 0 where there is no variation."""
    centred = block - block.mean()
    deviation = block.std()
    if deviation < 1e-4:
        return float(deviation), 0.0, 0.0
    scaled = centred / deviation
    return float(deviation), float((scaled**3).mean()), float((scaled**4).mean())


def log_gabor(shape: tuple[int, ...], wavelength: float, direction: float) -> Plane:
    """A filter of one half plane."""
    rows, columns = np.meshgrid(*(np.fft.fftfreq(n) for n in shape), indexing="ij")
    radius = np.hypot(rows, columns)
    radius[0, 0] = 1
    radial = np.exp(-0.5 * (np.log(radius * wavelength) / math.log(0.55)) ** 2)
    radial[0, 0] = 0
    angle = np.angle((columns - 1j * rows) * np.exp(-1j * direction))
    return np.asarray(radial * np.exp(-0.5 * (angle / (math.pi / 4 / 1.5)) ** 2))


def blocks(shape: tuple[int, ...]) -> Iterator[tuple[slice, slice]]:
    """All blocks that lie within, every fourth pixel."""
    for i in range(0, shape[0] - BLOCK + 1, STEP):
        for j in range(0, shape[1] - BLOCK + 1, STEP):
            yield slice(i, i + BLOCK), slice(j, j + BLOCK)
