"""Analysis and synthesis transforms of cdc-lite, at patch 8: nothing is convolved at a finer scale than 1/8."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.networks.depthwise import BLOCK, depthwise_blocks, image_of_means, split_means
from model.networks.family import Window, scale_by_level

PATCH = 8  # side of the pixel block that becomes channels
PATCH_CHANNELS = 3 * PATCH * PATCH
QUARTER_BLOCKS = 1  # at 1/16 that the image at 1/4 of its size needs: two bring it 0.3 dB at 40, for 4 % of a decode
HEAD_SIDE = 4  # of the square of pixels that a head gives for a position of its map
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

    Two linear layers, where they are installed (`add_heads`), read the image at 1/2 of its size off the map behind
    `up`, and at 1/4 off that behind a block at 1/16: the rest of the transform is not run.
    """

    heads: nn.ModuleDict  # by the reduction

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
        self.heads = nn.ModuleDict()

    @property
    def reductions(self) -> tuple[int, ...]:
        """Fractions 1/n of the size that `base` gives."""
        return tuple(int(name) for name in self.heads)

    def add_heads(self, tensors: Mapping[str, Tensor]) -> None:
        """Install the layers that `base` needs for a fraction of the size.

        They are "2.weight" [48, widths[0], 3, 3], "4.weight" [48, widths[1], 3, 3] and their biases. Raises ValueError
        where they are not of these shapes.
        """
        heads = nn.ModuleDict()
        for name, layer in (("2", self.head), ("4", self.up)):
            weight, bias = tensors.get(f"{name}.weight"), tensors.get(f"{name}.bias")
            shape = (3 * HEAD_SIDE**2, layer.in_channels, 3, 3)
            if weight is None or bias is None or weight.shape != shape or bias.shape != shape[:1]:
                raise ValueError(f"the head for 1/{name} must have the shape {list(shape)}")
            head = nn.Conv2d(shape[1], shape[0], 3, padding=1, dtype=weight.dtype)
            head.weight, head.bias = nn.Parameter(weight), nn.Parameter(bias)
            heads[name] = head
        self.heads = heads.requires_grad_(False)

    def forward(self, latents: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
        """Run the transform.

        Args:
            latents: y_hat and the means of its prior, both after the inverse gain, and scale indices / 63, one after
                the other, float32 [B, 3 M, h, w].
            q: rate [B] in [0, 1].

        Returns:
            x_base, float32 [B, 3, 16 h, 16 w], not clamped, and the map at 1/8 in the weights' precision.
        """
        fine = self.fine(self._upsampled(self._coarse(latents, q, len(self.coarse))))
        # The means are added in float32: in bfloat16 a flat sky would come in steps of a level.
        image = F.pixel_shuffle(self.head(fine), PATCH).float() + self.means(latents)
        return image, fine

    def base(self, latents: Tensor, q: Tensor, factor: int = 1, keep: Window | None = None) -> Tensor:
        """x_base alone, or nearly its average over squares of factor x factor, of the latents in `keep`.

        Past the map at 1/16 only what decides them is computed. Returns float32 [B, 3, 16 h / factor, 16 w / factor],
        h x w being kept.
        """
        rows, columns = keep or (slice(0, latents.shape[2]), slice(0, latents.shape[3]))
        coarse = self._coarse(latents, q, QUARTER_BLOCKS if factor == 4 else len(self.coarse))
        reach = -(-len(self.fine) // 2) if factor == 1 else 1  # latents, a block reaching half of one
        wide = _grown(rows, reach, coarse.shape[2]), _grown(columns, reach, coarse.shape[3])
        coarse = coarse[:, :, *wide]
        if factor == 1:
            rest = F.pixel_shuffle(self.head(self.fine(self._upsampled(coarse))), PATCH)
        else:
            rest = F.pixel_shuffle(
                self.heads[str(factor)](coarse if factor == 4 else self._upsampled(coarse)), HEAD_SIDE
            )
        inner = (
            slice((own.start - part.start) * BLOCK // factor, (own.stop - part.start) * BLOCK // factor)
            for own, part in zip((rows, columns), wide, strict=True)
        )
        return rest[:, :, *inner].float() + self.means(latents[:, :, rows, columns], factor)

    def head_input(self, latents: Tensor, q: Tensor, factor: int) -> Tensor:
        """The map that the head of a factor reads, in the weights' precision: at 1/8 for 2, at 1/16 for 4."""
        if factor == 4:
            return self._coarse(latents, q, QUARTER_BLOCKS)
        return self._upsampled(self._coarse(latents, q, len(self.coarse)))

    def means(self, latents: Tensor, factor: int = 1) -> Tensor:
        """The image of the block means at 1/factor of the size, float32."""
        return image_of_means(latents[:, :MEANS], factor)

    def _coarse(self, latents: Tensor, q: Tensor, blocks: int) -> Tensor:
        """The map at 1/16 behind so many blocks."""
        y, mean, index = torch.split(latents, self.latents, dim=1)
        dtype = self.stem.weight.dtype
        known = torch.cat([_less_dc(mean), index], dim=1).to(dtype)
        coarse = self.stem(_less_dc(y).to(dtype)) + self.prior(known)
        found: Tensor = self.coarse[:blocks](scale_by_level(coarse, self.log_rate.float(), q))
        return found

    def _upsampled(self, coarse: Tensor) -> Tensor:
        """The map at 1/16 -> that at 1/8."""
        return F.pixel_shuffle(self.up(coarse), 2)


def _grown(kept: slice, reach: int, length: int) -> slice:
    """`kept` and as much as `reach` more on both sides."""
    return slice(max(0, kept.start - reach), min(length, kept.stop + reach))


def _less_dc(y: Tensor) -> Tensor:
    """Block means at the size of the other latents."""
    return torch.cat([y[:, :MEANS] / BLOCK, y[:, MEANS:]], dim=1)
