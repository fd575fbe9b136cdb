"""From what is denoised to 8-bit pixels."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from model.tiling import Region
from model.types import DecodeState, Pixels

FINISH_ROWS = 512  # rows converted to 8 bits at a time


def image_of(x: Tensor, state: DecodeState) -> Tensor:
    """What is denoised, [3, H, W] -> the image that it stands for."""
    return x if state.base is None else state.base + state.gain * x


def pixels_of(x: Tensor, crop: Region) -> Pixels:
    """x float [3, H, W] in [-1, 1] -> uint8 [height, width, 3], cropped, some rows at a time to bound memory."""
    out = np.empty((crop.height, crop.width, 3), dtype=np.uint8)
    x = x[:, crop.top : crop.top + crop.height, crop.left : crop.left + crop.width]
    for top in range(0, crop.height, FINISH_ROWS):
        levels = (x[:, top : top + FINISH_ROWS] * 127.5 + 127.5).round_().clamp_(0, 255).to(torch.uint8)
        out[top : top + FINISH_ROWS] = levels.permute(1, 2, 0).cpu().numpy()
    return out
