"""cdc-lite's sampler in training, on the frozen codec: scoring rules on residuals, octave by octave and in features.

Two samples f1, f2 of each image x are drawn. E|f - x| - rep/2 E|f1 - f2| is least where the samples are distributed as
x is, given the file, at rep = 1 (the energy distance, Gneiting & Raftery 2007). The finest octave has rep near 1, for
texture as strong as the original's; the coarse ones stay near the mean, whose error is least. The rule is symmetric in
the two, so f1 alone has a gradient, that of |f1 - x| - rep |f1 - f2|: the same in the mean, at half the cost.

Some rows are rollouts: f1 is not of pure noise but of a state that the sampler itself has come to in a step or two of
DDIM, as it meets them in a decode of several steps. So each step is one towards a better sample. Their f2 is of one
step all the same: what f1 is pushed away from need not be of its own distribution, only near it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.diffusion.sampler import add_noise, ddim_step
from model.diffusion.schedule import Schedule
from model.perceptual import ShiftedDistance
from model.training.config import TrainingConfig
from model.training.critic import Critic, Scaled, Watched, hinge, maps_of
from model.training.lite import LiteTraining
from model.training.losses import Loss
from model.training.module import Call

REPULSION = (0.9, 0.3, 0.0, 0.0)  # rep of the octaves, finest first: a coarse one in the wrong place costs most
STRENGTH = (1.0, 0.5, 0.2, 0.0)  # weights of the octaves' local power
POWER_FLOOR = 0.05  # of a band, in units of the residual's: what is flat has no strength to match
FEATURE_REPULSION = 0.1  # with more, two samples move apart by moving away from the image
COARSE_WEIGHT = 0.02
UNJUDGED = 3 / 8  # of a crop's rows and columns, whose features are not read: features take most of a step's time
LOW_RATES, LOW_SHARE = 0.6, 0.8  # texture is lost at low rates: so many rows have a q below


class Levels(NamedTuple):
    """Noise levels of rows: the time input and alpha_bar, [K] each."""

    t: Tensor
    alpha_bar: Tensor


class Sampled(NamedTuple):
    """What a step has drawn. Samples are residuals in units of their size.

    Attributes:
        base: x_base, [B, 3, H, W].
        size: of the residual, [B, 1, 1, 1].
        first: samples [B, 3, H, W], the last rows of them rollouts.
        second: samples of one step [B, 3, H, W], without gradient.
        denoised: v0_hat of noisy residuals of the first K rows, [K, 3, H, W].
    """

    base: Tensor
    size: Tensor
    first: Tensor
    second: Tensor
    denoised: Tensor


class SamplerTraining(LiteTraining):
    """The denoiser in training; everything else is fixed. A critic learns beside it where the run has one."""

    def __init__(self, channels: Sequence[int] = ()) -> None:
        """`channels` of the feature maps that a critic reads; none: no critic."""
        super().__init__(part="denoiser")
        self.critic = Critic(channels) if channels else None

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
        rows, device = len(image), image.device
        low = torch.rand(rows, device=device) < LOW_SHARE
        u = torch.rand(rows, device=device)
        q = torch.where(low, LOW_RATES * u, LOW_RATES + (1 - LOW_RATES) * u)
        noisy = torch.randint(0, schedule.length, ((rows + 1) // 2 if config.levels_scale > 0 else 0,), device=device)
        late = torch.randint(0, schedule.length, (math.ceil(config.rollouts * rows),), device=device)
        later = late + (torch.rand(len(late), device=device) * (schedule.length - late)).long()
        early = torch.where(torch.rand(len(late), device=device) < 0.5, schedule.length - 1, later)
        pure = torch.full_like(late, schedule.length - 1)
        levels = [Levels((n + 1) / schedule.length, schedule.at(n)) for n in (noisy, pure, early, late)]
        s: Sampled = call(image, q, *levels)
        residual = (image - s.base) / s.size
        first = s.first if self.critic is None else Watched.apply(s.first, self.critic.rest_norm)
        total = config.score_scale * band_scores(first, s.second, residual).mean()
        total = total + config.error_scale * (first - residual).square().mean()
        if len(noisy):
            total = total + config.levels_scale * (s.denoised - residual[: len(noisy)]).square().mean()
        squared = (s.base + s.size * s.first.detach() - image).square().mean()
        d = squared.new_zeros(())
        if config.uses_features:
            assert isinstance(distance, ShiftedDistance)
            d, told = self._judge(distance, image, s, first, q, config)
            total = total + told
        return Loss(total, squared, d, squared.new_zeros(()))

    def _judge(
        self, distance: ShiftedDistance, image: Tensor, s: Sampled, first: Tensor, q: Tensor, config: TrainingConfig
    ) -> tuple[Tensor, Tensor]:
        """Features of the same part of all: the distance of the samples [], and what features and critic add []."""
        part = (..., *distance.part(*image.shape[2:]))
        features, rows = distance.inner, len(image)
        f1, f2 = s.base + s.size * first, s.base + s.size * s.second
        with torch.no_grad():
            fixed = features.maps(torch.cat([image[part], f2[part]]).clamp(-1, 1))
            real, second = [u[:rows] for u in fixed], [u[rows:] for u in fixed]
        sample = features.maps(f1[part].clamp(-1, 1))
        d = features.between(sample, real).mean()
        total = config.perceptual_scale * (d - FEATURE_REPULSION * features.between(sample, second).mean())
        if self.critic is not None:
            scaled = s.base + s.size * Scaled.apply(s.first, self.critic.rest_norm, config.critic)
            given, seen = (maps_of(x, features.maps(x)) for x in (s.base[part], scaled[part].clamp(-1, 1)))
            total = total - torch.stack([logits.mean() for logits in self.critic.fixed(seen, given, q)]).mean()
            told = self.critic(maps_of(image[part], real), given, q)
            total = total + hinge(told, self.critic([u.detach() for u in seen], given, q))
        return d.detach(), total

    def forward(  # type: ignore[override]
        self, image: Tensor, q: Tensor, noisy: Levels, pure: Levels, early: Levels, late: Levels
    ) -> Sampled:
        """Draw samples.

        Args:
            image: [B, 3, H, W] in [-1, 1].
            q: rates [B].
            noisy: levels of the first rows, that residuals are denoised from.
            pure, early, late: levels of the last rows, where rollouts start, that they pass and that they arrive at.
        """
        rows, rolled = len(image), len(image) - len(late.t)
        with torch.no_grad():
            base, context = self.synthesise(self.code(self.analyse(image, q), q), q)
            size = self.networks.residual_size(q)[:, None, None, None]
            noise, other = torch.randn(2, *image.shape, device=image.device)
            state = noise[rolled:]
            for now, then in ((pure, early), (early, late)) if len(state) else ():
                denoise = partial(self._denoise, context=context[rolled:], q=q[rolled:], t=now.t)
                state = ddim_step(denoise, state, now.alpha_bar, then.alpha_bar, "residual").x
            residual = ((image - base) / size)[: len(noisy.t)]
            v = add_noise(residual, torch.randn_like(residual), noisy.alpha_bar)
            second = self._denoise(other, context, q, torch.ones_like(q))
        out = self._denoise(
            torch.cat([noise[:rolled], state, v]),
            torch.cat([context, context[: len(noisy.t)]]),
            torch.cat([q, q[: len(noisy.t)]]),
            torch.cat([torch.ones_like(q[:rolled]), late.t, noisy.t]),
        )
        return Sampled(base, size, out[:rows], second, out[rows:])

    def _denoise(self, v: Tensor, context: Tensor, q: Tensor, t: Tensor) -> Tensor:
        with torch.autocast(v.device.type, enabled=False):
            modulation = self.networks.denoiser.modulate(t.float(), q)
        v = v.contiguous(memory_format=torch.channels_last)
        return self.networks.denoise(v, modulation, (context,)).float()

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
    for repulsion, strength in zip(REPULSION, STRENGTH, strict=True):
        (first, a), (second, b), (residual, x) = haar(first), haar(second), haar(residual)
        total = total + _l1(a - x) - repulsion * _l1(a - b) + strength * _power_error(a, x)
    return total + COARSE_WEIGHT * (first - residual).square().flatten(1).mean(1)


def haar(x: Tensor) -> tuple[Tensor, Tensor]:
    """x [B, C, H, W] -> its low band [B, C, H/2, W/2] and its three high bands [B, 3 C, H/2, W/2], orthonormal."""
    a, b, c, d = x[..., ::2, ::2], x[..., ::2, 1::2], x[..., 1::2, ::2], x[..., 1::2, 1::2]
    high = torch.cat([a - b + c - d, a + b - c - d, a - b - c + d], dim=1)
    return (a + b + c + d) / 2, high / 2


def _power_error(a: Tensor, x: Tensor) -> Tensor:
    """Squared error of the local powers of bands [B, C, h, w], in units of a's own -> [B].

    Its gradient is zero where a's power is the mean of x's, as far as the file tells it; that of an error of standard
    deviations would be zero below that.
    """
    window = 8 if a.shape[-1] > 16 else 4
    own, other = (F.avg_pool2d(band.square(), window) + POWER_FLOOR for band in (a, x))
    return ((own - other).square() / (4 * own.detach())).flatten(1).mean(1)


def _l1(x: Tensor) -> Tensor:
    return x.abs().flatten(1).mean(1)
