"""Greyscale planes for the metrics that look at luminance alone."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from model.types import Pixels

Plane = npt.NDArray[np.float64]  # [H, W]


def luma(pixels: Pixels) -> Plane:
    """Uint8 [H, W, 3] -> luma of ITU-R BT.601, 0..255, gamma-encoded as the pixels are."""
    weights = np.array([0.299, 0.587, 0.114])
    return np.asarray(pixels.astype(np.float64) @ weights, dtype=np.float64)
