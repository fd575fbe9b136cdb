"""The one building block of cdc-lite."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ResBlock(nn.Module):
    """x + conv2(silu(film(conv1(silu(x))))), 3x3 convolutions, width unchanged.

    With `embedding` set, FiLM modulates the hidden channels: h * (1 + a) + b with (a, b) = Linear(embedding), which the
    caller computes: it depends on time and rate alone. conv2 and the modulation start at zero, so a new block is the
    identity.
    """

    def __init__(self, width: int, embedding: int | None = None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.modulation = nn.Linear(embedding, 2 * width) if embedding is not None else None
        nn.init.zeros_(self.conv2.weight)
        _zero_bias(self.conv2)
        if self.modulation is not None:
            nn.init.zeros_(self.modulation.weight)
            nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, film: Tensor | None = None) -> Tensor:
        """x [B, width, H, W], film [B, 2 width] (a and b) or None -> [B, width, H, W]."""
        h: Tensor = self.conv1(F.silu(x))
        if film is not None:
            a, b = film[:, :, None, None].chunk(2, dim=1)
            h = torch.addcmul(b, h, 1 + a)
        out: Tensor = x + self.conv2(F.silu(h))
        return out


def _zero_bias(conv: nn.Conv2d) -> None:
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
