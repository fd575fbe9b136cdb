"""How far gamma 1 goes: the size of what is sampled, for grain as strong as asked (`cdc weights strength`)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from model.codec import Codec
from model.errors import InvalidParameter
from model.networks.lite import CDCLite
from model.training.heads import spread_images
from model.training.sampler import haar
from model.types import Pixels

SIDE = 256  # of the part of an image that is looked at, in pixels
LIMITS = (0.75, 1.25)  # of the factor: a sampler that is further off should be trained


def fit_strength(codec: Codec, data: Sequence[Path], images: int, energy: float) -> Tensor:
    """`log_residual` [levels, 1] with which one-step samples at gamma 1 have that share of the originals' fine energy.

    The energy of x_base + s d is a quadratic function of s, whose root is the factor; levels where x_base alone has
    more than is asked for get the least factor.

    Args:
        codec: cdc-lite, float32.
        data: sources of images.
        images: how many images are looked at.
        energy: share of the finest octave's energy.

    Raises:
        InvalidParameter: another family, no images, or a sampler that adds nothing.
    """
    networks = codec.networks
    if not isinstance(networks, CDCLite):
        raise InvalidParameter(f"model {codec.info.name!r} samples no residual")
    latents = [(image, codec.analyse(image)) for image in spread_images(data, images, SIDE)]
    levels = networks.config.levels
    log_residual = networks.log_residual.detach().clone()
    for level in range(levels):
        a, b, c, wanted = 0.0, 0.0, 0.0, 0.0
        for image, latent in latents:
            file = codec.pack(latent, round(255 * level / (levels - 1)))
            base, sample = (_fine(codec.decode(file, 1, gamma)) for gamma in (0.0, 1.0))
            d = sample - base
            a, b, c = a + float(base.square().sum()), b + float((base * d).sum()), c + float(d.square().sum())
            wanted += energy * float(_fine(image).square().sum())
        if c == 0:
            raise InvalidParameter("this sampler adds nothing: there is no strength to set")
        root = (math.sqrt(b * b + c * (wanted - a)) - b) / c if wanted > a else 0.0
        log_residual[level] += math.log(float(np.clip(root, *LIMITS)))
    return log_residual


def _fine(image: Pixels) -> Tensor:
    """uint8 [H, W, 3] -> the finest octave's three bands, float64 [1, 9, H/2, W/2]."""
    return haar(torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].double())[1]
