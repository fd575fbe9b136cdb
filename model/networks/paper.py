"""The paper's networks (Yang & Mandt 2023, section 4 and appendix): cdc-x and cdc-eps, one rate a checkpoint.

    image --encoder--> y --[entropy coding]--> y_hat --conditioner--> context, four maps
                        \\--hyper_encoder--> z                          |  inject (once an image)
    x_n, time -------------------------------------------------> denoiser --> x0_hat (cdc-x) or eps_hat (cdc-eps)

A convolution over the concatenation [x, context] is conv_x(x) + conv_c(context), and the second part is the same at
every step: `Denoiser.inject` computes it once. Encoder and conditioner are local (every norm is over channels); the
denoiser's attention is global, so it sees whole canvases only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.errors import WeightsError
from model.networks.family import Family, scale_by_level
from model.networks.paper_blocks import ChannelNorm, LinearAttention, ResnetBlock

LEVELS = 6  # of the U-Net, widths D .. 6 D
CONTEXTS = 4  # levels whose input has a context map beside it
STAGES = 4  # of encoder and conditioner


@dataclass(frozen=True)
class PaperConfig:
    """Sizes: the base width D, and the channels of the finest context map (D for cdc-x, 3 for cdc-eps)."""

    width: int = 64
    context: int = 64

    @property
    def latents(self) -> int:
        """Channels of y and of z."""
        return 4 * self.width

    @property
    def contexts(self) -> tuple[int, ...]:
        """Channels of the context maps, finest first."""
        return (self.context, self.width, 2 * self.width, 3 * self.width)

    @classmethod
    def of_tensors(cls, tensors: Mapping[str, Tensor]) -> PaperConfig:
        """Read the sizes off the shapes of a state dict. Raises WeightsError where they are not there."""
        first, last = tensors.get("encoder.stages.0.conv1.weight"), tensors.get("conditioner.up.3.weight")
        if first is None or last is None or first.ndim != 4 or last.ndim != 4 or not 1 <= first.shape[0] <= 256:
            raise WeightsError("these are not the networks of cdc-x or cdc-eps")
        return cls(first.shape[0], last.shape[1])


class Encoder(nn.Module):
    """Analysis transform: image [B, 3, H, W] in [-1, 1] -> y [B, 4D, H/16, W/16]; H and W multiples of 16."""

    def __init__(self, config: PaperConfig) -> None:
        super().__init__()
        widths = (3, *(config.width * (i + 1) for i in range(STAGES)))
        self.stages = nn.ModuleList(ResnetBlock(widths[i], widths[i + 1], kernel=3 if i else 7) for i in range(STAGES))
        self.down = nn.ModuleList(nn.Conv2d(w, w, 3, stride=2, padding=1) for w in widths[1:])

    def forward(self, image: Tensor) -> Tensor:
        h = image
        for stage, down in zip(self.stages, self.down, strict=True):
            h = down(stage(h))
        return h


class Conditioner(nn.Module):
    """Context decoder: y_hat [B, 4D, H/16, W/16] -> four maps, finest first, at 1/1, 1/2, 1/4 and 1/8."""

    def __init__(self, config: PaperConfig) -> None:
        super().__init__()
        d = config.width
        widths = (4 * d, 3 * d, 2 * d, d, d)  # the last block keeps D channels, its Up makes `context` of them
        outs = (*widths[1:STAGES], config.context)
        self.stages = nn.ModuleList(ResnetBlock(widths[i], widths[i + 1]) for i in range(STAGES))
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(w, out, 4, stride=2, padding=1) for w, out in zip(widths[1:], outs, strict=True)
        )

    def forward(self, y_hat: Tensor) -> tuple[Tensor, ...]:
        h, maps = y_hat, []
        for stage, up in zip(self.stages, self.up, strict=True):
            h = up(stage(h))
            maps.append(h)
        return tuple(reversed(maps))


class Level(nn.Module):
    """One level of the U-Net: two ResnetBlocks, attention, and the way to the next level where there is one."""

    def __init__(
        self, inputs: int, width: int, embedding: int, resample: nn.Module | None, *, context: int = 0, kernel: int = 3
    ) -> None:
        super().__init__()
        self.first = ResnetBlock(inputs, width, embedding, context=context, kernel=kernel)
        self.second = ResnetBlock(width, width, embedding)
        self.attention = LinearAttention(width)
        self.resample = resample

    def forward(self, h: Tensor, shifts: Iterator[Tensor], maps: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Run blocks and attention; `shifts` gives what time adds to each block, `maps` the context's share."""
        h = self.second(self.first(h, next(shifts), maps), next(shifts))
        out: Tensor = self.attention(h)
        return out


class Denoiser(nn.Module):
    """U-Net of six levels: x_n, time and context -> x0_hat or eps_hat, [B, 3, H, W]; H and W multiples of 32.

    `modulate` (time) and `inject` (context) hold for a whole decode; `forward` is what remains for each step.
    """

    def __init__(self, config: PaperConfig) -> None:
        super().__init__()
        d = config.width
        widths = [d * (i + 1) for i in range(LEVELS)]
        self.embed = nn.Sequential(nn.Linear(1, 4 * d), nn.GELU(), nn.Linear(4 * d, d))
        self.down = nn.ModuleList()
        for i, width in enumerate(widths):
            down = nn.Conv2d(width, width, 3, stride=2, padding=1) if i < LEVELS - 1 else None
            context = config.contexts[i] if i < CONTEXTS else 0
            inputs = widths[i - 1] if i else 3
            self.down.append(Level(inputs, width, d, down, context=context, kernel=3 if i else 7))
        self.middle_first = ResnetBlock(widths[-1], widths[-1], d)
        self.middle_attention = LinearAttention(widths[-1])
        self.middle_second = ResnetBlock(widths[-1], widths[-1], d)
        self.up = nn.ModuleList()
        for i in range(LEVELS - 1, 0, -1):
            width = widths[i - 1]
            up = nn.ConvTranspose2d(width, width, 4, stride=2, padding=1)
            self.up.append(Level(2 * widths[i], width, d, up))
        self.norm = ChannelNorm(d)
        self.head = nn.Conv2d(d, 3, 7, padding=3)

    def blocks(self) -> list[ResnetBlock]:
        """The ResnetBlocks in the order they run."""
        down = [block for level in _levels(self.down) for block in (level.first, level.second)]
        up = [block for level in _levels(self.up) for block in (level.first, level.second)]
        return [*down, self.middle_first, self.middle_second, *up]

    def modulations(self) -> list[nn.Linear]:
        """The linear layers from the embedding to what each block adds to its hidden channels."""
        return [block.modulation for block in self.blocks() if block.modulation is not None]

    def modulate(self, times: Tensor) -> Tensor:
        """Times [K] -> what all blocks add at each of them, one after the other, [K, sum of widths]."""
        embedding = F.leaky_relu(self.embed(times[:, None]), 0.2)
        return torch.cat([linear(embedding) for linear in self.modulations()], dim=1)

    def inject(self, contexts: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The context's share of the first block of each of four levels: two maps a level (convolution, shortcut)."""
        levels = _levels(self.down)[:CONTEXTS]
        return tuple(m for level, c in zip(levels, contexts, strict=True) for m in level.first.inject(c))

    def forward(self, x: Tensor, modulation: Tensor, injected: tuple[Tensor, ...]) -> Tensor:
        """x [B, 3, H, W], modulation [B, S], the maps of `inject` -> prediction [B, 3, H, W]."""
        shifts = iter(torch.split(modulation, [linear.out_features for linear in self.modulations()], dim=1))
        h, skips = x, []
        for i, level in enumerate(_levels(self.down)):
            maps = (injected[2 * i], injected[2 * i + 1]) if i < CONTEXTS else None
            h = level(h, shifts, maps)
            if i:
                skips.append(h)  # the first level's is never used
            if level.resample is not None:
                h = level.resample(h)
        h = self.middle_attention(self.middle_first(h, next(shifts)))
        h = self.middle_second(h, next(shifts))
        for level in _levels(self.up):
            h = level(torch.cat([h, skips.pop()], dim=1), shifts)
            if level.resample is not None:
                h = level.resample(h)
        out: Tensor = self.head(self.norm(h))
        return out


class CDCPaper(Family):
    """All networks of cdc-x or cdc-eps. The prior of z and its tables live in `model.entropy`.

    There is one rate: the gain is 1 whatever the rate byte.
    """

    def __init__(self, config: PaperConfig | None = None) -> None:
        super().__init__()
        config = config or PaperConfig()
        self.config = config
        m = config.latents
        self.latents = self.features = m
        self.context = None
        self.encoder = Encoder(config)
        self.conditioner = Conditioner(config)
        self.denoiser = Denoiser(config)
        self.hyper_encoder = nn.Sequential(
            nn.Conv2d(m, m, 3, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(m, m, 5, stride=2, padding=2),
            nn.LeakyReLU(0.2),
            nn.Conv2d(m, m, 5, stride=2, padding=2),
        )
        self.hyper_decoder = nn.Sequential(
            nn.ConvTranspose2d(m, m, 5, 2, 2, 1),
            nn.LeakyReLU(0.2),
            nn.ConvTranspose2d(m, m, 5, 2, 2, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(m, 2 * m, 3, padding=1),
        )
        self.log_gain: Tensor
        self.log_inverse_gain: Tensor
        self.register_buffer("log_gain", torch.zeros(2, m, device="cpu"), persistent=False)
        self.register_buffer("log_inverse_gain", torch.zeros(2, m, device="cpu"), persistent=False)

    def analyse(self, image: Tensor) -> Tensor:
        """Image [B, 3, H, W] in [-1, 1] -> y [B, 4D, h, w]."""
        y: Tensor = self.encoder(image)
        return y

    def dequantise(self, y_hat: Tensor, mean: Tensor, index: Tensor, q: Tensor) -> Tensor:
        """y_hat after the inverse gain, [B, M, h, w]; the prior is not used."""
        return scale_by_level(y_hat, self.log_inverse_gain, q)

    def cast(self, dtype: torch.dtype) -> None:
        """Give the decoder's parts the type they run in; what depends on time alone stays in float64."""
        self.conditioner.to(dtype)
        self.denoiser.to(dtype)
        for part in (self.denoiser.embed, *self.denoiser.modulations()):
            part.double()

    def modulate(self, times: Tensor, rate: int) -> Tensor:
        """Times float64 [K] -> float64 [K, S]; the rate is not used."""
        return self.denoiser.modulate(times)

    def inject(self, latents: Tensor, q: Tensor | None = None) -> tuple[Tensor, ...]:
        """y_hat [B, 4D, h, w] -> the eight step-invariant maps of the denoiser; there is one rate, q is not used."""
        return self.denoiser.inject(self.conditioner(latents.to(self.denoiser.head.weight.dtype)))

    def denoise(self, x: Tensor, modulation: Tensor, injected: tuple[Tensor, ...]) -> Tensor:
        """x [B, 3, H, W] -> prediction [B, 3, H, W]."""
        out: Tensor = self.denoiser(x, modulation, injected)
        return out


def _levels(modules: nn.ModuleList) -> list[Level]:
    return cast(list[Level], list(modules))
