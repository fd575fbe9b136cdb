"""Where cdc-lite starts from nothing: the whole codec as a hierarchical KLT of 16x16 blocks."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.entropy.likelihood import LEVELS_PER_NAT, SIGMA_MIN
from model.networks.lite import PATCH, PATCH_CHANNELS, CDCLite

SMALL = 0.1  # of the usual standard deviation: what is beside the linear path only breaks symmetry
SIGMA_OF_SPREAD = 0.6  # scales start below the spread of the coefficients, for most blocks are flatter than the mean


@torch.no_grad()
def start_as_klt(networks: CDCLite, images: Tensor) -> None:
    """Make encoder, conditioner and denoiser an orthonormal block transform and its inverse, in place.

    The linear path is the transform; residual branches are zero already. About 30 dB before the first step, where a
    random start needs thousands.

    Args:
        networks: freshly made.
        images: crops that the transform is fitted to, [B, 3, H, W] in [-1, 1], B at least 64.
    """
    w, k = networks.config.widths, networks.config.latents
    encoder, conditioner, denoiser = networks.encoder, networks.conditioner, networks.denoiser
    path = _linear_path(networks)
    for name, conv in networks.named_modules():
        if isinstance(conv, nn.Conv2d) and not name.startswith(("hyper", "context")) and not name.endswith("conv2"):
            fan_in = conv.in_channels * conv.kernel_size[0] * conv.kernel_size[1]
            conv.weight.normal_(std=(SMALL if conv in path else 1.0) * fan_in**-0.5)
            assert conv.bias is not None
            conv.bias.zero_()
    pixels = F.pixel_unshuffle(F.pixel_unshuffle(images, PATCH), 2)
    first = _principal(pixels, w[1])
    pairs = F.pixel_unshuffle(torch.einsum("kd,bdhw->bkhw", first, pixels), 2)
    second = _principal(pairs, w[2])
    spread = torch.einsum("kd,bdhw->bkhw", second, pairs).std((0, 2, 3))

    patch = torch.eye(PATCH_CHANNELS, device=images.device)
    encoder.stem.weight[:PATCH_CHANNELS] = 0
    encoder.stem.weight[:PATCH_CHANNELS, :, 1, 1] = patch
    _weight(encoder.down[0])[:, :PATCH_CHANNELS] = first.view(w[1], PATCH_CHANNELS, 2, 2)
    _weight(encoder.down[1])[:] = second.view(w[2], w[1], 2, 2)
    _pass_through(encoder.head, k, w[2])
    _pass_through(conditioner.stem, w[2], k)
    _weight(conditioner.up[0])[:, :, 0, 0] = second.T
    _weight(conditioner.up[1]).view(w[0], 4, w[1])[:PATCH_CHANNELS] = first.T.reshape(PATCH_CHANNELS, 4, w[1])
    inject = _weight(denoiser.inject[0])
    inject[:PATCH_CHANNELS, :, 0, 0] = 0
    inject[:PATCH_CHANNELS, :PATCH_CHANNELS, 0, 0] = patch
    _weight(denoiser.merge[0])[:, w[1] :, 0, 0] += torch.eye(w[1], device=images.device)
    merge = _weight(denoiser.merge[1])
    merge[:, w[0] :, 0, 0] += torch.eye(w[0], device=images.device)
    merge[:PATCH_CHANNELS] = 0
    merge[:PATCH_CHANNELS, w[0] : w[0] + PATCH_CHANNELS, 0, 0] = patch
    denoiser.head.weight[:] = 0
    denoiser.head.weight[:, :PATCH_CHANNELS, 1, 1] = patch
    denoiser.stem.weight[:PATCH_CHANNELS] = 0

    last = networks.hyper_decoder[4]
    assert isinstance(last, nn.Conv2d)
    assert last.bias is not None
    last.weight.mul_(SMALL)
    last.bias.zero_()
    last.bias[k:] = (torch.log(spread[:k] * SIGMA_OF_SPREAD) - math.log(SIGMA_MIN)) * LEVELS_PER_NAT


def _linear_path(networks: CDCLite) -> list[nn.Conv2d]:
    encoder, conditioner, denoiser = networks.encoder, networks.conditioner, networks.denoiser
    single = [encoder.stem, encoder.head, conditioner.stem, denoiser.stem, denoiser.head]
    listed = [*encoder.down, *conditioner.up, *denoiser.merge]
    return [conv for conv in (*single, *listed) if isinstance(conv, nn.Conv2d)]


def _weight(module: nn.Module) -> Tensor:
    assert isinstance(module, nn.Conv2d)
    return module.weight


def _pass_through(conv: nn.Conv2d, rows: int, columns: int) -> None:
    """Let channels through unchanged: the identity at the kernel's centre."""
    conv.weight[:] = 0
    conv.weight[:, :, 1, 1] = torch.eye(rows, columns, device=conv.weight.device)


def _principal(maps: Tensor, count: int) -> Tensor:
    """maps [B, D, h, w] -> the leading eigenvectors of their second moment, [count, D]."""
    vectors = maps.permute(1, 0, 2, 3).flatten(1)
    moment = (vectors @ vectors.T).double() / vectors.shape[1]
    leading: Tensor = torch.linalg.eigh(moment)[1].flip(1)[:, :count].T.float()
    return leading
