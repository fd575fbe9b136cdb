"""All integers that give the symbols of a file their meaning, and the codec id that names them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from model.entropy.coder import SYMBOL_LIMIT, SymbolCoder, Symbols
from model.entropy.likelihood import LITE_LEVELS, PAPER_LEVELS, FactorizedPrior
from model.entropy.scale_head import (
    ACTIVATION_LIMIT,
    LEAK,
    LEAK_BITS,
    MEAN_BITS,
    OUTPUT_LIMIT,
    SCALE_BITS,
    SIGMA_BITS,
    Z_BITS,
    Z_LIMIT,
    IntegerLayer,
    ScaleHead,
    export_head,
)
from model.entropy.tables import COUNT_BITS, Tables, gaussian_tables, prior_tables
from model.errors import WeightsError

# Everything about coder and layout that is code and not a table; a change of meaning needs a new text here.
LAYOUT = (
    "constriction range coder, 32-bit words, 24-bit fast categorical from float64 counts; groups ascending, raster "
    f"order; escapes as varints; counts 2^{COUNT_BITS}, symbols to {SYMBOL_LIMIT}, z/2^{Z_BITS} to {Z_LIMIT}, "
    f"mean/2^{MEAN_BITS}, scale/2^{SCALE_BITS}; stride 16 and 64; sections 1 and 2"
)
LEAKY_LAYOUT = f"; leaky relu {LEAK}/2^{LEAK_BITS}, scale index by thresholds of sigma/2^{SIGMA_BITS}"
LAYERS = 3
RDO = 0.04  # squared error in quantisation steps that a saved bit is worth; chosen on validation images


@dataclass(frozen=True)
class EntropyModel:
    """The integer half of a model.

    Attributes:
        hyper_tables: tables of z, one a channel.
        latent_tables: tables of y - mean, one a scale index.
        medians: int32 [C], medians of z in 1/256.
        head: z_hat -> means and scale indices.
    """

    hyper_tables: Tables
    latent_tables: Tables
    medians: npt.NDArray[np.int32]
    head: ScaleHead

    @cached_property
    def codec_id(self) -> bytes:
        """First 8 bytes of the SHA-256 over all tensors here, in a fixed order, and the layout."""
        layout = LAYOUT if self.head.thresholds is None else LAYOUT + LEAKY_LAYOUT
        digest = hashlib.sha256(layout.encode())
        for name, array in sorted(self.to_tensors().items()):
            little = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"))
            digest.update(f"\n{name} {array.dtype.name} {array.shape}\n".encode())
            digest.update(little.tobytes())
        return digest.digest()[:8]

    @cached_property
    def _hyper_coder(self) -> SymbolCoder:
        return SymbolCoder(self.hyper_tables)

    @cached_property
    def _latent_coder(self) -> SymbolCoder:
        return SymbolCoder(self.latent_tables)

    def quantise_hyper(self, z: Tensor) -> Symbols:
        """z float [C, h, w] -> symbols round(z - median), int32 [C, h, w]."""
        medians = torch.from_numpy(self.medians / 2.0**Z_BITS).float()[:, None, None]
        symbols = torch.round(z.cpu().float() - medians).clamp(-SYMBOL_LIMIT, SYMBOL_LIMIT)
        return symbols.to(torch.int32).numpy()

    def parameters(self, hyper: Symbols, rate: int) -> tuple[Tensor, Tensor]:
        """Symbols of z [C, h, w] and the rate byte -> means in 1/16 int32 and scale indices uint8, [M, 4h, 4w]."""
        z256 = (hyper.astype(np.int64) << Z_BITS) + self.medians.astype(np.int64)[:, None, None]
        return self.head(torch.from_numpy(z256), rate)

    def round_latent(self, residual: Tensor) -> Symbols:
        """y - mean, float32 [M, h, w] -> the nearest integers, int32 [M, h, w]: the symbols of the paper."""
        return residual.round().clamp(-SYMBOL_LIMIT, SYMBOL_LIMIT).to(torch.int32).numpy()

    def quantise_latent(self, residual: Tensor, indices: Tensor) -> Symbols:
        """y - mean, float32 [M, h, w], and its scale indices -> symbols, int32 [M, h, w].

        Rate-distortion optimised: the nearest integer, or the next one towards zero where its (r - k)^2 + RDO * bits is
        smaller. An encoder's choice alone: any symbols decode.
        """
        r, groups = residual.numpy(), indices.numpy()
        nearest = np.round(r).clip(-SYMBOL_LIMIT, SYMBOL_LIMIT)
        smaller = nearest - np.sign(nearest)
        saved = self._latent_coder.bits(nearest, groups) - self._latent_coder.bits(smaller, groups)
        worse = np.square(r - smaller) - np.square(r - nearest)
        return np.where(worse < RDO * saved, smaller, nearest).astype(np.int32)

    def encode_hyper(self, hyper: Symbols) -> bytes:
        """Return the stream of the symbols of z, int32 [C, h, w]."""
        return self._hyper_coder.encode(hyper.ravel(), self._channels(hyper.shape))

    def decode_hyper(self, stream: bytes, height: int, width: int) -> Symbols:
        """Return the symbols of z, int32 [C, height, width]. Raises CorruptStream."""
        shape = (len(self.medians), height, width)
        return self._hyper_coder.decode(stream, self._channels(shape)).reshape(shape)

    def encode_latent(self, latent: Symbols, indices: Tensor) -> bytes:
        """Return the stream of the symbols of y, int32 [M, h, w], under scale indices of the same shape."""
        return self._latent_coder.encode(latent.ravel(), indices.numpy().ravel())

    def decode_latent(self, stream: bytes, indices: Tensor) -> Symbols:
        """Return the symbols of y, int32, in the shape of `indices`. Raises CorruptStream."""
        return self._latent_coder.decode(stream, indices.numpy().ravel()).reshape(tuple(indices.shape))

    def _channels(self, shape: tuple[int, ...]) -> npt.NDArray[np.uint16]:
        return np.repeat(np.arange(shape[0], dtype=np.uint16), shape[1] * shape[2])

    def to_tensors(self) -> dict[str, npt.NDArray[Any]]:
        """Return all arrays by the names they have in a weights file, without prefix."""
        tensors: dict[str, npt.NDArray[Any]] = {
            "medians": self.medians,
        }
        if self.head.gain_to_index is not None:
            tensors["gain_to_index"] = self.head.gain_to_index
        if self.head.thresholds is not None:
            tensors["thresholds"] = self.head.thresholds
        for name, tables in (("hyper", self.hyper_tables), ("latent", self.latent_tables)):
            tensors |= {f"{name}.lowest": tables.lowest, f"{name}.sizes": tables.sizes, f"{name}.counts": tables.counts}
        for i, layer in enumerate(self.head.layers):
            tensors |= {f"head.{i}.kernel": layer.kernel, f"head.{i}.bias": layer.bias, f"head.{i}.shift": layer.shift}
        return tensors

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, npt.NDArray[Any]]) -> EntropyModel:
        """Build from what `to_tensors` gave.

        Raises:
            WeightsError: a tensor is missing or breaks a bound.
        """
        leaky = "thresholds" in tensors
        try:
            layers = tuple(
                IntegerLayer(
                    kernel=tensors[f"head.{i}.kernel"],
                    bias=tensors[f"head.{i}.bias"],
                    shift=tensors[f"head.{i}.shift"],
                    relu=i < LAYERS - 1 and not leaky,
                    limit=ACTIVATION_LIMIT if i < LAYERS - 1 else OUTPUT_LIMIT,
                    leaky=i < LAYERS - 1 and leaky,
                )
                for i in range(LAYERS)
            )
            hyper, latent = (
                Tables(tensors[f"{n}.lowest"], tensors[f"{n}.sizes"], tensors[f"{n}.counts"])
                for n in ("hyper", "latent")
            )
            rule = "thresholds" if leaky else "gain_to_index"
            return cls(hyper, latent, tensors["medians"], ScaleHead(layers, **{rule: tensors[rule]}))
        except KeyError as error:
            raise WeightsError(f"the weights file lacks the integer tensor {error}") from error


def export_entropy_model(prior: FactorizedPrior, hyper_decoder: nn.Sequential, log_gain: Tensor | None) -> EntropyModel:
    """Make the integer half from float weights. Needs no calibration set.

    `log_gain` is g [256, M] at each rate byte; None for the paper's networks, which have one rate and emit sigma.

    Raises:
        WeightsError: a bound of the exact range does not hold.
    """
    medians = torch.round(prior.medians.double() * (1 << Z_BITS))
    tables = prior_tables(prior, medians / (1 << Z_BITS))
    head = export_head(hyper_decoder, log_gain)
    levels = PAPER_LEVELS if log_gain is None else LITE_LEVELS
    return EntropyModel(tables, gaussian_tables(levels), medians.to(torch.int32).numpy(), head)
