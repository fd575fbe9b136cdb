"""Start noise as a function of (seed, absolute pixel position), whatever tile, batch or device asks for it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from model.errors import InvalidParameter

MAX_SEED = (1 << 63) - 1
BLOCK_PIXELS = 1 << 14  # transformed at a time: few calls, all in the cache


def normal_noise(seed: int, top: int, left: int, height: int, width: int) -> npt.NDArray[np.float32]:
    """Return standard normal noise of a window of an endless image, float32 [3, height, width].

    Two windows with the same seed agree wherever they overlap. Each row is its own stretch of the counter of Philox
    4x64 (Salmon et al. 2011), whose raw output NumPy keeps stable across versions, and each pixel takes two 64-bit
    words of it; Box-Muller in float64 turns their four halves into four normals, of which three are used.

    Args:
        seed: 0..2**63-1.
        top, left: position of the window in pixels, >= 0.

    Raises:
        InvalidParameter: the seed is out of range.
    """
    if not 0 <= seed <= MAX_SEED:
        raise InvalidParameter(f"seed must be 0..2**63-1, not {seed}")
    if top < 0 or left < 0:
        raise ValueError("noise positions start at 0")
    out = np.empty((3, height, width), dtype=np.float32)
    first = left - left % 2  # a counter block holds four words: two pixels
    rows = max(1, BLOCK_PIXELS // max(1, width))
    words = np.empty((min(rows, height), width, 2), dtype=np.uint64)
    for start in range(0, height, rows):
        block = words[: min(rows, height - start)]
        for i in range(len(block)):
            generator = np.random.Philox(key=seed, counter=[first // 2, top + start + i, 0, 0])
            raw = np.asarray(generator.random_raw(2 * (left + width - first)), dtype=np.uint64)
            block[i] = raw[2 * (left - first) :].reshape(width, 2)
        _box_muller(block, out[:, start : start + len(block)])
    return out


def _box_muller(words: npt.NDArray[np.uint64], out: npt.NDArray[np.float32]) -> None:
    """uint64 [h, w, 2] -> three of its four independent standard normals a pixel, into float32 [3, h, w]."""
    radius_bits = (words >> np.uint64(32)).astype(np.float64)
    angle_bits = (words & np.uint64(0xFFFFFFFF)).astype(np.float64)
    radius = np.sqrt(-2.0 * np.log((radius_bits + 1) * 2.0**-32))  # (0, 1]: the logarithm stays finite
    angle = angle_bits * (2.0 * np.pi * 2.0**-32)
    cosines = radius * np.cos(angle)
    out[0], out[1] = cosines[..., 0], cosines[..., 1]
    out[2] = radius[..., 0] * np.sin(angle[..., 0])
