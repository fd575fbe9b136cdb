"""Ideal code lengths of an image: what a perfect coder under a probability model would spend."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from model.codec import Codec
from model.entropy.likelihood import LEVELS_PER_NAT, SIGMA_LEVELS, SIGMA_MIN, gaussian_bits, sigma_of_index
from model.entropy.passes import Pass
from model.entropy.tables import COUNT_BITS, Tables
from model.networks.family import interpolate_levels
from model.types import Latents, Quantised


@dataclass(frozen=True)
class CodeLength:
    """Bits of one image at one rate.

    Attributes:
        float_head: -log2 P of the float model: float hyper-decoder, means and scales not rounded.
        rounded_head: the same with means rounded to 1/16 and scale indices to integers, as training sees them.
        integer_head: -log2 P with the means and scale indices of the integer path.
        ideal: the same for the symbols that the encoder chose (`EntropyModel.quantise_latent`): the file's ideal.
        integer_tables: -log2 of the stored integer tables.
        coded: bits of the z and y sections as written.
    """

    float_head: float
    rounded_head: float
    integer_head: float
    ideal: float
    integer_tables: float
    coded: float


@torch.inference_mode()
def code_length(codec: Codec, latents: Latents, rate: int) -> CodeLength:
    """Measure an analysed image at a rate byte."""
    q = codec.quantise(latents, rate)
    q_of = torch.tensor([rate / 255])
    y = codec.networks.latent(latents.features[None], q_of)[0]
    medians = torch.from_numpy(codec.entropy.medians / 256.0).float()[:, None, None]
    z_hat = torch.from_numpy(q.hyper).float() + medians
    z_bits = float(codec.prior.bits(z_hat[None]).sum())
    mean, scale = _float_prior(codec, z_hat, q)
    if codec.architecture.fixed_rate:  # the head emits sigma
        index = torch.log(scale.clamp(min=SIGMA_MIN) / SIGMA_MIN) * LEVELS_PER_NAT
    else:
        index = scale + interpolate_levels(codec.networks.log_gain, q_of)[0, :, None, None] * LEVELS_PER_NAT
    index = index.clamp(0, SIGMA_LEVELS - 1)
    float_y = _latent_bits(y - mean, sigma_of_index(index))
    rounded_y = _latent_bits(y - torch.round(16 * mean) / 16, sigma_of_index(torch.round(index)))
    sigma = sigma_of_index(q.indices.float())
    integer_y = _latent_bits(y - q.mean, sigma)
    chosen_y = float(gaussian_bits(torch.from_numpy(q.latent).float(), sigma).double().sum())
    channels = np.repeat(np.arange(len(codec.entropy.medians)), q.hyper[0].size)
    tables = _table_bits(codec.entropy.hyper_tables, q.hyper.ravel(), channels)
    tables += _table_bits(codec.entropy.latent_tables, q.latent.ravel(), q.indices.numpy().ravel())
    streams = codec.entropy.encode_hyper(q.hyper), codec.entropy.encode_latent(q.latent, q.indices)
    return CodeLength(
        float_head=z_bits + float_y,
        rounded_head=z_bits + rounded_y,
        integer_head=z_bits + integer_y,
        ideal=z_bits + chosen_y,
        integer_tables=tables,
        coded=8.0 * sum(map(len, streams)),
    )


def _float_prior(codec: Codec, z_hat: torch.Tensor, q: Quantised) -> tuple[torch.Tensor, torch.Tensor]:
    """Means and scale numbers [M, h, w] of the float networks, where the context is what a decoder of the file sees."""
    y_hat = q.y_hat[None]

    def sent(part: Pass, mask: torch.Tensor, mean: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return y_hat[:, part.start : part.stop]

    means, scales = codec.networks.prior(z_hat[None], torch.tensor([q.rate / 255]), sent)
    return means[0], scales[0]


def _latent_bits(residual: torch.Tensor, sigma: torch.Tensor) -> float:
    """Bits of plain rounding, so that heads are compared at the same symbols' distortion."""
    return float(gaussian_bits(torch.round(residual), sigma).double().sum())


def _table_bits(tables: Tables, symbols: np.ndarray, groups: np.ndarray) -> float:  # type: ignore[type-arg]
    """-log2 of the counts of each symbol; an escaped one costs its escape entry and its varint."""
    starts = np.concatenate([[0], np.cumsum(tables.sizes)[:-1]])[groups]
    last = tables.sizes[groups] - 1
    entry = symbols.astype(np.int64) - tables.lowest[groups]
    outside = (entry < 0) | (entry >= last)
    excess = np.where(entry < 0, 2 * (-1 - entry) + 1, 2 * (entry - last))[outside]
    counts = tables.counts[starts + np.where(outside, last, entry)]
    varints = 8 * (1 + (excess >= 1 << 7) + (excess >= 1 << 14)).sum()
    return float(-np.log2(counts / 2.0**COUNT_BITS).sum() + varints)
