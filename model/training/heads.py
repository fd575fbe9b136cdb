"""Least squares for the layers that decode at 1/2 and 1/4 of the size: `cdc weights heads`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from model.codec import Codec
from model.config import HYPER_STRIDE, RATES
from model.errors import InvalidParameter
from model.networks.lite import CDCLite
from model.networks.transforms import HEAD_SIDE
from model.sources import open_sources, read_frame
from model.types import Pixels

RIDGE = 1e-6  # of the mean of the diagonal: what keeps inputs that hardly vary out
MOST_SIDE = 512  # of the part of an image that is looked at, in pixels
FACTORS = (2, 4)


def fit_heads(codec: Codec, data: Sequence[Path], images: int) -> dict[str, Tensor]:
    """Fit both layers to x_base averaged over squares, each image at one rate drawn at random.

    Args:
        codec: cdc-lite, float32.
        data: sources of images.
        images: how many images are looked at.

    Returns:
        What `SynthesisTransform.add_heads` takes.

    Raises:
        InvalidParameter: another family, or no images.
    """
    networks = codec.networks
    if not isinstance(networks, CDCLite):
        raise InvalidParameter(f"model {codec.info.name!r} has no layers of this kind")
    moments: dict[int, tuple[Tensor, Tensor]] = {}
    rng = np.random.default_rng(0)
    for pixels in spread_images(data, images, MOST_SIDE):
        rate = int(rng.choice(RATES))
        for factor, (inputs, targets) in _samples(codec, networks, pixels, rate).items():
            seen = (inputs.T @ inputs).double(), (inputs.T @ targets).double()
            known = moments.get(factor)
            moments[factor] = seen if known is None else (known[0] + seen[0], known[1] + seen[1])
    tensors: dict[str, Tensor] = {}
    for factor, (second, cross) in moments.items():
        ridge = RIDGE * second.diagonal().mean() * torch.eye(len(second), dtype=second.dtype)
        solved = torch.linalg.solve(second + ridge, cross).T.float()
        tensors[f"{factor}.weight"] = solved[:, :-1].reshape(len(solved), -1, 3, 3).contiguous()
        tensors[f"{factor}.bias"] = solved[:, -1].contiguous()
    return tensors


def spread_images(data: Sequence[Path], count: int, side: int) -> Iterator[Pixels]:
    """uint8 [H, W, 3] of images spread over the sources: their centres, multiples of 64 pixels, at most `side`.

    Raises:
        InvalidParameter: no image has 64 pixels a side.
    """
    clips = [clip for source in open_sources(data) for clip in source.clips]
    found = False
    for clip in clips[:: max(1, len(clips) // count)][:count]:
        pixels = read_frame(clip)
        height, width = (min(n, side) // HYPER_STRIDE * HYPER_STRIDE for n in pixels.shape[:2])
        if height and width:
            found = True
            top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
            yield np.ascontiguousarray(pixels[top : top + height, left : left + width])
    if not found:
        raise InvalidParameter(f"no image of at least {HYPER_STRIDE}x{HYPER_STRIDE} pixels to fit to")


@torch.inference_mode()
def _samples(codec: Codec, networks: CDCLite, pixels: Pixels, rate: int) -> dict[int, tuple[Tensor, Tensor]]:
    """By the factor: what the layer sees at each position, and what it should give there."""
    state = codec.start(codec.unpack(codec.pack(codec.analyse(pixels), rate)), 1, 0.0)
    assert state.latents is not None
    height, width = pixels.shape[:2]
    latents = state.latents[None, :, : height // 16, : width // 16]
    q = torch.tensor([rate / 255])
    rest, _ = networks.g_s(latents, q)
    rest = rest - networks.g_s.means(latents)
    found = {}
    for factor in FACTORS:
        windows = F.unfold(networks.g_s.head_input(latents, q, factor), 3, padding=1)[0].T
        inputs = torch.cat([windows, torch.ones(len(windows), 1)], dim=1)
        patches = F.pixel_unshuffle(F.avg_pool2d(rest, factor), HEAD_SIDE)
        found[factor] = inputs, patches[0].flatten(1).T
    return found
