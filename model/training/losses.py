"""Training losses: the paper's Eq. 8 and 9 at random noise levels, and rate and distortion of a codec without noise."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from model.diffusion.sampler import add_noise
from model.diffusion.schedule import Schedule
from model.training.config import TrainingConfig
from model.training.types import Prediction


@dataclass(frozen=True)
class Draw:
    """What is random in a step of the paper's training, beside the rounding noise.

    Attributes:
        image: [B, 3, H, W] in [-1, 1].
        eps: standard normal noise [B, 3, H, W].
        x: x_n [B, 3, H, W].
        n: indices of the noise levels, int64 [B].
        alpha_bar: of each row's noise level, [B].
    """

    image: Tensor
    eps: Tensor
    x: Tensor
    n: Tensor
    alpha_bar: Tensor


def draw(image: Tensor, schedule: Schedule) -> Draw:
    """Draw noise levels and noise from torch's global generator."""
    n = torch.randint(0, schedule.length, (len(image),), device=image.device)
    alpha_bar, eps = schedule.at(n), torch.randn_like(image)
    return Draw(image, eps, add_noise(image, eps, alpha_bar), n, alpha_bar)


@dataclass(frozen=True)
class Loss:
    """The loss of a step, and its parts for the log (detached).

    Attributes:
        total: scalar with gradient.
        distortion: mean squared error of the image (cdc-eps: of the noise); nan where only rates are trained.
        perceptual: mean d; 0 where it is not used.
        rate: mean rate in bit per pixel.
    """

    total: Tensor
    distortion: Tensor
    perceptual: Tensor
    rate: Tensor


def level_weight(alpha_bar: Tensor, least: float, largest: float) -> Tensor:
    """w(n): the signal-to-noise ratio a / (1 - a), clamped (Hang et al. 2023: min-SNR-5), [B]."""
    return (alpha_bar / (1 - alpha_bar)).clamp(least, largest)


def equation_9(
    config: TrainingConfig, drawn: Draw, prediction: Prediction, multiplier: float, distance: nn.Module | None
) -> Loss:
    """Eq. 9 for each row, then the mean.

    Args:
        config: of the run.
        drawn: what the step drew.
        prediction: the denoiser's output, float32 [B, 3, H, W], and rates [B] in bit per pixel.
        multiplier: lambda.
        distance: d, for rho > 0.
    """
    output = prediction.output
    assert output is not None
    if config.architecture == "cdc-eps":
        error = (output - drawn.eps).abs() if config.weighting == "l1" else (output - drawn.eps).square()
        weight = torch.ones_like(prediction.rate)
        a = drawn.alpha_bar[:, None, None, None]
        x0_hat = ((drawn.x - (1 - a).sqrt() * output) / a.sqrt()).clamp(-1, 1)  # of cdc-eps alone, as the authors do
    else:
        error = (output - drawn.image).square()
        weight = level_weight(drawn.alpha_bar, config.snr_min, config.snr_max)
        x0_hat = output
    squared = error.flatten(1).mean(1)
    d = perceptual(config, x0_hat, drawn.image, distance)
    distortion = (1 - config.rho) * weight * squared + config.rho * config.perceptual_scale * d
    total = distortion if config.part == "decoder" else distortion + multiplier * prediction.rate
    return Loss(total.mean(), squared.detach().mean(), d.detach().mean(), prediction.rate.detach().mean())


def rate_distortion(
    config: TrainingConfig, image: Tensor, prediction: Prediction, lambdas: Tensor, distance: nn.Module | None
) -> Loss:
    """(D + lambda R) / sqrt(lambda) for each row, then the mean; D alone where the rate is fixed, R where D is.

    With rho > 0, ((1 - rho) D + lambda R) / sqrt(lambda) + rho perceptual_scale d: the gradient of d is much the same
    at every rate, and divided by sqrt(lambda) it would be five times as large at high ones.

    Args:
        config: of the run.
        image: [B, 3, H, W] in [-1, 1].
        prediction: x_base [B, 3, H, W] or None, and rates in bit per pixel.
        lambdas: one for each rate.
        distance: d, for rho > 0.
    """
    rate, weight = prediction.rate, lambdas.rsqrt()
    if prediction.output is None:
        nothing = rate.new_full((), torch.nan)
        return Loss((lambdas.sqrt() * rate).mean(), nothing, rate.new_zeros(()), rate.detach().mean())
    squared = (prediction.output - image).square().flatten(1).mean(1)
    distortion = (1 - config.rho) * squared
    if config.part != "decoder":
        distortion = distortion + lambdas * rate
    d = perceptual(config, prediction.output, image, distance)
    total = distortion * weight + config.rho * config.perceptual_scale * d
    return Loss(total.mean(), squared.detach().mean(), d.detach().mean(), rate.detach().mean())


def perceptual(config: TrainingConfig, output: Tensor, image: Tensor, distance: nn.Module | None) -> Tensor:
    """d for each row, [B]; 0 where it is not used."""
    if config.rho <= 0:
        return output.new_zeros(len(output))
    assert distance is not None
    d: Tensor = distance(output, image)
    return d.float()
