"""From float layers to integer ones, when weights are exported, and back, when a weights file is read.

The way back is exact: a second export of what it gives makes the same integers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from model.entropy.context_head import ContextHead
from model.entropy.hyper_decoder import (
    ACTIVATION_BITS,
    ACTIVATION_LIMIT,
    CONTEXT_BITS,
    FINE_BITS,
    FINE_LIMIT,
    MEAN_BITS,
    OUTPUT_LIMIT,
    SCALE_BITS,
    SIGMA_BITS,
    WEIGHT_LIMIT,
    Z_BITS,
    IntegerHyperDecoder,
    IntegerLayer,
)
from model.entropy.likelihood import LEVELS_PER_NAT, SIGMA_LEVELS, sigma_of_index
from model.entropy.passes import INDEX_STEP
from model.errors import WeightsError

# The layers of one context network: near, point, mix and head of `model.networks.context.ContextPass`.
ContextLayers = tuple[nn.Conv2d, nn.Conv2d, nn.Conv2d, nn.Conv2d]


def export_head(decoder: nn.Sequential, log_gain: Tensor | None, *, with_context: bool = False) -> IntegerHyperDecoder:
    """Turn a float hyper-decoder into integers: cdc-lite's with its gain table, the paper's with thresholds of sigma.

    Args:
        decoder: two transposed convolutions 5x5 of stride 2, each followed by ReLU (cdc-lite) or LeakyReLU 0.2, then a
            3x3 or 1x1 convolution to 2 M.
        log_gain: g [256, M] at each rate byte; None for a decoder that emits sigma.
        with_context: a context model corrects its means, which are emitted finer.

    Raises:
        WeightsError: a sum could leave the exact range.
    """
    convolutions = [m for m in decoder if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    layers: list[IntegerLayer] = []
    fraction = Z_BITS
    for conv in convolutions[:-1]:
        bits = np.full(conv.out_channels, ACTIVATION_BITS)
        layer = _quantise(*_of(conv), fraction, bits, relu=log_gain is not None, limit=ACTIVATION_LIMIT)
        layers.append(replace(layer, leaky=log_gain is None))
        fraction = ACTIVATION_BITS
    final = convolutions[-1]
    scale_bits = SCALE_BITS if log_gain is not None else SIGMA_BITS
    bits = np.repeat([FINE_BITS if with_context else MEAN_BITS, scale_bits], final.out_channels // 2)
    limit = FINE_LIMIT if with_context else OUTPUT_LIMIT
    layers.append(_quantise(*_of(final), fraction, bits, relu=False, limit=limit))
    if log_gain is None:
        return IntegerHyperDecoder(tuple(layers), thresholds=thresholds())
    table = torch.round(log_gain.detach().double() * LEVELS_PER_NAT * (1 << SCALE_BITS))
    return IntegerHyperDecoder(tuple(layers), table.to(torch.int32).numpy())


def thresholds() -> npt.NDArray[np.int32]:
    """The geometric midpoints between neighbouring levels of sigma, in 1/4096, int32 [63]."""
    midpoints = sigma_of_index(torch.arange(SIGMA_LEVELS - 1, dtype=torch.float64) + 0.5)
    return torch.round(midpoints * (1 << SIGMA_BITS)).to(torch.int32).numpy()


def export_context(nets: Sequence[ContextLayers]) -> ContextHead:
    """Turn the networks of a context model into integers. Raises WeightsError as `export_head`."""
    heads: list[tuple[IntegerLayer, ...]] = []
    for near, point, mix, last in nets:
        joined = torch.cat([near.weight.flatten(1), point.weight.flatten(1)], dim=1)
        outputs = last.out_channels // 2
        factor = torch.ones(2 * outputs, 1).index_fill_(0, torch.arange(outputs, 2 * outputs), INDEX_STEP)
        weight, bias = _of(last)
        inner = np.full(mix.out_channels, ACTIVATION_BITS)
        final = np.repeat([FINE_BITS, SCALE_BITS], outputs)
        heads.append(
            (
                _quantise(joined, _of(near)[1], CONTEXT_BITS, inner, relu=True, limit=ACTIVATION_LIMIT),
                _quantise(
                    mix.weight.flatten(1), _of(mix)[1], ACTIVATION_BITS, inner, relu=True, limit=ACTIVATION_LIMIT
                ),
                _quantise(
                    weight.flatten(1) * factor,
                    bias * factor[:, 0],
                    ACTIVATION_BITS,
                    final,
                    relu=False,
                    limit=FINE_LIMIT,
                ),
            )
        )
    groups = [nets[0][3].out_channels // 2, *(last.out_channels // 2 for *_, last in nets[1::2])]
    features = nets[0][1].in_channels - 1  # the other one is the rate
    return ContextHead(np.array(groups, dtype=np.int32), features, tuple(heads))


def float_head(head: IntegerHyperDecoder, *, with_context: bool) -> dict[str, Tensor]:
    """The float layers whose export `head` is, by their names in cdc-lite's hyper_decoder."""
    found: dict[str, Tensor] = {}
    input_bits = [Z_BITS] + [ACTIVATION_BITS] * (len(head.layers) - 1)
    output_bits = [ACTIVATION_BITS] * (len(head.layers) - 1) + [FINE_BITS if with_context else MEAN_BITS]
    for number, (layer, before, after) in enumerate(zip(head.layers, input_bits, output_bits, strict=True)):
        weight, bias = _floats(layer, before, after)
        found |= {f"{2 * number}.weight": weight, f"{2 * number}.bias": bias}
    return found


def float_context(context: ContextHead) -> dict[str, Tensor]:
    """The float layers whose export `context` is, by their names in `model.networks.context.ContextModel`."""
    found: dict[str, Tensor] = {}
    for number, (part, (first, mix, last)) in enumerate(zip(context.passes[1:], context.nets, strict=True)):
        name = f"nets.{number}."
        weight, bias = _floats(first, CONTEXT_BITS, ACTIVATION_BITS)
        near, point = weight[:, : 9 * part.known], weight[:, 9 * part.known :]
        found |= {name + "near.weight": near.reshape(len(near), -1, 3, 3), name + "near.bias": bias}
        found[name + "point.weight"] = point[:, :, None, None].contiguous()
        weight, bias = _floats(mix, ACTIVATION_BITS, ACTIVATION_BITS)
        found |= {name + "mix.weight": weight[:, :, None, None], name + "mix.bias": bias}
        weight, bias = _floats(last, ACTIVATION_BITS, FINE_BITS)
        weight[part.stop - part.start :] /= INDEX_STEP
        bias[part.stop - part.start :] /= INDEX_STEP
        found |= {name + "head.weight": weight[:, :, None, None], name + "head.bias": bias}
    return found


def _of(conv: nn.Conv2d | nn.ConvTranspose2d) -> tuple[Tensor, Tensor]:
    if conv.bias is None:
        raise WeightsError("integer hyper-decoder: every layer needs a bias")
    return conv.weight, conv.bias


def _quantise(
    weight: Tensor,
    bias: Tensor,
    input_bits: int,
    output_bits: npt.NDArray[np.int64],
    *,
    relu: bool,
    limit: int,
) -> IntegerLayer:
    """Round a layer's weights to int16 with the finest power-of-two step, at most 2**-16."""
    weight = weight.detach().double()
    largest = max(float(weight.abs().max()), 0.25)
    weight_bits = int(np.floor(np.log2(WEIGHT_LIMIT / largest)))
    kernel = torch.round(weight * 2.0**weight_bits).to(torch.int16).numpy()
    integer_bias = torch.round(bias.detach().double() * 2.0 ** (weight_bits + input_bits)).to(torch.int64).numpy()
    shift = (weight_bits + input_bits - output_bits).astype(np.int64)
    return IntegerLayer(kernel, integer_bias, shift, relu, limit)


def _floats(layer: IntegerLayer, input_bits: int, output_bits: int) -> tuple[Tensor, Tensor]:
    """Weight and bias, float32, of a layer whose first output has `output_bits` of fraction."""
    weight_bits = int(layer.shift[0]) + output_bits - input_bits
    weight = np.ldexp(layer.kernel.astype(np.float64), -weight_bits)
    bias = np.ldexp(layer.bias.astype(np.float64), -(weight_bits + input_bits))
    return torch.from_numpy(weight).float(), torch.from_numpy(bias).float()
