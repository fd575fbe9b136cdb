"""Analysis and synthesis transforms of cdc-lite, at patch 8: nothing is convolved at a finer scale than 1/8."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.networks.depthwise import BLOCK, depthwise_blocks, image_of_means, split_means
from model.networks.family import scale_by_level

PATCH = 8  # side of the pixel block that becomes channels
PATCH_CHANNELS = 3 * PATCH * PATCH
MEANS = 3  # the first latents are block means


@dataclass(frozen=True)
class TransformConfig:
    """Sizes of both transforms.

    Attributes:
        widths: channels at 1/8 and 1/16 of the image's side.
        latents: M, the first three of which are block means.
        analysis, synthesis: blocks at 1/8 and 1/16.
        levels: of gains and of factors per rate.
    """

    widths: tuple[int, int] = (192, 320)
    latents: int = 320
    analysis: tuple[int, int] = (3, 3)
    synthesis: tuple[int, int] = (6, 4)
    levels: int = 12


class AnalysisTransform(nn.Module):
    """g_a: an image [B, 3, H, W] in [-1, 1] -> y [B, M, H/16, W/16] before the gain; H and W multiples of 16.

        image - means --unshuffle 8--> stem, blocks at 1/8 --unshuffle 2--> down --x factor(q)--> blocks at 1/16 --> y
        means -------------------------------------------------------------------------------------------------- + --^

    With the means inside, every weight's error is an error in proportion to the brightness.
    """

    def __init__(self, config: TransformConfig) -> None:
        super().__init__()
        fine, coarse = config.widths
        self.stem = nn.Conv2d(PATCH_CHANNELS, fine, 1)
        self.fine = depthwise_blocks(fine, config.analysis[0])
        self.down = nn.Conv2d(4 * fine, coarse, 1)
        self.coarse = depthwise_blocks(coarse, config.analysis[1])
        self.head = nn.Conv2d(coarse, config.latents, 1)
        self.log_rate = nn.Parameter(torch.zeros(config.levels, coarse))

    def analyse(self, image: Tensor) -> Tensor:
        """The part before the factor of the rate: image -> means and features [B, 3 + widths[1], H/16, W/16]."""
        means, rest = split_means(image)
        h = self.down(F.pixel_unshuffle(self.fine(self.stem(F.pixel_unshuffle(rest, PATCH))), 2))
        return torch.cat([means, h], dim=1)

    def latent(self, features: Tensor, q: Tensor) -> Tensor:
        """The part after it: what `analyse` gave, q [B] in [0, 1] -> y [B, M, H/16, W/16]."""
        y = self.head(self.coarse(scale_by_level(features[:, MEANS:], self.log_rate, q)))
        return torch.cat([y[:, :MEANS] + features[:, :MEANS], y[:, MEANS:]], dim=1)


class SynthesisTransform(nn.Module):
    """g_s: y_hat and what its prior knew -> `x_base`, the image of least error, and the denoiser's context.

    y_hat --stem--> + --x factor(q)--> blocks at 1/16 --up, shuffle 2--> blocks at 1/8 --head, shuffle 8--> + --> x_base
                    ^                                                                                       ^
    means, indices --prior                               y_hat[0..2] ------ image of the block means -------+
    """

    def __init__(self, config: TransformConfig) -> None:
        super().__init__()
        fine, coarse = config.widths
        self.latents = config.latents
        self.stem = nn.Conv2d(config.latents, coarse, 1)
        self.prior = nn.Conv2d(2 * config.latents, coarse, 1)
        self.coarse = depthwise_blocks(coarse, config.synthesis[1])
        self.up = nn.Conv2d(coarse, 4 * fine, 1)
        self.fine = depthwise_blocks(fine, config.synthesis[0])
        self.head = nn.Conv2d(fine, PATCH_CHANNELS, 1)
        self.log_rate = nn.Parameter(torch.zeros(config.levels, coarse))
        nn.init.zeros_(self.prior.weight)
        assert self.prior.bias is not None
        nn.init.zeros_(self.prior.bias)

    def forward(self, latents: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
        """Run the transform.

        Args:
            latents: y_hat and the means of its prior, both after the inverse gain, and scale indices / 63, one after
                the other, float32 [B, 3 M, h, w].
            q: rate [B] in [0, 1].

        Returns:
            x_base, float32 [B, 3, 16 h, 16 w], not clamped, and the map at 1/8 in the weights' precision.
        """
        y, mean, index = torch.split(latents, self.latents, dim=1)
        dtype = self.stem.weight.dtype
        known = torch.cat([_less_dc(mean), index], dim=1).to(dtype)
        coarse = self.stem(_less_dc(y).to(dtype)) + self.prior(known)
        coarse = self.coarse(scale_by_level(coarse, self.log_rate.float(), q))
        fine = self.fine(F.pixel_shuffle(self.up(coarse), 2))
        # The means are added in float32: in bfloat16 a flat sky would come in steps of a level.
        image = F.pixel_shuffle(self.head(fine), PATCH).float() + image_of_means(y[:, :MEANS])
        return image, fine


def _less_dc(y: Tensor) -> Tensor:
    """Block means at the size of the other latents."""
    return torch.cat([y[:, :MEANS] / BLOCK, y[:, MEANS:]], dim=1)
