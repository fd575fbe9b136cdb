"""The context model in integers: the symbols decoded so far correct means and scale parameters, the same everywhere.

Exact as the hyper-decoder is, and for the same reason: integer matrices, sums below 2**53, float64 products. Of a
checkerboard only the positions of the pass are computed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import product

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model.entropy.coder import Symbols
from model.entropy.hyper_decoder import (
    ACTIVATION_BITS,
    ACTIVATION_LIMIT,
    CONTEXT_BITS,
    FINE_BITS,
    MEAN_BITS,
    OUTPUT_LIMIT,
    IntegerHyperDecoder,
    IntegerLayer,
)
from model.entropy.passes import EVEN, LATENT_BITS, ODD, Pass, passes_of
from model.errors import WeightsError

STRIP_POSITIONS = 1 << 13  # of a pass, evaluated at a time: bounds the memory of im2col
LATENT_SHIFT = CONTEXT_BITS - LATENT_BITS - MEAN_BITS  # from y_hat in 1/16 to a quarter of it in 1/256
FEW_POSITIONS = 64  # so few that leaving out columns of the matrix costs more than to multiply them by zero
LAYERS = 3
WINDOW = 9  # positions of a 3x3 window, in raster order
EDGES = slice(1, None, 2)  # those whose parity is not that of its centre


@dataclass(frozen=True)
class Part:
    """What a pass predicts.

    Attributes:
        channels: of the latents.
        parity: which positions, by the parity of row + column; None for all n = B h w, else there are B h w / 2.
        means: in 1/16, int32 [m, n], image after image, positions in raster order.
        indices: scale indices 0..63, uint8 [m, n].
    """

    channels: slice
    parity: int | None
    means: Tensor
    indices: Tensor


@dataclass(frozen=True)
class Columns:
    """The first matrix of a pass, apart by what it multiplies.

    Attributes:
        earlier: windows of the groups before, float64 [out, channels, 9].
        own: the neighbours in the pass's own group that are known, float64 [out, channels, 4].
        point: features and rate, float64 [out, F + 1].
    """

    earlier: Tensor
    own: Tensor
    point: Tensor


Take = Callable[[Part], Symbols]  # -> the symbols of the part, int32 [m, n]


@dataclass(frozen=True)
class ContextHead:
    """Integer form of `model.networks.context.ContextModel`.

    Attributes:
        groups: int32 [G], channels of each group.
        features: channels F of the head's last hidden layer.
        nets: for every pass but the first, three matrices: the first takes 3x3 windows of the known latents, then the
            features and the rate; the last gives corrections of means and of scale parameters, both in 1/256.
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

    @cached_property
    def _columns(self) -> tuple[Columns, ...]:
        found = []
        for part, net in zip(self.passes[1:], self.nets, strict=True):
            near, point = net[0].weight.tensor_split([WINDOW * part.known], dim=1)
            near = near.view(-1, part.known, WINDOW)
            own = near[:, part.start :, EDGES].contiguous()
            found.append(Columns(near[:, : part.start].contiguous(), own, point.contiguous()))
        return tuple(found)

    def correct(self, number: int, y: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        """Corrections of pass `number` >= 1 at its positions.

        What is known to be zero is left out of the sums, which stay exact: channels without a symbol or mean in a
        strip, and in an odd pass the odd neighbours in the pass's own group, which are not known yet.

        Args:
            number: of the pass.
            y: the latents known so far, float32 [M, B, h + 2, w + 2] in 1/4 of 1/256, zero where they are not and
                around.
            seen: features and rate at its positions, float32 [F + 1, B h w / 2] in 1/256.

        Returns:
            Corrections of means and of scale parameters, int32 [m, B h w / 2].
        """
        part, net = self.passes[number], self.nets[number - 1]
        images, height, width = y.shape[1], y.shape[2] - 2, y.shape[3] - 2
        rows = 2 * max(1, STRIP_POSITIONS // (width * images))  # even, so that strips begin alike
        columns = self._columns[number - 1]
        seen = seen.view(len(seen), images, -1)
        found = []
        for top in range(0, height, rows):
            strip = y[: part.known, :, top : top + rows + 2]
            positions = _positions(images, strip.shape[2] - 2, width, part.parity or 0)
            start, count = top * width // 2, positions.shape[1]
            sums = columns.point @ seen[:, :, start : start + count // images].flatten(1).double()
            flat = strip.flatten(1)
            live = flat.any(dim=1)
            for channels, matrix, window in (
                (slice(part.start), columns.earlier, positions),
                (slice(part.start, None), columns.own, positions[EDGES]),
            ):
                values, known = flat[channels], live[channels]
                if not bool(known.any()):
                    continue
                if count > FEW_POSITIONS and not bool(known.all()):
                    values, matrix = values[known], matrix[:, known]
                taken = values.index_select(1, window.flatten()).double()
                sums.addmm_(matrix.flatten(1), taken.view(-1, count))
            x = net[0].rescale(sums)
            for layer in net[1:]:
                x = layer.multiply(x)
            found.append(x.to(torch.int32).view(len(x), images, -1))
        means, scales = torch.cat(found, dim=2).flatten(1).chunk(2)
        return means, scales


def half_of(x: Tensor, parity: int) -> Tensor:
    """x [C, ..., h, w], w even -> its values where row + column has that parity, in raster order, [C, ... h w / 2]."""
    out = x.new_empty(*x.shape[:-1], x.shape[-1] // 2)
    out[..., ::2, :], out[..., 1::2, :] = x[..., ::2, parity::2], x[..., 1::2, 1 - parity :: 2]
    return out.flatten(1)


def put_half(x: Tensor, parity: int, values: Tensor) -> None:
    """The inverse: write values [C, ... h w / 2] to where row + column has that parity in x [C, ..., h, w]."""
    values = values.view(*x.shape[:-1], -1)
    x[..., ::2, parity::2], x[..., 1::2, 1 - parity :: 2] = values[..., ::2, :], values[..., 1::2, :]


@lru_cache(maxsize=16)
def _positions(images: int, height: int, width: int, parity: int) -> Tensor:
    """Where the 3x3 windows about positions of a parity lie in flattened maps [B, h + 2, w + 2]: [9, B h w / 2]."""
    stride = width + 2
    grid = torch.arange(height)[:, None] * stride + torch.arange(width)
    starts = torch.arange(images)[:, None] * (height + 2) * stride
    centres = (starts + half_of(grid[None], parity)).flatten()
    return centres + torch.tensor([[down * stride + right] for down, right in product(range(3), range(3))])


def predict(
    head: IntegerHyperDecoder, context: ContextHead | None, z256: Tensor, rates: Sequence[int], take: Take
) -> tuple[Tensor, Tensor, Tensor]:
    """Predict the latents pass by pass; `take` gives the symbols of each, read from a stream or made from an image.

    Images of one shape share the matrix products. These are exact, so that none depends on its company.

    Args:
        head: z_hat -> means and scale parameters.
        context: corrects them; None for a single pass of everything.
        z256: 256 z_hat of B images, integer values [C, B, h, w].
        rates: rate byte 0..255 of each image.
        take: called once a pass, in coding order.

    Returns:
        Symbols int32, means in 1/16 int32 and scale indices uint8, all [M, B, 4h, 4w].
    """
    features = head.features(z256)
    means, scales = head.parameters(features)
    if context is None:
        part = Part(slice(None), None, means.flatten(1), head.indices(scales.flatten(1), rates, slice(None)))
        symbols = torch.from_numpy(take(part))
        return symbols.view(means.shape), means, part.indices.view(means.shape)
    features = torch.floor(features * 2.0 ** (CONTEXT_BITS - ACTIVATION_BITS) + 0.5)
    seen = torch.cat([features, _rate_planes(rates, features)])
    del features
    seen_halves = [half_of(seen, parity) for parity in (EVEN, ODD)]
    del seen
    y = torch.zeros((*means.shape[:2], means.shape[2] + 2, means.shape[3] + 2))
    latent = torch.zeros(means.shape, dtype=torch.int32)
    indices = torch.zeros(means.shape, dtype=torch.uint8)
    for number, step in enumerate(context.passes):
        channels, parity = slice(step.start, step.stop), step.parity or 0
        mean, scale = half_of(means[channels], parity), half_of(scales[channels], parity)
        if number:
            delta_mean, delta_scale = context.correct(number, y, seen_halves[parity])
            mean, scale = mean + delta_mean, scale + delta_scale
        mean = (mean + (1 << FINE_BITS - MEAN_BITS - 1)) >> FINE_BITS - MEAN_BITS  # an arithmetic shift is a floor
        mean = mean.clamp(-OUTPUT_LIMIT, OUTPUT_LIMIT)
        index = head.indices(scale, rates, channels)
        symbols = torch.from_numpy(take(Part(channels, parity, mean, index)))
        known = (symbols << MEAN_BITS) + mean << LATENT_SHIFT
        known = known.clamp(-ACTIVATION_LIMIT, ACTIVATION_LIMIT).float()
        for whole_map, values in ((means, mean), (indices, index), (latent, symbols), (y[:, :, 1:-1, 1:-1], known)):
            put_half(whole_map[channels], parity, values)
    return latent, means, indices


def _rate_planes(rates: Sequence[int], like: Tensor) -> Tensor:
    """q = rate / 255 rounded to 1/256 of each image, as planes [1, B, h, w]."""
    q = torch.tensor([float(rate + (rate >= 128)) for rate in rates])
    return q[None, :, None, None].expand(1, *like.shape[1:])
