"""Noise schedules of the paper and the choice of steps from them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from model.errors import InvalidParameter

Parameterization = Literal["x", "eps", "residual"]


@dataclass(frozen=True)
class Schedule:
    """A training schedule: what the network predicts and alpha_bar at each of its indices.

    Attributes:
        parameterization: what the network predicts: "x" (x0), "eps" (the noise) or "residual" (x0, of a residual).
        alpha_bar: float32 [N], the cumulative product of paper Eq. 2, decreasing; x_n = sqrt(a) x0 + sqrt(1 - a) eps.
        single_step_index: index used by a one-step decode.
    """

    parameterization: Parameterization
    alpha_bar: Tensor
    single_step_index: int

    @property
    def length(self) -> int:
        """N: number of indices, and the largest number of steps."""
        return int(self.alpha_bar.shape[0])

    def indices(self, steps: int) -> tuple[int, ...]:
        """Return the `steps` indices of a decode, noisiest first: k (N - 1) // (K - 1) for k = K - 1 .. 0.

        Integers, because a float linspace lands on other indices at some K, and a file would then decode differently.

        Raises:
            InvalidParameter: steps outside 1..N.
        """
        if not 1 <= steps <= self.length:
            raise InvalidParameter(f"steps must be 1..{self.length}, not {steps}")
        if steps == 1:
            return (self.single_step_index,)
        return tuple(k * (self.length - 1) // (steps - 1) for k in range(steps - 1, -1, -1))

    def at(self, index: Tensor) -> Tensor:
        """index int64 [B], -1 for the clean image -> alpha_bar float32 [B] (1 where index is -1)."""
        values = self.alpha_bar.to(index.device)
        return torch.where(index < 0, torch.ones((), device=index.device), values[index.clamp(min=0)])


def cosine_schedule(
    length: int = 8193,
    *,
    floor: float | None = 1e-6,
    beta_limit: float | None = None,
    parameterization: Parameterization = "x",
) -> Schedule:
    """Cosine schedule: alpha_bar[n] = f((n + 1) / N) / f(0), f(u) = cos((u + s) / (1 + s) pi / 2)^2.

    s = 0.008 (Nichol & Dhariwal 2021, Eq. 17). cdc-lite clamps alpha_bar to at least `floor`; cdc-x instead builds it
    from betas of at most `beta_limit` (0.999 in the published models) and has no floor.
    """
    s = 0.008
    u = torch.linspace(0, 1, length + 1, dtype=torch.float64)
    f = torch.cos((u + s) / (1 + s) * math.pi / 2) ** 2
    alpha_bar = f[1:] / f[0]
    if beta_limit is not None:
        betas = (1 - f[1:] / f[:-1]).clamp(0, beta_limit)
        alpha_bar = torch.cumprod(1 - betas, dim=0)
    if floor is not None:
        alpha_bar = alpha_bar.clamp(floor, 1)
    return Schedule(parameterization, alpha_bar.float(), single_step_index=length - 1)


def linear_schedule(length: int = 20000) -> Schedule:
    """Linear schedule for eps-prediction: beta from 0.0001 to 0.02, both scaled by 1000 / N (Ho et al. 2020)."""
    scale = 1000 / length
    betas = torch.linspace(scale * 1e-4, scale * 0.02, length, dtype=torch.float64)
    return Schedule("eps", torch.cumprod(1 - betas, dim=0).float(), single_step_index=0)
