"""The context model in integers: the symbols decoded so far correct means and scale numbers, the same everywhere.

Exact as the scale head is, and for the same reason: integer matrices, sums below 2**53, float64 products. Of a
checkerboard only the positions of the pass are computed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from model.entropy.coder import Symbols
from model.entropy.passes import LATENT_BITS, Pass, passes_of
from model.entropy.scale_head import (
    ACTIVATION_BITS,
    ACTIVATION_LIMIT,
    CONTEXT_BITS,
    FINE_BITS,
    MEAN_BITS,
    OUTPUT_LIMIT,
    IntegerLayer,
    ScaleHead,
)
from model.errors import WeightsError

STRIP_POSITIONS = 1 << 13  # of a pass, evaluated at a time: bounds the memory of im2col
LATENT_SHIFT = CONTEXT_BITS - LATENT_BITS - MEAN_BITS  # from y_hat in 1/16 to a quarter of it in 1/256
LAYERS = 3


@dataclass(frozen=True)
class Part:
    """What a pass predicts, for the positions of `mask` in raster order.

    Attributes:
        channels: of the latents.
        mask: bool [h, w].
        means: in 1/16, int32 [m, n].
        indices: scale indices 0..63, uint8 [m, n].
    """

    channels: slice
    mask: Tensor
    means: Tensor
    indices: Tensor


Take = Callable[[Part], Symbols]  # -> the symbols of the part, int32 [m, n]


@dataclass(frozen=True)
class ContextHead:
    """Integer form of `model.networks.context.ContextModel`.

    Attributes:
        groups: int32 [G], channels of each group.
        features: channels F of the head's last hidden layer.
        nets: for every pass but the first, three matrices: the first takes 3x3 windows of the known latents, then the
            features and the rate; the last gives corrections of means and of scale numbers, both in 1/256.
    """

    groups: npt.NDArray[np.int32]
    features: int
    nets: tuple[tuple[IntegerLayer, ...], ...]

    def __post_init__(self) -> None:
        if self.groups.ndim != 1 or not self.groups.size or int(self.groups.min()) < 1:
            raise WeightsError("context model: its groups are not sizes")
        if len(self.nets) != len(self.passes) - 1:
            raise WeightsError("context model: groups and networks do not fit together")
        for part, net in zip(self.passes[1:], self.nets, strict=True):
            if len(net) != LAYERS or net[-1].outputs != 2 * (part.stop - part.start):
                raise WeightsError("context model: a network does not fit its pass")
            limit, inputs = ACTIVATION_LIMIT, 9 * part.known + self.features + 1
            for layer in net:
                layer.check(limit, inputs=inputs, matrix=True)
                limit, inputs = layer.limit, layer.outputs

    @cached_property
    def passes(self) -> tuple[Pass, ...]:
        """In coding order."""
        return passes_of(self.groups.tolist(), int(self.groups.sum()))

    def correct(self, number: int, y: Tensor, seen: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Corrections of pass `number` >= 1 at the positions of `mask`.

        Args:
            number: of the pass.
            y: the latents known so far, float32 [M, h, w] in 1/4 of 1/256, zero where they are not.
            seen: features and rate, float32 [F + 1, h, w] in 1/256.
            mask: bool [h, w].

        Returns:
            Corrections of means and of scale numbers, int32 [m, n].
        """
        part, net = self.passes[number], self.nets[number - 1]
        width = mask.shape[1]
        rows = max(1, 2 * STRIP_POSITIONS // width)
        padded = F.pad(y[: part.known], (1, 1, 1, 1))
        found = []
        for top in range(0, mask.shape[0], rows):
            chosen = mask[top : top + rows]
            i, j = torch.nonzero(chosen, as_tuple=True)
            corner = i * (width + 2) + j  # of each position's window
            taps = (torch.arange(3)[:, None] * (width + 2) + torch.arange(3)).flatten()
            strip = padded[:, top : top + chosen.shape[0] + 2].flatten(1)
            windows = strip.index_select(1, (taps[:, None] + corner).flatten()).view(9 * part.known, len(i))
            x = torch.cat([windows, seen[:, top : top + rows][:, chosen]]).double()
            for layer in net:
                x = layer.multiply(x)
            found.append(x.to(torch.int32))
        means, scales = torch.cat(found, dim=1).chunk(2)
        return means, scales


def predict(
    head: ScaleHead, context: ContextHead | None, z256: Tensor, rate: int, take: Take
) -> tuple[Symbols, Tensor, Tensor]:
    """Predict the latents pass by pass; `take` gives the symbols of each, read from a stream or made from a picture.

    Args:
        head: z_hat -> means and scale numbers.
        context: corrects them; None for a single pass of everything.
        z256: 256 z_hat, integer values [C, h, w].
        rate: rate byte 0..255.
        take: called once a pass, in coding order.

    Returns:
        Symbols int32, means in 1/16 int32 and scale indices uint8, all [M, 4h, 4w].
    """
    features = head.features(z256)
    means, scales = head.parameters(features)
    if context is None:
        part = Part(
            slice(None), torch.ones(means.shape[1:], dtype=torch.bool), means, head.indices(scales, rate, slice(None))
        )
        flat = Part(part.channels, part.mask, part.means.flatten(1), part.indices.flatten(1))
        return take(flat).reshape(means.shape), means, part.indices
    seen = torch.cat(
        [torch.floor(features * 2.0 ** (CONTEXT_BITS - ACTIVATION_BITS) + 0.5), _rate_plane(rate, features)]
    )
    del features
    height, width = means.shape[1:]
    masks = checkerboard(height, width)
    y = torch.zeros(means.shape)
    latent = np.zeros(means.shape, dtype=np.int32)
    indices = torch.zeros(means.shape, dtype=torch.uint8)
    for number, step in enumerate(context.passes):
        channels = slice(step.start, step.stop)
        mask = masks[step.parity or 0]
        mean, scale = means[channels][:, mask], scales[channels][:, mask]
        if number:
            delta_mean, delta_scale = context.correct(number, y, seen, mask)
            mean, scale = mean + delta_mean, scale + delta_scale
        mean = (mean + (1 << FINE_BITS - MEAN_BITS - 1)) >> FINE_BITS - MEAN_BITS  # an arithmetic shift is a floor
        mean = mean.clamp(-OUTPUT_LIMIT, OUTPUT_LIMIT)
        index = head.indices(scale, rate, channels)
        symbols = torch.from_numpy(take(Part(channels, mask, mean, index)))
        means[channels, mask], indices[channels, mask] = mean, index
        torch.from_numpy(latent)[channels, mask] = symbols
        known = (symbols << MEAN_BITS) + mean << LATENT_SHIFT
        y[channels, mask] = known.clamp(-ACTIVATION_LIMIT, ACTIVATION_LIMIT).float()
    return latent, means, indices


def checkerboard(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Masks bool [h, w] of the positions whose row + column is even, and odd."""
    odd = (torch.arange(height)[:, None] + torch.arange(width)).remainder(2).bool()
    return ~odd, odd


def _rate_plane(rate: int, like: Tensor) -> Tensor:
    """q = rate / 255 rounded to 1/256, as a plane [1, h, w]."""
    return torch.full((1, *like.shape[1:]), float(rate + (rate >= 128)))
