"""DDIM (Song et al. 2021) as one pure step with a noise level per row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from model.diffusion.schedule import Parameterization


@dataclass(frozen=True)
class Step:
    """Result of one step: `x` [B, 3, H, W] at the next noise level and `x0` [B, 3, H, W], the present guess."""

    x: Tensor
    x0: Tensor


def ddim_step(
    network: Callable[[Tensor], Tensor],
    x: Tensor,
    alpha_from: Tensor,
    alpha_to: Tensor,
    parameterization: Parameterization,
) -> Step:
    """Move x from one noise level to a lower one (paper Eq. 6 and 7 with sigma = 0).

    Args:
        network: x_n [B, 3, H, W] -> x0_hat, eps_hat or v0_hat, by `parameterization`; time and context are bound in it.
        x: x_n, float32 [B, 3, H, W].
        alpha_from: alpha_bar of x, float32 [B], 0 < a < 1.
        alpha_to: alpha_bar of the result, float32 [B], 0 < a <= 1; 1 gives the clean image.
        parameterization: for "x" the prediction is clamped to [-1, 1], else nothing is.

    Rows are independent: each has its own levels, so decodes at different steps share a call.
    """
    a, a_to = alpha_from.view(-1, 1, 1, 1), alpha_to.view(-1, 1, 1, 1)
    prediction = network(x).float()
    if parameterization == "eps":
        eps = prediction
        x0 = (x - (1 - a).sqrt() * eps) / a.sqrt()
    else:
        x0 = prediction.clamp(-1, 1) if parameterization == "x" else prediction
        eps = (x - a.sqrt() * x0) / (1 - a).sqrt()
    return Step(x=a_to.sqrt() * x0 + (1 - a_to).sqrt() * eps, x0=x0)


def add_noise(x0: Tensor, eps: Tensor, alpha_bar: Tensor) -> Tensor:
    """Forward process (paper Eq. 2): x_n = sqrt(a) x0 + sqrt(1 - a) eps; x0 and eps [B, 3, H, W], alpha_bar [B]."""
    a = alpha_bar.view(-1, 1, 1, 1)
    return a.sqrt() * x0 + (1 - a).sqrt() * eps
