"""Constants that are part of every result: strides, tiles, rate control."""

from __future__ import annotations

from model.errors import InvalidParameter

LATENT_STRIDE = 16  # pixels a side of one latent
HYPER_STRIDE = 64  # pixels a side of one hyper latent; pictures are padded to multiples of it
TILE = 2048  # pixels a side: larger canvases are processed in tiles
MARGIN = 224  # pixels around a tile's centre; beyond the receptive radius (215) of every network of cdc-lite
DEFAULT_QUALITY = 50
DEFAULT_GAMMA = 0.8  # the paper's best stochastic setting
MAX_GAMMA = 2.0


def rate_of_quality(quality: int) -> int:
    """Quality 1..100 -> rate byte 0..255.

    Raises:
        InvalidParameter: quality outside 1..100.
    """
    if not 1 <= quality <= 100:
        raise InvalidParameter(f"quality must be 1..100, not {quality}")
    return round(255 * (quality - 1) / 99)


def quality_of_rate(rate: int) -> int:
    """Rate byte 0..255 -> the nearest quality 1..100."""
    return round(1 + 99 * rate / 255)


def padded(side: int) -> int:
    """Picture side in pixels -> canvas side, the next multiple of 64."""
    return -(-side // HYPER_STRIDE) * HYPER_STRIDE
