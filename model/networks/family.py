"""What the codec asks of a family of networks: one set of calls, whatever runs behind them.

    image --analyse--> features --latent(q)--> y --[Q, entropy coding]--> y_hat --dequantise(q)--> --inject(q)--> maps
                                               \\--hyper--> z --hyper_decoder, context--> prior of y              |
    x_n, modulate(t, q) ----------------------------------------------------------------------------> denoise --> x0_hat

`latent` and `hyper` are what an encode repeats for every rate it tries, `denoise` what a decode repeats for every step.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from model.entropy.passes import passes_of
from model.networks.context import ContextModel, Take

Window = tuple[slice, slice]  # rows and columns of latents


class Family(nn.Module, ABC):
    """Networks of one model. Shapes: B images, M latents, h = H/16, w = W/16; q [B] is the rate in [0, 1].

    Attributes:
        latents: M.
        features: channels of what `analyse` gives.
        hyper_encoder, hyper_decoder: h_a and h_s; the latter as `model.entropy.export_layers.export_head` takes it.
        context: what corrects the prior by decoded symbols, None without.
        log_gain: [levels, M], natural logarithms, interpolated linearly over q.
        has_base: the first map of `inject` is the image of least error; what is denoised is the residual from it, in
            units of `residual_size`, of which gamma is the share that is added.
    """

    latents: int
    features: int
    hyper_encoder: nn.Sequential
    hyper_decoder: nn.Sequential
    context: ContextModel | None
    log_gain: Tensor
    has_base: ClassVar[bool] = False

    @property
    def reductions(self) -> tuple[int, ...]:
        """Fractions 1/n of the size at which `base` gives the image."""
        return ()

    @abstractmethod
    def analyse(self, image: Tensor) -> Tensor:
        """The share of g_a that is the same at every rate: image [B, 3, H, W] in [-1, 1] -> [B, features, h, w]."""

    def latent(self, features: Tensor, q: Tensor) -> Tensor:
        """The rest of g_a and the gain: [B, features, h, w] -> y [B, M, h, w] in quantisation steps."""
        return scale_by_level(features, self.log_gain, q)

    def hyper(self, y: Tensor) -> Tensor:
        """h_a: y [B, M, h, w] in quantisation steps -> z [B, N, h/4, w/4]."""
        z: Tensor = self.hyper_encoder(y)
        return z

    def prior(self, z_hat: Tensor, q: Tensor, take: Take) -> tuple[Tensor, Tensor]:
        """h_s and context: z_hat [B, N, h/4, w/4] -> means and scale parameters of y [B, M, h, w], without the gain.

        `take` decides y_hat pass by pass; it is called once, for everything, where there is no context model.
        """
        features = self.hyper_decoder[:-1](z_hat)
        base = self.hyper_decoder[-1](features)
        if self.context is not None:
            means, scales = self.context(features, base, q, take)
            return means, scales
        mean, scale = base.chunk(2, dim=1)
        take(passes_of((), self.latents)[0], torch.ones_like(mean[0, 0]), mean, scale)
        return mean, scale

    @abstractmethod
    def dequantise(self, y_hat: Tensor, mean: Tensor, index: Tensor, q: Tensor) -> Tensor:
        """What `inject` reads, float32 [B, C, h, w].

        Args:
            y_hat: quantised latent, [B, M, h, w] in quantisation steps.
            mean: its prior's means, likewise.
            index: its scale indices, 0..63.
            q: rate.
        """

    @abstractmethod
    def inject(self, latents: Tensor, q: Tensor) -> tuple[Tensor, ...]:
        """What `dequantise` gave, [B, C, h, w] -> the maps of the denoiser that are the same at every step."""

    def add_heads(self, tensors: Mapping[str, Tensor]) -> None:
        """Install the layers that `reductions` need. Raises ValueError where they do not fit."""
        raise ValueError("this family has no such layers")

    def base(self, latents: Tensor, q: Tensor, factor: int = 1, keep: Window | None = None) -> Tensor:
        """Of families with a base: what `dequantise` gave -> the image of least error.

        Args:
            latents: [B, C, h, w].
            q: rate.
            factor: at 1/factor of the size, one of `reductions`.
            keep: rows and columns of latents whose pixels are wanted, None for all; no others are returned.

        Returns:
            [B, 3, 16 h / factor, 16 w / factor] of what is kept.
        """
        raise NotImplementedError

    def residual_size(self, q: Tensor) -> Tensor:
        """Of families with a base: rates [B] in [0, 1] -> the standard deviation of the residual, [B]."""
        raise NotImplementedError

    def lambda_of(self, q: float) -> float:
        """Of families with a base: the lambda of D + lambda R that a rate in [0, 1] stands for."""
        raise NotImplementedError

    @abstractmethod
    def modulate(self, times: Tensor, rate: int) -> Tensor:
        """Times float64 [K] and a rate byte -> what they alone decide in the denoiser, float64 [K, S]."""

    @abstractmethod
    def denoise(self, x: Tensor, modulation: Tensor, injected: tuple[Tensor, ...]) -> Tensor:
        """x_n [B, 3, H, W], modulation [B, S], maps of `inject` -> x0_hat, eps_hat or v0_hat [B, 3, H, W]."""

    @abstractmethod
    def cast(self, dtype: torch.dtype) -> None:
        """Give the decoder's parts the type they run in."""

    def blank(self, rows: int, height: int, width: int) -> tuple[Tensor, Tensor, tuple[Tensor, ...]] | None:
        """Arguments of `denoise` of that shape, all zero, to prepare a pass with; None where nothing is prepared."""
        return None


def interpolate_levels(table: Tensor, q: Tensor) -> Tensor:
    """table [levels, C], q [B] in [0, 1] -> [B, C], linear between the levels (codec rate control)."""
    position = q * (table.shape[0] - 1)
    low = position.floor().long().clamp(0, table.shape[0] - 2)
    fraction = (position - low)[:, None]
    return table[low] * (1 - fraction) + table[low + 1] * fraction


def scale_by_level(x: Tensor, log_table: Tensor, q: Tensor) -> Tensor:
    """x [B, C, h, w] times exp(log_table [levels, C] at q [B]), a factor per row and channel."""
    return x * interpolate_levels(log_table, q).exp()[:, :, None, None].to(x)
