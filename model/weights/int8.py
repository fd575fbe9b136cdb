"""Weights in int8 with a scale an output channel, as the decoder's graphs store those of blocks."""

from __future__ import annotations

import torch
from torch import Tensor

INT8_MAX = 127


def as_int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """weight [out, ...] -> int8 of the same shape, and float32 scales [out, 1, ...].

    Scales are of the largest value as fp16 stores it, so that values rounded by this and stored in fp16 come back as
    the same integers and scales.
    """
    largest = weight.detach().abs().flatten(1).amax(1).to(torch.float16).float()
    scale = (largest / INT8_MAX).clamp(min=1e-12).reshape(-1, *[1] * (weight.ndim - 1))
    return torch.round(weight.detach().float() / scale).clamp(-INT8_MAX, INT8_MAX).to(torch.int8), scale
