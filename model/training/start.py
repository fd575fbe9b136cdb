"""Where cdc-lite starts from nothing: a KLT of 16x16 blocks and its inverse."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.entropy.likelihood import LEVELS_PER_NAT, SIGMA_MIN
from model.networks.depthwise import split_means
from model.networks.lite import CDCLite
from model.networks.transforms import MEANS, PATCH

SMALL = 0.02  # of the usual standard deviation: what is beside the linear path only breaks symmetry
SIGMA_OF_SPREAD = 0.6  # scales start below the spread of the coefficients, for most blocks are flatter than the mean
FINER = 0.35  # of a nat that steps start below what theory has them: other coefficients are zero, but not their noise
SHRINK = (-0.4, -0.02)  # logarithm of what the decoder multiplies coefficients by at the lowest and the highest rate
HYPER_SMALL = 0.1  # else z costs more than y for the first hours


@torch.no_grad()
def start_as_klt(networks: CDCLite, images: Tensor) -> None:
    """Make g_a an orthonormal block transform and g_s its inverse, in place; residual branches are zero already.

    About 30 dB before the first step, where a random start needs thousands.

    Args:
        networks: freshly made.
        images: crops that the transform is fitted to, [B, 3, H, W] in [-1, 1], B at least 64.
    """
    a, s, m = networks.g_a, networks.g_s, networks.latents
    for conv in (a.stem, a.down, a.head, s.stem, s.up, s.head):
        conv.weight.zero_()
        assert conv.bias is not None
        conv.bias.zero_()
    for conv in (a.stem, s.head):
        _pass_through(conv, 0)
    for conv in (a.head, s.stem):
        _pass_through(conv, MEANS)
    means, rest = split_means(images)
    vectors = F.pixel_unshuffle(F.pixel_unshuffle(rest, PATCH), 2).permute(1, 0, 2, 3).flatten(1)
    moment = (vectors @ vectors.T).double() / vectors.shape[1]
    basis = torch.linalg.eigh(moment)[1].flip(1).float()[:, : m - MEANS]
    a.down.weight[MEANS:, :, 0, 0] = basis.T
    s.up.weight[:, MEANS:, 0, 0] = basis
    for part in (a.down.weight[:MEANS], s.up.weight[:, :MEANS], s.stem.weight[:MEANS], a.head.weight[:MEANS]):
        part.normal_(std=SMALL * part[0].numel() ** -0.5)
    spread = torch.cat([means.std((0, 2, 3)), (basis.T @ vectors).std(1)])

    last = networks.hyper_decoder[-1]
    assert isinstance(last, nn.Conv2d)
    assert last.bias is not None
    last.weight.mul_(0.1)
    last.bias.zero_()
    last.bias[m:] = (torch.log(spread * SIGMA_OF_SPREAD) - math.log(SIGMA_MIN)) * LEVELS_PER_NAT
    hyper = networks.hyper_encoder[-1]
    assert isinstance(hyper, nn.Conv2d)
    assert hyper.bias is not None
    hyper.weight.mul_(HYPER_SMALL)
    hyper.bias.zero_()
    networks.log_gain.sub_(FINER)
    networks.log_shrink[:, MEANS:] = torch.linspace(*SHRINK, networks.config.levels)[:, None]


def _pass_through(conv: nn.Conv2d, first: int) -> None:
    """Let channels from `first` on through unchanged."""
    count = min(conv.weight.shape[:2])
    for channel in range(first, count):
        conv.weight[channel, channel] = 1
