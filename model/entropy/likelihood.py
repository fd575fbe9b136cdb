"""Float probability models: used in training, to export integer tables, and to measure the ideal code length."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIGMA_MIN, SIGMA_MAX, SIGMA_LEVELS = 0.1, 256.0, 64
LEVELS_PER_NAT = (SIGMA_LEVELS - 1) / (math.log(SIGMA_MAX) - math.log(SIGMA_MIN))  # scale index per unit of ln(sigma)
PROBABILITY_FLOOR = 1e-9


def sigma_of_index(index: Tensor) -> Tensor:
    """Scale index 0..63 (any float shape) -> sigma, log-spaced from 0.1 to 256: a block mean is hundreds of steps."""
    return torch.exp(math.log(SIGMA_MIN) + index / LEVELS_PER_NAT)


def gaussian_bin_probability(offset: Tensor, sigma: Tensor) -> Tensor:
    """P(round(v) = offset) of v ~ N(0, sigma^2); offset = y - mean. Any broadcastable shapes, values in [0, 1]."""
    distance = offset.abs()  # the symmetric tail keeps its precision
    upper = torch.erfc(-(0.5 - distance) / sigma * 2**-0.5)
    lower = torch.erfc((0.5 + distance) / sigma * 2**-0.5)
    return 0.5 * (upper - lower)


def gaussian_bits(offset: Tensor, sigma: Tensor) -> Tensor:
    """Ideal code length of each element in bit, with probabilities of at least 1e-9."""
    return -torch.log2(gaussian_bin_probability(offset, sigma).clamp(min=PROBABILITY_FLOOR))


class FactorizedPrior(nn.Module):
    """Fully factorised prior of z (Balle et al. 2018, appendix 6.1), one small monotone network a channel.

    Parameter names are those of CompressAI's EntropyBottleneck, in lists: matrices.I, biases.I, factors.I, quantiles.
    `quantiles` [C, 1, 3] hold the lower tail, the median and the upper tail.
    """

    def __init__(self, channels: int, filters: tuple[int, ...] = (3, 3, 3, 3), init_scale: float = 10.0) -> None:
        super().__init__()
        sizes = (1, *filters, 1)
        scale = init_scale ** (1 / (len(filters) + 1))
        self.depth = len(filters) + 1
        self.matrices, self.biases, self.factors = nn.ParameterList(), nn.ParameterList(), nn.ParameterList()
        for i in range(self.depth):
            start = math.log(math.expm1(1 / scale / sizes[i + 1]))
            self.matrices.append(nn.Parameter(torch.full((channels, sizes[i + 1], sizes[i]), start)))
            self.biases.append(nn.Parameter(torch.rand(channels, sizes[i + 1], 1) - 0.5))
            if i < self.depth - 1:
                self.factors.append(nn.Parameter(torch.zeros(channels, sizes[i + 1], 1)))
        self.quantiles = nn.Parameter(torch.tensor([-init_scale, 0.0, init_scale]).repeat(channels, 1, 1))

    @property
    def medians(self) -> Tensor:
        """Median of each channel, [C]."""
        return self.quantiles[:, 0, 1].detach()

    def cumulative_logits(self, values: Tensor) -> Tensor:
        """values [C, 1, n] -> logit of the cumulative distribution at them, [C, 1, n]."""
        for i in range(self.depth):
            values = torch.matmul(F.softplus(self.matrices[i]), values) + self.biases[i]
            if i < self.depth - 1:
                values = values + torch.tanh(self.factors[i]) * torch.tanh(values)
        return values

    def bin_probability(self, values: Tensor) -> Tensor:
        """values [C, 1, n] -> P(the bin of width 1 around each value), [C, 1, n]."""
        lower, upper = self.cumulative_logits(values - 0.5), self.cumulative_logits(values + 0.5)
        sign = -torch.sign(lower + upper).detach()  # evaluate in the tail where sigmoid keeps its precision
        return (torch.sigmoid(sign * upper) - torch.sigmoid(sign * lower)).abs()

    def bits(self, z: Tensor) -> Tensor:
        """z [B, C, h, w] -> ideal code length of each image in bit, [B]."""
        batch, channels = z.shape[:2]
        values = z.transpose(0, 1).reshape(channels, 1, -1)
        bits = -torch.log2(self.bin_probability(values).clamp(min=PROBABILITY_FLOOR))
        return bits.reshape(channels, batch, -1).sum(dim=(0, 2))
