"""Denoiser of cdc-lite: what it samples is the residual, what the image of least error lacks."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.networks.depthwise import DepthwiseBlock
from model.networks.transforms import PATCH, PATCH_CHANNELS

HARMONICS = 8  # of time and of rate
EMBEDDING = 2 * (1 + 2 * HARMONICS)
HIDDEN = 128


class Denoiser(nn.Module):
    """v_n, time, rate and the synthesis transform's map at 1/8 -> v0_hat, at patch 8.

        v_n --unshuffle 8--> noise --+--> blocks, each after FiLM(t, q) --> head -------------+--shuffle 8--> v0_hat
                 |      map --> context                         |--> gate --x--> gate x v_n --+
                 `-----------------------------------------------------------'

    v is the residual x - x_base in units of its standard deviation at the rate. The gate lets grain of any fineness
    through in the strength that the image asks for. Both last layers start at zero: a new denoiser gives v0_hat = 0.
    """

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        self.noise = nn.Conv2d(PATCH_CHANNELS, width, 1)
        self.context = nn.Conv2d(width, width, 1)
        self.blocks = nn.ModuleList(DepthwiseBlock(width) for _ in range(blocks))
        self.head, self.gate = nn.Conv2d(width, PATCH_CHANNELS, 1), nn.Conv2d(width, PATCH_CHANNELS, 1)
        self.time = nn.Sequential(nn.Linear(EMBEDDING, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, 2 * width * blocks))
        for last in (self.head, self.gate, self.time[2]):
            assert isinstance(last, nn.Conv2d | nn.Linear)
            nn.init.zeros_(last.weight)
            assert last.bias is not None
            nn.init.zeros_(last.bias)

    def modulate(self, t: Tensor, q: Tensor) -> Tensor:
        """t [K] in (0, 1], q [K] in [0, 1] -> the FiLM coefficients of all blocks, [K, 2 width blocks]."""
        harmonics = math.pi * torch.arange(1, HARMONICS + 1, dtype=t.dtype, device=t.device)
        parts = []
        for v in (t[:, None], q[:, None]):
            parts += [v, torch.sin(v * harmonics), torch.cos(v * harmonics)]
        coefficients: Tensor = self.time(torch.cat(parts, dim=1))
        return coefficients

    def blank(self, rows: int, height: int, width: int) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """Arguments of `forward` of that shape, all zero, in the layout, precision and place of the network."""
        like = self.noise.weight
        channels = like.shape[0]
        x = like.new_zeros(rows, 3, height, width).to(memory_format=torch.channels_last)
        context = like.new_zeros(rows, channels, height // PATCH, width // PATCH)
        modulation = like.new_zeros(rows, 2 * channels * len(self.blocks))
        return x, modulation, (context.to(memory_format=torch.channels_last),)

    def forward(self, v: Tensor, modulation: Tensor, context: tuple[Tensor, ...]) -> Tensor:
        """v_n [B, 3, H, W], what `modulate` gave [B, S], the map at 1/8 -> v0_hat [B, 3, H, W]."""
        patches = F.pixel_unshuffle(v, PATCH)
        h = self.noise(patches) + self.context(context[0])
        for block, film in zip(self.blocks, modulation.chunk(len(self.blocks), dim=1), strict=True):
            scale, shift = film[:, :, None, None].chunk(2, dim=1)
            h = block(h * (1 + scale) + shift, h)
        return F.pixel_shuffle(self.head(h) + self.gate(h) * patches, PATCH)
