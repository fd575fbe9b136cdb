"""cdc-lite: the default networks. Convolutions only, every operation local, small enough for a CPU.

    image --encoder--> y --gain(q)--> [entropy coding] --inverse gain(q)--> y_hat --conditioner--> context
                          \\--hyper_encoder--> z --hyper_decoder, context--> prior of y  |
    x_n, t, q ------------------------------------------------------------> denoiser --> x0_hat

Pixels enter through `pixel_unshuffle(x, 4)` and leave through `pixel_shuffle`, so full resolution is never convolved.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.errors import WeightsError
from model.networks.blocks import ResBlocks
from model.networks.context import ContextModel, context_sizes
from model.networks.family import Family, scale_by_level

PATCH = 4  # side of the pixel block that becomes channels
PATCH_CHANNELS = 3 * PATCH * PATCH
FREQUENCIES = 32  # of the time embedding, log-spaced 1..1000


@dataclass(frozen=True)
class LiteConfig:
    """Sizes of cdc-lite. `widths` are the channels at 1/4, 1/8 and 1/16 of the picture's side.

    `groups` are the latent channels of each group of the context model, () for an entropy model without one.
    """

    widths: tuple[int, int, int] = (96, 128, 192)
    latents: int = 192
    hyper: int = 128
    blocks: int = 2
    embedding: int = 128
    levels: int = 8
    groups: tuple[int, ...] = (8, 24, 64, 96)
    context: int = 128

    @classmethod
    def of_tensors(cls, tensors: Mapping[str, Tensor]) -> LiteConfig:
        """The default sizes, with the context model that a state dict holds. Raises WeightsError."""
        sizes = context_sizes(tensors)
        if sizes is None:
            return cls(groups=())
        if sum(sizes[0]) != cls.latents:
            raise WeightsError("the context model does not fit the latents")
        return cls(groups=sizes[0], context=sizes[1])


class Encoder(nn.Module):
    """Analysis transform: image [B, 3, H, W] in [-1, 1] -> y [B, latents, H/16, W/16]; H and W multiples of 16."""

    def __init__(self, config: LiteConfig) -> None:
        super().__init__()
        w = config.widths
        self.stem = nn.Conv2d(PATCH_CHANNELS, w[0], 3, padding=1)
        self.stages = nn.ModuleList(ResBlocks(width, config.blocks) for width in w)
        self.down = nn.ModuleList(nn.Conv2d(w[i], w[i + 1], 2, stride=2) for i in range(2))
        self.head = nn.Conv2d(w[2], config.latents, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        h: Tensor = self.stem(F.pixel_unshuffle(image, PATCH))
        for level, stage in enumerate(self.stages):
            h = stage(h)
            if level < 2:
                h = self.down[level](h)
        y: Tensor = self.head(h)
        return y


class Conditioner(nn.Module):
    """y_hat [B, latents, H/16, W/16] -> context, three maps [B, widths[i], ...] at 1/4, 1/8 and 1/16."""

    def __init__(self, config: LiteConfig) -> None:
        super().__init__()
        w = config.widths
        self.stem = nn.Conv2d(config.latents, w[2], 3, padding=1)
        self.stages = nn.ModuleList(ResBlocks(width, config.blocks) for width in reversed(w))
        self.up = nn.ModuleList([nn.Conv2d(w[2], 4 * w[1], 1), nn.Conv2d(w[1], 4 * w[0], 1)])

    def forward(self, y_hat: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h: Tensor = self.stem(y_hat)
        maps: list[Tensor] = []
        for level, stage in enumerate(self.stages):
            h = stage(h)
            maps.append(h)
            if level < 2:
                h = F.pixel_shuffle(self.up[level](h), 2)
        return maps[2], maps[1], maps[0]


class Denoiser(nn.Module):
    """U-Net that predicts x0 from x_n, the time, the rate and the context.

    The context enters through 1x1 convolutions that do not depend on the step: `inject_context` computes them once a
    picture. What depends on time and rate alone, `embed_time` and `modulate`, is computed once a schedule. `forward` is
    what every step repeats.
    """

    def __init__(self, config: LiteConfig) -> None:
        super().__init__()
        w, e = config.widths, config.embedding
        self.depth = config.blocks
        self.widths = w
        frequencies = torch.exp(torch.linspace(0.0, math.log(1000.0), FREQUENCIES))
        self.frequencies: Tensor
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.embed = nn.Sequential(nn.Linear(2 * FREQUENCIES + 1, e), nn.SiLU(), nn.Linear(e, e), nn.SiLU())
        self.stem = nn.Conv2d(PATCH_CHANNELS, w[0], 3, padding=1)
        self.inject = nn.ModuleList(nn.Conv2d(width, width, 1) for width in w)
        self.down_blocks = nn.ModuleList(ResBlocks(width, config.blocks, e) for width in w[:2])
        self.down = nn.ModuleList(nn.Conv2d(w[i], w[i + 1], 2, stride=2) for i in range(2))
        self.mid_blocks = ResBlocks(w[2], config.blocks + 1, e)
        self.up = nn.ModuleList([nn.Conv2d(w[2], 4 * w[1], 1), nn.Conv2d(w[1], 4 * w[0], 1)])
        self.merge = nn.ModuleList([nn.Conv2d(2 * w[1], w[1], 1), nn.Conv2d(2 * w[0], w[0], 1)])
        self.up_blocks = nn.ModuleList(ResBlocks(width, config.blocks, e) for width in (w[1], w[0]))
        self.head = nn.Conv2d(w[0], PATCH_CHANNELS, 3, padding=1)

    def inject_context(self, context: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Return what is added at each level; same shapes as `context`."""
        a, b, c = (conv(c) for conv, c in zip(self.inject, context, strict=True))
        return a, b, c

    def embed_time(self, t: Tensor, q: Tensor) -> Tensor:
        """t [B] in (0, 1], q [B] in [0, 1] -> embedding [B, E]. Angles reach 1000: use float32 at least."""
        angle = t[:, None] * self.frequencies
        embedding: Tensor = self.embed(torch.cat([angle.sin(), angle.cos(), q[:, None]], dim=1))
        return embedding

    def modulate(self, embedding: Tensor) -> Tensor:
        """Embedding [B, E] -> the FiLM coefficients of all blocks, one after the other, [B, sum of 2 width]."""
        return torch.cat([linear(embedding) for linear in self.modulations()], dim=1)

    def modulations(self) -> list[nn.Linear]:
        """The linear layers from the embedding to the coefficients of each block, in the order the blocks run."""
        groups = (*self.down_blocks, self.mid_blocks, *self.up_blocks)
        return [block.modulation for group in groups for block in group]

    def blank(self, rows: int, height: int, width: int) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor, Tensor]]:
        """Arguments of `forward` of that shape, all zero, in the layout, precision and place of the network."""
        like = self.stem.weight
        a, b, c = (
            like.new_zeros((rows, channels, height // s, width // s)).to(memory_format=torch.channels_last)
            for channels, s in zip(self.widths, (PATCH, 2 * PATCH, 4 * PATCH), strict=True)
        )
        x = like.new_zeros(rows, 3, height, width).to(memory_format=torch.channels_last)
        return x, like.new_zeros(rows, sum(linear.out_features for linear in self.modulations())), (a, b, c)

    def forward(self, x: Tensor, modulation: Tensor, injected: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """x [B, 3, H, W], modulation [B, S], injected maps -> x0_hat [B, 3, H, W]; H and W multiples of 16."""
        films = list(torch.split(modulation, [linear.out_features for linear in self.modulations()], dim=1))
        h: Tensor = self.stem(F.pixel_unshuffle(x, PATCH)) + injected[0]
        skips: list[Tensor] = []
        for level, blocks in enumerate(self.down_blocks):
            h = blocks(h, [films.pop(0) for _ in range(self.depth)])
            skips.append(h)
            h = self.down[level](h) + injected[level + 1]
        h = self.mid_blocks(h, [films.pop(0) for _ in range(self.depth + 1)])
        for level, blocks in enumerate(self.up_blocks):
            h = self.merge[level](torch.cat([F.pixel_shuffle(self.up[level](h), 2), skips.pop()], dim=1))
            h = blocks(h, [films.pop(0) for _ in range(self.depth)])
        return F.pixel_shuffle(self.head(h), PATCH)


class CDCLite(Family):
    """All networks of cdc-lite and its variable-rate tables. The prior of z and its tables live in `model.entropy`.

    `log_gain` and `log_inverse_gain` [levels, latents] are natural logarithms, interpolated linearly over q in [0, 1];
    `lambdas` [levels] are the Lagrange multipliers the levels were trained with.
    """

    def __init__(self, config: LiteConfig | None = None) -> None:
        super().__init__()
        config = config or LiteConfig()
        self.config = config
        m, n = config.latents, config.hyper
        self.latents = self.features = m
        self.encoder = Encoder(config)
        self.conditioner = Conditioner(config)
        self.denoiser = Denoiser(config)
        self.hyper_encoder = nn.Sequential(
            nn.Conv2d(m, n, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(n, n, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Conv2d(n, n, 5, stride=2, padding=2),
        )
        self.hyper_decoder = nn.Sequential(
            nn.ConvTranspose2d(n, n, 5, 2, 2, 1),
            nn.ReLU(),
            nn.ConvTranspose2d(n, n * 3 // 2, 5, 2, 2, 1),
            nn.ReLU(),
            nn.Conv2d(n * 3 // 2, 2 * m, 3, padding=1),
        )
        self.context = ContextModel(config.groups, n * 3 // 2, config.context) if config.groups else None
        start = torch.linspace(-0.36, 1.73, config.levels)[:, None].repeat(1, m)
        self.log_gain = nn.Parameter(start.clone())
        self.log_inverse_gain = nn.Parameter(-start)
        self.lambdas: Tensor
        self.register_buffer("lambdas", torch.logspace(math.log10(0.08), math.log10(0.0012), config.levels))

    def analyse(self, image: Tensor) -> Tensor:
        """Image [B, 3, H, W] in [-1, 1] -> y before the gain, [B, M, h, w]."""
        y: Tensor = self.encoder(image)
        return y

    def dequantise(self, y_hat: Tensor, mean: Tensor, index: Tensor, q: Tensor) -> Tensor:
        """y_hat after the inverse gain, [B, M, h, w]; the prior is not used."""
        return scale_by_level(y_hat, self.log_inverse_gain, q)

    def cast(self, dtype: torch.dtype) -> None:
        """Give the decoder's parts the type they run in.

        What depends on time and rate alone runs in float64 and is rounded once: a product of few rows in a low
        precision depends on how many they are, and one flipped rounding here moves 5 % of a picture's values.
        """
        self.conditioner.to(dtype)
        self.denoiser.to(dtype)
        for part in (self.denoiser.embed, *self.denoiser.modulations()):
            part.double()
        self.denoiser.frequencies = self.denoiser.frequencies.double()

    def modulate(self, times: Tensor, rate: int) -> Tensor:
        """Times float64 [K] and a rate byte -> the FiLM coefficients at each of them, float64 [K, S]."""
        return self.denoiser.modulate(self.denoiser.embed_time(times, torch.full_like(times, rate / 255)))

    def inject(self, latents: Tensor, q: Tensor | None = None) -> tuple[Tensor, ...]:
        """y_hat after the inverse gain [B, M, h, w] -> the conditioner's share of the denoiser, at 1/4, 1/8, 1/16."""
        return self.denoiser.inject_context(self.conditioner(latents.to(self.conditioner.stem.weight.dtype)))

    def denoise(self, x: Tensor, modulation: Tensor, injected: tuple[Tensor, ...]) -> Tensor:
        """x [B, 3, H, W] -> x0_hat [B, 3, H, W]."""
        out: Tensor = self.denoiser(x, modulation, injected)
        return out

    def blank(self, rows: int, height: int, width: int) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """Arguments of `denoise` of that shape, all zero."""
        return self.denoiser.blank(rows, height, width)
