"""The training loss, paper Eq. 8 and 9, and the draw of a training step's noise levels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from model.diffusion.sampler import add_noise
from model.diffusion.schedule import Schedule
from model.training.config import DECODER_PARTS, TrainingConfig

ROLLOUT_STEPS = 17  # of the longest decode that rollouts follow: the default of a decode
LITE_SCALE = 0.3  # brings the loss of cdc-lite, divided by sqrt(lambda), to the order of one


@dataclass(frozen=True)
class Draw:
    """What is random in a step, beside the rounding noise.

    Attributes:
        image: [B, 3, H, W] in [-1, 1].
        q: rates [B] in [0, 1].
        eps: standard normal noise [B, 3, H, W]; zero in one-step rows.
        x: x_n [B, 3, H, W]; with a path, where it starts.
        n: indices of the noise levels, int64 [B].
        alpha_bar: of each row's noise level, [B].
        one_step: bool [B], rows that train the one-step decode; they come first.
        path: indices that the other rows pass in their own decode on the way from x to n, in order; most often none.
    """

    image: Tensor
    q: Tensor
    eps: Tensor
    x: Tensor
    n: Tensor
    alpha_bar: Tensor
    one_step: Tensor
    path: tuple[int, ...] = ()


def draw(image: Tensor, schedule: Schedule, one_step_share: float, rollout: int = 0) -> Draw:
    """Draw rates and noise levels from torch's global generator.

    One-step rows stand at the last index with x_n = 0, which is what a decode with steps=1 and gamma=0 starts from.

    With `rollout` the other rows start as a decode of some steps does, from gamma times noise with gamma in 0..1, and
    are trained at one index of that decode: on what earlier steps really leave, which noise added to the picture is not
    (Ranzato et al. 2016 on this exposure bias). Of the indices before it the first and the last `rollout` - 1 are
    passed, the others skipped.
    """
    batch, device = image.shape[0], image.device
    one_step = torch.arange(batch, device=device) < round(batch * one_step_share)
    q = torch.rand(batch, device=device)
    n = torch.randint(0, schedule.length, (batch,), device=device)
    n = torch.where(one_step, torch.full_like(n, schedule.length - 1), n)
    alpha_bar = schedule.at(n)
    keep = (~one_step).float()[:, None, None, None]
    eps = torch.randn_like(image) * keep
    if not rollout:
        return Draw(image, q, eps, add_noise(image, eps, alpha_bar) * keep, n, alpha_bar, one_step)
    path, last = _path(schedule, rollout)
    n = torch.where(one_step, n, torch.full_like(n, last))
    gamma = torch.rand(batch, device=device)[:, None, None, None]
    return Draw(image, q, eps, gamma * eps, n, schedule.at(n), one_step, path)


def _path(schedule: Schedule, rollout: int) -> tuple[tuple[int, ...], int]:
    """Draw a decode of 2 to 17 steps (few as likely as many) and one of its indices: the indices before it, and it."""
    steps = round(math.exp(math.log(2) + float(torch.rand(())) * math.log(ROLLOUT_STEPS / 2)))
    indices = schedule.indices(steps)
    at = int(torch.randint(0, steps, ()))
    before = indices[:at]
    return before[:1] + before[1:][max(0, at - rollout) :], indices[at]


@dataclass(frozen=True)
class Loss:
    """The loss of a step, and its parts for the log (detached).

    Attributes:
        total: scalar with gradient.
        one_step: mean squared error of one-step rows; nan without any.
        diffusion: mean squared error of the other rows (of the noise for cdc-eps); nan without any.
        perceptual: mean d; 0 where it is not used.
        rate: mean rate in bit per pixel.
    """

    total: Tensor
    one_step: Tensor
    diffusion: Tensor
    perceptual: Tensor
    rate: Tensor


def level_weight(alpha_bar: Tensor, least: float, largest: float) -> Tensor:
    """w(n): the signal-to-noise ratio a / (1 - a), clamped (Hang et al. 2023: min-SNR-5), [B]."""
    return (alpha_bar / (1 - alpha_bar)).clamp(least, largest)


def loss_of(
    config: TrainingConfig,
    drawn: Draw,
    output: Tensor | None,
    rate: Tensor,
    lambdas: Tensor,
    distance: nn.Module | None,
) -> Loss:
    """Eq. 9 for each row, then the mean.

    Args:
        config: of the run.
        drawn: what the step drew.
        output: the denoiser's, float32 [B, 3, H, W]; None where the entropy model alone is trained: then rate is all.
        rate: [B] in bit per pixel.
        lambdas: [B].
        distance: d, for rho > 0.
    """
    if output is None:
        nothing = rate.new_full((), math.nan)
        loss = lambdas * rate if config.architecture != "cdc-lite" else LITE_SCALE * lambdas.sqrt() * rate
        return Loss(loss.mean(), nothing, nothing, rate.new_zeros(()), rate.detach().mean())
    if config.architecture == "cdc-eps":
        error = (output - drawn.eps).abs() if config.weighting == "l1" else (output - drawn.eps).square()
        weight = torch.ones_like(rate)
        a = drawn.alpha_bar[:, None, None, None]
        x0_hat = (drawn.x - (1 - a).sqrt() * output) / a.sqrt()
    else:
        error = (output - drawn.image).square()
        weight = level_weight(drawn.alpha_bar, config.snr_min, config.snr_max)
        x0_hat = output
    squared = error.flatten(1).mean(1)
    # Own steps bring no more of the picture than the file does, at any noise level: no level is easier than another.
    unweighted = torch.ones_like(drawn.one_step) if config.rollout else drawn.one_step
    distortion = squared * torch.where(unweighted, torch.ones_like(weight), weight)
    perceptual = torch.zeros_like(rate)
    if config.rho > 0:
        assert distance is not None
        rows = ~drawn.one_step if config.perceptual_on == "diffusion" else torch.ones_like(drawn.one_step)
        perceptual[rows] = distance(x0_hat[rows].clamp(-1, 1), drawn.image[rows]).float()
        rho = config.rho * rows.float()
        distortion = (1 - rho) * distortion + rho * config.perceptual_scale * perceptual
    total = distortion if config.part in DECODER_PARTS else distortion + lambdas * rate
    if config.architecture == "cdc-lite":  # many rates in one batch: none may drown the others
        total = LITE_SCALE * total / lambdas.sqrt()
    squared = squared.detach()
    return Loss(
        total=total.mean(),
        one_step=squared[drawn.one_step].mean(),
        diffusion=squared[~drawn.one_step].mean(),
        perceptual=perceptual.detach().mean(),
        rate=rate.detach().mean(),
    )
