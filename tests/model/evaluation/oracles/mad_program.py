"""MAD with the conventions of the authors' program (MAD_index of 2011) where these differ from the paper's.

Statistics of a block stand at its first 4x4 pixels, the squared error around each pixel; the rim of 16 is left out;
deviations are those of samples; sub-blocks are looked for 0 and 4 pixels on; frequencies lie half a sample off;
lightness is 0.02874 I**(2.2 / 3), so that the threshold of darkness lies at a pixel value of 49 instead of 14.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.ndimage import uniform_filter
from scipy.stats import kurtosis, skew

from model.types import Pixels
from tests.model.evaluation.oracles.mad import LUMA, SCALE_WEIGHTS, log_gabor

Plane = npt.NDArray[np.float64]


def mad_program(reference: Pixels, picture: Pixels, *, paper_lightness: bool) -> float:
    """Distance of uint8 [H, W, 3], even sides of 48 or more; lightness in the paper's unit or the program's own."""
    a, b = (p @ LUMA for p in (reference, picture))
    unit = 0.02874 ** (2.2 / 3) if paper_lightness else 0.02874
    detect, appear = detection(a, b, unit), appearance(a, b)
    alpha = 1 / (1 + math.exp(-2.55 / 3.35) * detect ** (1 / (math.log(10) * 3.35)))
    return float(detect**alpha * appear ** (1 - alpha))


def detection(a: Plane, b: Plane, unit: float) -> float:
    """Visible errors of planes 0..255."""
    first, second = (_seen(unit * p ** (2.2 / 3)) for p in (a, b))
    mean = _windows(first, 16).mean(axis=(2, 3))
    error = _windows(second - first, 16).std(axis=(2, 3), ddof=1)
    quarter = _windows(first, 8)[: mean.shape[0], : mean.shape[1]].std(axis=(2, 3), ddof=1)
    after = np.pad(quarter, ((0, 1), (0, 1)), constant_values=np.inf)
    least = np.minimum.reduce([after[:-1, :-1], after[1:, :-1], after[:-1, 1:], after[1:, 1:]])
    with np.errstate(divide="ignore"):
        visible = np.log(error / mean) - np.maximum(np.log(least / mean), -5)
    visible = np.where(mean < 0.5, 0, np.maximum(visible, 0))
    squared = uniform_filter((a - b) ** 2, 16, mode="constant", origin=-1)
    return 200 * _root_mean_square(_spread(visible, a.shape) * squared)


def appearance(a: Plane, b: Plane) -> float:
    """Changed statistics of log-Gabor magnitudes."""
    total = np.zeros(a.shape)
    for scale, weight in enumerate(SCALE_WEIGHTS):
        for direction in range(4):
            kernel = log_gabor(a.shape, 3.0 * 3**scale, math.pi / 4 * direction)
            windows = [_windows(np.abs(np.fft.ifft2(np.fft.fft2(p) * kernel)), 16) for p in (a, b)]
            flat = [w.reshape(*w.shape[:2], -1) for w in windows]
            change = abs(flat[0].std(axis=2, ddof=1) - flat[1].std(axis=2, ddof=1))
            change += 2 * abs(skew(flat[0], axis=2) - skew(flat[1], axis=2))
            change += abs(kurtosis(flat[0], axis=2) - kurtosis(flat[1], axis=2))
            total += weight / sum(SCALE_WEIGHTS) * _spread(change, a.shape)
    return _root_mean_square(total)


def _seen(plane: Plane) -> Plane:
    height, width = plane.shape
    rows, columns = ((np.arange(n) - n / 2 + 0.5)[:, None] * 64 / width for n in (height, width))
    frequency = np.hypot(rows, columns.T) / (0.15 * np.cos(4 * np.arctan2(rows, columns.T)) + 0.85)
    curve = 2.6 * (0.0192 + 0.114 * frequency) * np.exp(-((0.114 * frequency) ** 1.1))
    kernel = np.fft.ifftshift(np.where(frequency < 7.8909, 0.9809, curve))
    return np.fft.ifft2(np.fft.fft2(plane) * kernel).real


def _windows(plane: Plane, side: int) -> Plane:
    return np.lib.stride_tricks.sliding_window_view(plane, (side, side))[::4, ::4]


def _spread(values: Plane, shape: tuple[int, ...]) -> Plane:
    """Each value to its 4x4 pixels, zeros where no block begins."""
    wide = np.kron(values, np.ones((4, 4)))
    return np.pad(wide, [(0, n - m) for n, m in zip(shape, wide.shape, strict=True)])


def _root_mean_square(plane: Plane) -> float:
    return math.sqrt((plane[16:-17, 16:-17] ** 2).mean())
