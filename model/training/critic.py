"""A projected critic (Sauer et al. 2021): small heads that tell samples from photographs by fixed feature maps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils.parametrizations import spectral_norm

PIXELS = 12  # channels of an image at patch 2, read beside the maps: its grain
HIDDEN = 64


class Critic(nn.Module):
    """An image, x_base of the same file and q -> logits of every head, high for photographs."""

    def __init__(self, channels: Sequence[int]) -> None:
        """`channels` of the feature maps that are read, with a head for each."""
        super().__init__()
        self.rest_norm: Tensor
        self.register_buffer("rest_norm", torch.zeros(()))  # of the other terms' gradient at the samples, last seen
        self.heads = nn.ModuleList(_head(2 * count + 1) for count in (PIXELS, *channels))

    def forward(self, maps: list[Tensor], base: list[Tensor], q: Tensor) -> list[Tensor]:
        """Maps of the image and of x_base as `maps_of` gives them, q [B] -> logits [B, 1, h, w] of each head."""
        logits = []
        for head, image, given in zip(self.heads, maps, base, strict=True):
            rate = q[:, None, None, None].expand(-1, 1, *image.shape[2:])
            logits.append(head(torch.cat([image, given, rate], dim=1)))
        return logits

    def fixed(self, maps: list[Tensor], base: list[Tensor], q: Tensor) -> list[Tensor]:
        """As `forward`, with gradients to the image alone."""
        parameters = {name: p.detach() for name, p in self.named_parameters()}
        logits: list[Tensor] = functional_call(self, parameters, (maps, base, q))
        return logits


def maps_of(image: Tensor, features: list[Tensor]) -> list[Tensor]:
    """What the heads read: images [B, 3, H, W] in [-1, 1], and their normalised features at unit power."""
    return [F.pixel_unshuffle(image, 2), *(math.sqrt(x.shape[1]) * x for x in features)]


def hinge(real: list[Tensor], fake: list[Tensor]) -> Tensor:
    """The critic's loss."""
    return torch.stack([F.relu(1 - r).mean() + F.relu(1 + f).mean() for r, f in zip(real, fake, strict=True)]).mean()


class Watched(torch.autograd.Function):
    """The identity, which notes the norm of the gradient that comes back in `norm` []."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, norm: Tensor) -> Tensor:
        ctx.norm = norm
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        norm = gradients[0].norm()
        ctx.norm.copy_(torch.where(norm.isfinite(), norm, ctx.norm))
        return gradients[0], None


class Scaled(torch.autograd.Function):
    """The identity; the gradient that comes back gets the norm `share` times `norm` []."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, norm: Tensor, share: float) -> Tensor:
        ctx.norm, ctx.share = norm, share
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = gradients
        return gradient * (ctx.share * ctx.norm / (gradient.norm() + 1e-12)), None, None


def _head(channels: int) -> nn.Sequential:
    return nn.Sequential(
        spectral_norm(nn.Conv2d(channels, HIDDEN, 1)),
        nn.LeakyReLU(0.2),
        spectral_norm(nn.Conv2d(HIDDEN, HIDDEN, 3, padding=1)),
        nn.LeakyReLU(0.2),
        spectral_norm(nn.Conv2d(HIDDEN, HIDDEN, 3, padding=1, stride=2)),
        nn.LeakyReLU(0.2),
        nn.Conv2d(HIDDEN, 1, 1),
    )
