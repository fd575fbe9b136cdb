"""What passes between the parts of a training step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor


@dataclass(frozen=True)
class Coded:
    """Through the bottleneck: y_hat, means and scale indices [B, M, H/16, W/16], and the bits of each image [B]."""

    y_hat: Tensor
    mean: Tensor
    index: Tensor
    bits: Tensor


class Prediction(NamedTuple):
    """Of a training step: the image or noise, float32 [B, 3, H, W], and the rate in bit per pixel, [B].

    Where the entropy model alone is trained there is no output.
    """

    output: Tensor | None
    rate: Tensor
