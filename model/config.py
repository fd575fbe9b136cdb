"""Constants that are part of every result: strides, tiles, rate control."""

from __future__ import annotations

import numpy as np

from model.errors import InvalidParameter

LATENT_STRIDE = 16  # pixels a side of one latent
HYPER_STRIDE = 64  # pixels a side of one hyper latent; images are padded to multiples of it
TILE = 1024  # pixels a side: larger canvases are processed in tiles
TILE_SIDES = (
    64,
    128,
    192,
    256,
    384,
    512,
    640,
    768,
    896,
    TILE,
)  # sides of decoder tiles: few, so that decodes share batches
# Pixels around a tile's centre. The receptive radii are 215 (denoiser), 143 (conditioner) and 132 (encoder); what is
# left at 96 is below 1e-4 of the range of 2 with trained weights (docs/benchmarks.md), a hundredth of a level.
MARGIN = 96
ENCODER_MARGIN = 144
DEFAULT_QUALITY = 50
DEFAULT_GAMMA = 0.8  # the paper's best stochastic setting
MAX_GAMMA = 2.0
# Rate bytes of the qualities 1, 10, 20 .. 100: equal steps of quality are equal steps of PSNR, 2 dB in ten on Kodak
# (docs/benchmarks.md).
QUALITIES = (1, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100)
RATES = (0, 35, 68, 96, 120, 142, 164, 185, 206, 229, 255)

EFFORT_ROUNDS = (0, 1, 2, 3, 4, 5, 6, 8, 10)  # rounds of refinement of the efforts 1..9
MAX_EFFORT, DEFAULT_EFFORT = len(EFFORT_ROUNDS), 1


def rounds_of(effort: int, highest: int = MAX_EFFORT) -> int:
    """Effort 1..`highest` of a model -> rounds of refinement.

    Raises:
        InvalidParameter: out of range.
    """
    if not 1 <= effort <= highest:
        raise InvalidParameter(f"effort must be 1..{highest} with this model, not {effort}")
    return EFFORT_ROUNDS[effort - 1]


def rate_of_quality(quality: int) -> int:
    """Quality 1..100 -> rate byte 0..255.

    Raises:
        InvalidParameter: quality outside 1..100.
    """
    if not 1 <= quality <= 100:
        raise InvalidParameter(f"quality must be 1..100, not {quality}")
    return round(float(np.interp(quality, QUALITIES, RATES)))


def quality_of_rate(rate: int) -> int:
    """Rate byte 0..255 -> the nearest quality 1..100."""
    return round(float(np.interp(rate, RATES, QUALITIES)))


def padded(side: int) -> int:
    """Image side in pixels -> the next multiple of 64, as the encoder and the entropy coder see it."""
    return -(-side // HYPER_STRIDE) * HYPER_STRIDE


def canvas_side(side: int) -> int:
    """Image side in pixels -> side of the decoder's canvas: the next tile side, or the next multiple of 64 beyond."""
    return next((tile for tile in TILE_SIDES if tile >= side), padded(side))
