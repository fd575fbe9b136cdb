"""What passes between the parts of a training step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor


@dataclass(frozen=True)
class Coded:
    """Through the bottleneck: y_hat [B, M, H/16, W/16] before the inverse gain, and the bits of each picture [B]."""

    y_hat: Tensor
    bits: Tensor


class Prior(NamedTuple):
    """Of y: means and scales, and y_hat as it was decided along with them, all [B, M, h, w]."""

    mean: Tensor
    sigma: Tensor
    y_hat: Tensor


class Rule(NamedTuple):
    """How symbols are made of residuals and scales, and whether means and scales are rounded as in a file."""

    symbols: Callable[[Tensor, Tensor], Tensor]
    as_coded: bool


class Prediction(NamedTuple):
    """Of a training step: the denoiser's output, float32 [B, 3, H, W], and the rate in bit per pixel, [B].

    Where the entropy model alone is trained there is no output.
    """

    output: Tensor | None
    rate: Tensor


class Walk(NamedTuple):
    """Noise levels that the last `rows` rows of a batch pass before the one they are trained at.

    times [K] are the denoiser's time inputs; alpha_bar [K + 1] ends with the level of the training.
    """

    rows: int
    times: Tensor
    alpha_bar: Tensor
