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
from model.training.heads import pictures
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
        InvalidParameter: another family, or no images.
    """
    networks = codec.networks
    if not isinstance(networks, CDCLite):
        raise InvalidParameter(f"model {codec.info.name!r} samples no residual")
    latents = [(picture, codec.analyse(picture)) for picture in pictures(data, images, SIDE)]
    if not latents:
        raise InvalidParameter("no images to fit to")
    levels = networks.config.levels
    log_residual = networks.log_residual.detach().clone()
    for level in range(levels):
        files = [(picture, codec.pack(latent, round(255 * level / (levels - 1)))) for picture, latent in latents]
        bands = [[_fine(x) for x in (p, codec.decode(f, 1, 0.0), codec.decode(f, 1, 1.0))] for p, f in files]
        a = sum(float(base.square().sum()) for _, base, _ in bands)
        b = sum(float((base * (sample - base)).sum()) for _, base, sample in bands)
        c = sum(float((sample - base).square().sum()) for _, base, sample in bands)
        wanted = energy * sum(float(own.square().sum()) for own, _, _ in bands)
        root = (math.sqrt(b * b + c * (wanted - a)) - b) / c if wanted > a and c > 0 else 0.0
        log_residual[level] += math.log(float(np.clip(root, *LIMITS)))
    return log_residual


def _fine(pixels: Pixels) -> Tensor:
    """The finest octave's bands of uint8 [H, W, 3]."""
    return haar(torch.from_numpy(np.array(pixels)).permute(2, 0, 1)[None].double())[1]
