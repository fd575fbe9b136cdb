"""How much of a photograph's grain a decode has."""

from __future__ import annotations

import numpy as np

from model.types import Pixels


def fine_energy(picture: Pixels) -> float:
    """Energy of the finest octave of uint8 [H, W, 3]: the three high bands of an orthonormal Haar transform."""
    height, width = (n // 2 * 2 for n in picture.shape[:2])
    x = picture[:height, :width].astype(np.float64)
    blocks = x.reshape(height // 2, 2, width // 2, 2, 3)
    # The four bands keep the energy of each 2x2 block, and the low band's is four times its mean's square.
    return float(np.square(x).sum() - 4 * np.square(blocks.mean(axis=(1, 3))).sum())


def fine_energy_share(reference: Pixels, picture: Pixels) -> float:
    """Fine energy as a share of the original's: 1 where the decode is as grainy, less where it is smoother."""
    own = fine_energy(reference)
    return fine_energy(picture) / own if own else 1.0
