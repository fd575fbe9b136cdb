"""An entropy model from float networks, and their layers from an entropy model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from model.entropy.entropy_model import EntropyModel
from model.entropy.export_layers import ContextLayers, export_context, export_head, float_context, float_head
from model.entropy.hyper_decoder import Z_BITS
from model.entropy.likelihood import FactorizedPrior
from model.entropy.tables import gaussian_tables, prior_tables


def export_entropy_model(
    prior: FactorizedPrior,
    hyper_decoder: nn.Sequential,
    log_gain: Tensor | None,
    context: Sequence[ContextLayers] | None = None,
    silent: int = 0,
    *,
    float_means: bool = False,
) -> EntropyModel:
    """Make the integer half from float weights. Needs no calibration set.

    `log_gain` is g [256, M] at each rate byte; None for the paper's networks, which have one rate and emit sigma.
    `context` are the layers of the context model's networks, None for a model without; `silent` is how
    many of the lowest scale indices are not coded.

    Raises:
        WeightsError: a bound of the exact range does not hold.
    """
    medians = torch.round(prior.medians.double() * (1 << Z_BITS))
    tables = prior_tables(prior, medians / (1 << Z_BITS))
    head = export_head(hyper_decoder, log_gain, with_context=bool(context))
    corrections = export_context(context) if context else None
    medians = medians.to(torch.int32)
    return EntropyModel(tables, gaussian_tables(), medians.numpy(), head, corrections, silent, float_means)


def float_layers(model: EntropyModel) -> dict[str, Tensor]:
    """Float layers of cdc-lite whose export the model is, by their names there: hyper_decoder and context.

    A later export of them gives the same integers.
    """
    found = {
        f"hyper_decoder.{name}": tensor
        for name, tensor in float_head(model.head, with_context=model.context is not None).items()
    }
    if model.context is not None:
        found |= {f"context.{name}": tensor for name, tensor in float_context(model.context).items()}
    return found
