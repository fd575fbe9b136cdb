"""cdc-lite's sampler in training, on the frozen codec: scoring rules on residuals, octave by octave and in features.

Two samples f1, f2 of each image x are drawn. E|f - x| - rep/2 E|f1 - f2| is least where the samples are distributed as
x is, given the file, at rep = 1 (the energy distance, Gneiting & Raftery 2007). The finest octave has rep near 1, for
texture as strong as the original's; the coarse ones stay near the mean, whose error is least.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.diffusion.sampler import add_noise
from model.diffusion.schedule import Schedule
from model.perceptual import FeatureDistance, ShiftedDistance, SqueezeNetFeatures
from model.training.config import TrainingConfig
from model.training.critic import Critic, Scaled, Watched, hinge, maps_of
from model.training.lite import LiteTraining
from model.training.losses import Loss
from model.training.module import Call

REPULSION = (0.95, 0.71, 0.33, 0.0)  # rep of the octaves, finest first
STRENGTH_FLOOR = 0.05  # of a band's local power, in units of the residual's: what is flat has no strength to match
FEATURE_REPULSION = 0.3  # with more, two samples move apart by moving away from the image
BAND_WEIGHT, COARSE_WEIGHT, ERROR_WEIGHT, DIFFUSION_WEIGHT = 4.0, 0.02, 0.1, 2.0
LOW_RATES, LOW_SHARE = 0.6, 0.8  # texture is lost at low rates: so many rows have a q below


class Sampled(NamedTuple):
    """One step's residuals in units of their size, [B, 3, H, W] each.

    Attributes:
        base: x_base.
        size: of the residual, [B, 1, 1, 1].
        first, second: samples from pure noise.
        denoised: v0_hat of noisy residuals.
    """

    base: Tensor
    size: Tensor
    first: Tensor
    second: Tensor
    denoised: Tensor


class SamplerTraining(LiteTraining):
    """The denoiser in training; everything else is fixed. A critic learns beside it where the run has one."""

    def __init__(self) -> None:
        super().__init__(part="denoiser")
        self.critic = Critic()

    def loss(
        self,
        call: Call,
        image: Tensor,
        config: TrainingConfig,
        schedule: Schedule,
        step: int,
        distance: nn.Module | None,
    ) -> Loss:
        """Scoring rules of samples in one step, and the squared error at random noise levels."""
        assert distance is not None
        rows, device = len(image), image.device
        low = torch.rand(rows, device=device) < LOW_SHARE
        u = torch.rand(rows, device=device)
        q = torch.where(low, LOW_RATES * u, LOW_RATES + (1 - LOW_RATES) * u)
        n = torch.randint(0, schedule.length, (rows,), device=device)
        s: Sampled = call(image, q, (n + 1) / schedule.length, schedule.at(n))
        residual = (image - s.base) / s.size
        first: Tensor = Watched.apply(s.first, self.critic.rest_norm)
        f1, f2 = s.base + s.size * first, s.base + s.size * s.second
        scores = band_scores(first, s.second, residual)
        shown = [v.clamp(-1, 1) for v in (f1, f2, image)]
        seed = torch.get_rng_state()

        def d(a: Tensor, b: Tensor) -> Tensor:
            torch.set_rng_state(seed)  # the same part of the image in all three
            result: Tensor = distance(a, b).float()
            return result

        features = 0.5 * (d(shown[0], shown[2]) + d(shown[1], shown[2]))
        features_rule = features - 0.5 * FEATURE_REPULSION * d(shown[0], shown[1])
        error = 0.5 * ((first - residual).square() + (s.second - residual).square()).flatten(1).mean(1)
        diffusion = (s.denoised - residual).square().mean()
        total = (BAND_WEIGHT * scores + config.perceptual_scale * features_rule + ERROR_WEIGHT * error).mean()
        squared = (f1 - image).square().mean().detach()
        total = total + DIFFUSION_WEIGHT * diffusion
        if config.critic > 0:
            total = total + self._criticise(distance, image, s, q, config.critic)
        return Loss(total, squared, features.detach().mean(), squared.new_zeros(()))

    def _criticise(self, distance: nn.Module, image: Tensor, s: Sampled, q: Tensor, share: float) -> Tensor:
        """What the first samples lose for being told apart, and what the critic loses for not telling."""
        features = _features_of(distance)
        sample = s.base + s.size * Scaled.apply(s.first, self.critic.rest_norm, share)
        with torch.no_grad():
            real, base = maps_of(features, image), maps_of(features, s.base)
        fake = maps_of(features, sample)
        adversarial = -torch.stack([logits.mean() for logits in self.critic.fixed(fake, base, q)]).mean()
        told = hinge(self.critic(real, base, q), self.critic([m.detach() for m in fake], base, q))
        return adversarial + told

    def forward(self, image: Tensor, q: Tensor, t: Tensor, alpha_bar: Tensor) -> Sampled:  # type: ignore[override]
        """image [B, 3, H, W] in [-1, 1], rates [B], times and noise levels [B] of the rows that are denoised."""
        with torch.no_grad():
            base, context = self.synthesise(self.code(self.analyse(image, q), q), q)
            size = self.networks.residual_size(q)[:, None, None, None]
            residual = (image - base) / size
            noise = torch.randn(2 * len(image), *image.shape[1:], device=image.device)
            noisy = add_noise(residual, torch.randn_like(residual), alpha_bar)
            v = torch.cat([noise, noisy]).contiguous(memory_format=torch.channels_last)
            times = torch.cat([torch.ones_like(t).repeat(2), t])
        with torch.autocast(image.device.type, enabled=False):
            modulation = self.networks.denoiser.modulate(times.float(), q.repeat(3))
        out = self.networks.denoise(v, modulation, (context.repeat(3, 1, 1, 1),)).float()
        return Sampled(base, size, *out.chunk(3))

    @torch.no_grad()
    def measure_residual(self, images: Tensor) -> None:
        """Set `log_residual` from images [B, 3, H, W] in [-1, 1]."""
        levels = self.networks.config.levels
        for level in range(levels):
            q = torch.full((len(images),), level / (levels - 1), device=images.device)
            base, _ = self.synthesise(self.code(self.analyse(images, q), q), q)
            self.networks.log_residual[level] = 0.5 * math.log(float((images - base).square().mean()))


def band_scores(first: Tensor, second: Tensor, residual: Tensor) -> Tensor:
    """Scoring rules of four octaves of Haar bands, and of their local strength; [B, 3, H, W] each -> [B]."""
    total = first.new_zeros(len(first))
    for repulsion in REPULSION:
        (first, a), (second, b), (residual, x) = haar(first), haar(second), haar(residual)
        total = total + 0.5 * (_l1(a - x) + _l1(b - x)) - 0.5 * repulsion * _l1(a - b)
        target = _strength(x)
        total = total + 0.5 * repulsion * (_l1(_strength(a) - target) + _l1(_strength(b) - target))
    coarse = 0.5 * ((first - residual).square() + (second - residual).square())
    return total + COARSE_WEIGHT * coarse.flatten(1).mean(1)


def _features_of(distance: nn.Module) -> SqueezeNetFeatures:
    assert isinstance(distance, ShiftedDistance)
    inner = distance.inner
    assert isinstance(inner, FeatureDistance)
    assert isinstance(inner.features, SqueezeNetFeatures)
    return inner.features


def haar(x: Tensor) -> tuple[Tensor, Tensor]:
    """x [B, C, H, W] -> its low band [B, C, H/2, W/2] and its three high bands [B, 3 C, H/2, W/2], orthonormal."""
    a, b, c, d = x[..., ::2, ::2], x[..., ::2, 1::2], x[..., 1::2, ::2], x[..., 1::2, 1::2]
    high = torch.cat([a - b + c - d, a + b - c - d, a - b - c + d], dim=1)
    return (a + b + c + d) / 2, high / 2


def _strength(band: Tensor) -> Tensor:
    """Local standard deviation of a band [B, C, h, w] over windows of 8x8, 4x4 where it is small."""
    window = 8 if band.shape[-1] > 16 else 4
    return (F.avg_pool2d(band.square(), window) + STRENGTH_FLOOR).sqrt()


def _l1(x: Tensor) -> Tensor:
    return x.abs().flatten(1).mean(1)
