"""Parts of cdc-lite's transforms: the depthwise block, and the block means that go around them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BLOCK = 16  # pixels a side of a block whose mean goes around the networks
# Orthonormal: luma, and two differences.
COLOUR = torch.tensor([[3**-0.5] * 3, [2**-0.5, 0.0, -(2**-0.5)], [6**-0.5, -2 * 6**-0.5, 6**-0.5]])


class DepthwiseBlock(nn.Module):
    """x + [1x1, SiLU, depthwise 3x3, 1x1], then + [1x1 to twice the width, SiLU, 1x1]; width unchanged.

    Mixing over space costs 9 multiply-adds a channel, so nearly all the work is in matrices (the block of DCVC-RT, Jia
    et al. 2025). The last layer of each branch starts at zero: a new block is the identity.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.before = nn.Conv2d(width, width, 1)
        self.depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.after = nn.Conv2d(width, width, 1)
        self.expand = nn.Conv2d(width, 2 * width, 1)
        self.contract = nn.Conv2d(2 * width, width, 1)
        for last in (self.after, self.contract):
            nn.init.zeros_(last.weight)
            if last.bias is not None:
                nn.init.zeros_(last.bias)

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        """x [B, width, H, W] -> the same shape; `skip` is what the first branch is added to, x itself by default."""
        x = (x if skip is None else skip) + self.after(self.depthwise(F.silu(self.before(x))))
        out: Tensor = x + self.contract(F.silu(self.expand(x)))
        return out


def depthwise_blocks(width: int, count: int) -> nn.Sequential:
    """`count` blocks of one width, run in order."""
    return nn.Sequential(*(DepthwiseBlock(width) for _ in range(count)))


def split_means(image: Tensor) -> tuple[Tensor, Tensor]:
    """image [B, 3, H, W] -> its block means, and the image less them.

    The means are the first three coefficients of an orthonormal 16x16 transform: 16 times the mean of a block, turned
    to luma and two differences, [B, 3, H/16, W/16].
    """
    mean = F.avg_pool2d(image, BLOCK)
    return BLOCK * _turn(mean, COLOUR), image - _spread(mean)


def image_of_means(mean: Tensor, factor: int = 1) -> Tensor:
    """The inverse for an image of nothing but means, at 1/factor: [B, 3, h, w] -> [B, 3, 16 h / factor, ...]."""
    return _spread(_turn(mean / BLOCK, COLOUR.T), BLOCK // factor)


def _turn(x: Tensor, matrix: Tensor) -> Tensor:
    """Multiply the three channels by a 3x3 matrix, in sums of a fixed order whatever the batch."""
    rows = matrix.to(x)
    return torch.stack([sum(x[:, c] * rows[k, c] for c in range(1, 3)) + x[:, 0] * rows[k, 0] for k in range(3)], dim=1)


def _spread(x: Tensor, side: int = BLOCK) -> Tensor:
    """Repeat every element over a block of side x side."""
    return x.repeat_interleave(side, dim=2).repeat_interleave(side, dim=3)
