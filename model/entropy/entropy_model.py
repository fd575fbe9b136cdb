"""All integers that give the symbols of a file their meaning, and the codec id that names them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model.entropy.coder import SYMBOL_LIMIT, SymbolCoder, Symbols
from model.entropy.context_head import LAYERS as CONTEXT_LAYERS
from model.entropy.context_head import ContextHead, Part, Take, half_of, predict
from model.entropy.hyper_decoder import (
    ACTIVATION_LIMIT,
    CONTEXT_BITS,
    FINE_BITS,
    FINE_LIMIT,
    LEAK,
    LEAK_BITS,
    MEAN_BITS,
    OUTPUT_LIMIT,
    SCALE_BITS,
    SIGMA_BITS,
    Z_BITS,
    Z_LIMIT,
    IntegerHyperDecoder,
    IntegerLayer,
)
from model.entropy.likelihood import SIGMA_LEVELS
from model.entropy.passes import LATENT_BITS
from model.entropy.tables import COUNT_BITS, Tables
from model.errors import WeightsError

# Everything about coder and layout that is code and not a table; a change of meaning needs a new text here.
LAYOUT = (
    "constriction range coder, 32-bit words, 24-bit fast categorical from float64 counts; groups ascending, raster "
    f"order; escapes as varints; counts 2^{COUNT_BITS}, symbols to {SYMBOL_LIMIT}, z/2^{Z_BITS} to {Z_LIMIT}, "
    f"mean/2^{MEAN_BITS}, scale/2^{SCALE_BITS}; stride 16 and 64; sections 1 and 2"
)
LEAKY_LAYOUT = f"; leaky relu {LEAK}/2^{LEAK_BITS}, scale index by thresholds of sigma/2^{SIGMA_BITS}"
CONTEXT_LAYOUT = (
    "; context: channel groups, even then odd row + column, a part a pass; windows before features before rate; "
    f"latents/2^{LATENT_BITS}, features and rate in 2^-{CONTEXT_BITS}, relu, relu, corrections of means in "
    f"2^-{FINE_BITS} and of scales; limits {ACTIVATION_LIMIT} inside, {FINE_LIMIT} of sums, {OUTPUT_LIMIT} of means; "
    "rate / 255 to the nearest"
)
FLOAT_MEANS_LAYOUT = "; means in float, which symbols are relative to and scale indices are not"
SILENT_LAYOUT = "; symbols of scale indices below silent are zero and not coded"
LAYERS = 3
RDO = 0.04  # squared error in quantisation steps that a saved bit is worth; chosen on validation images


@dataclass(frozen=True)
class EntropyModel:
    """The integer half of a model.

    Attributes:
        hyper_tables: tables of z, one a channel.
        latent_tables: tables of y - mean, one a scale index.
        medians: int32 [C], medians of z in 1/256.
        head: z_hat -> means and scale numbers.
        context: corrects them by what is decoded already; None for models without.
        silent: symbols of scale indices below it are zero and not coded; needs a context.
        float_means: y_hat is symbols plus the means of the float hyper-decoder, as in the paper's code. Symbols are
            decoded by scale indices alone, so they are the same everywhere still; excludes a context.
    """

    hyper_tables: Tables
    latent_tables: Tables
    medians: npt.NDArray[np.int32]
    head: IntegerHyperDecoder
    context: ContextHead | None = None
    silent: int = 0
    float_means: bool = False

    def __post_init__(self) -> None:
        """Raises WeightsError where the parts do not fit together."""
        sizes = {self.medians.size, len(self.hyper_tables.sizes), self.head.layers[0].inputs}
        if len(sizes) > 1:
            raise WeightsError("the tables, medians and head differ in the channels of z")
        if self.context is not None and int(self.context.groups.sum()) != self.head.latents:
            raise WeightsError("context model: its groups are not the latents")
        if self.context is not None and self.float_means:
            raise WeightsError("float means and a context model exclude each other")
        if not 0 <= self.silent < SIGMA_LEVELS or (self.silent and self.context is None):
            raise WeightsError("silent scale indices: not a number of them, or no context model")

    @cached_property
    def codec_id(self) -> bytes:
        """First 8 bytes of the SHA-256 over all tensors here, in a fixed order, and the layout."""
        layout = LAYOUT if self.head.thresholds is None else LAYOUT + LEAKY_LAYOUT
        layout += CONTEXT_LAYOUT if self.context is not None else ""
        layout += SILENT_LAYOUT if self.silent else ""
        layout += FLOAT_MEANS_LAYOUT if self.float_means else ""
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
        """z float [..., C, h, w] -> symbols round(z - median), int32 of that shape."""
        medians = torch.from_numpy(self.medians / 2.0**Z_BITS).float()[:, None, None]
        symbols = torch.round(z.cpu().float() - medians).clamp(-SYMBOL_LIMIT, SYMBOL_LIMIT)
        return symbols.to(torch.int32).numpy()

    def parameters(self, hyper: Symbols, rate: int, latent: Symbols | None = None) -> tuple[Tensor, Tensor]:
        """Means in 1/16 int32 and scale indices uint8, [M, 4h, 4w], under which symbols of y are coded.

        Args:
            hyper: symbols of z [C, h, w].
            rate: rate byte.
            latent: the symbols of y; a model with context needs them, and gives what a decoder of them meets.
        """
        if latent is None and self.context is not None:
            raise ValueError("with a context model, means and scales depend on the latents")

        def look_up(part: Part) -> Symbols:
            if latent is None:
                return np.zeros(part.means.shape, dtype=np.int32)
            symbols: Symbols = _of_part(torch.from_numpy(latent[None]), part).numpy()
            return symbols

        _, means, indices = self._predict(hyper[None], [rate], look_up)
        return means[0], indices[0]

    def choose_latents(
        self,
        y: Tensor,
        hyper: Symbols,
        rates: Sequence[int],
        *,
        worth: float,
        float_means: Tensor | None = None,
    ) -> tuple[Symbols, Tensor, Tensor]:
        """Choose the symbols of y for B images of one shape, none of which depends on the others.

        Args:
            y: after the gain, float32 [B, M, 4h, 4w].
            hyper: symbols of z, int32 [B, C, h, w].
            rates: rate byte of each image.
            worth: of a bit, see `quantise_latent`; 0 for the nearest integers.
            float_means: [B, M, 4h, 4w], what symbols are relative to, where it is not the integers' means.

        Returns:
            Symbols, means and scale indices of y, [B, M, 4h, 4w].
        """

        def quantise(part: Part) -> Symbols:
            given = _of_part(y, part)
            means = part.means.float() / (1 << MEAN_BITS) if float_means is None else _of_part(float_means, part)
            symbols = self.quantise_latent(given - means, part.indices, worth)
            symbols[part.indices.numpy() < self.silent] = 0
            return symbols

        return self._predict(hyper, rates, quantise)

    def _predict(self, hyper: Symbols, rates: Sequence[int], take: Take) -> tuple[Symbols, Tensor, Tensor]:
        """`predict` with the images first: symbols of z [B, C, h, w] -> symbols, means, indices [B, M, 4h, 4w]."""
        z256 = (hyper.astype(np.int64) << Z_BITS) + self.medians.astype(np.int64)[:, None, None]
        found = predict(self.head, self.context, torch.from_numpy(z256).transpose(0, 1), rates, take)
        latent, means, indices = (v.transpose(0, 1).contiguous() for v in found)
        return latent.numpy(), means, indices

    def quantise_latent(self, residual: Tensor, indices: Tensor, worth: float = RDO) -> Symbols:
        """y - mean, float32 of any shape, and its scale indices -> symbols, int32 of that shape.

        Rate-distortion optimised: the nearest integer, or the next one towards zero where its (r - k)^2 + worth * bits
        is smaller. An encoder's choice alone: any symbols decode.
        """
        r = residual.numpy()
        symbols: Symbols = np.round(r).clip(-SYMBOL_LIMIT, SYMBOL_LIMIT).astype(np.int32)
        if worth:
            at = np.nonzero(symbols)  # few of all
            r, nearest, groups = r[at], symbols[at], indices.numpy()[at]
            smaller = nearest - np.sign(nearest)
            saved = self._latent_coder.bits(nearest, groups) - self._latent_coder.bits(smaller, groups)
            worse = np.square(r - smaller) - np.square(r - nearest)
            symbols[at] = np.where(worse < worth * saved, smaller, nearest)
        return symbols

    def encode_hyper(self, hyper: Symbols) -> bytes:
        """Return the stream of the symbols of z, int32 [C, h, w]."""
        return self._hyper_coder.encode(hyper.ravel(), self._channels(hyper.shape))

    def decode_hyper(self, stream: bytes, height: int, width: int) -> Symbols:
        """Return the symbols of z, int32 [C, height, width]. Raises CorruptStream."""
        shape = (len(self.medians), height, width)
        return self._hyper_coder.decode(stream, self._channels(shape)).reshape(shape)

    def encode_latents(self, latents: Symbols, indices: Tensor) -> list[bytes]:
        """Return the streams of the symbols of y, int32 [B, M, h, w], under scale indices of the same shape."""
        if self.context is None:
            groups = indices.numpy()
            return [self._latent_coder.encode(s.ravel(), g.ravel()) for s, g in zip(latents, groups, strict=True)]
        writers = [self._latent_coder.writer() for _ in latents]
        for step in self.context.passes:
            channels = slice(step.start, step.stop)
            symbols, groups = (
                half_of(v[:, channels].flatten(0, 1), step.parity or 0).view(len(writers), -1).numpy()
                for v in (torch.from_numpy(latents), indices)
            )
            coded = groups >= self.silent
            if np.any(symbols[~coded]):
                raise ValueError("a symbol that is not coded is not zero")
            for writer, *own in zip(writers, symbols, groups, coded, strict=True):
                writer.put(own[0][own[2]], own[1][own[2]])
        return [writer.finish() for writer in writers]

    def encode_latent(self, latent: Symbols, indices: Tensor) -> bytes:
        """Return the stream of a single image's."""
        return self.encode_latents(latent[None], indices[None])[0]

    def decode_latent(self, stream: bytes, hyper: Symbols, rate: int) -> tuple[Symbols, Tensor, Tensor]:
        """Return symbols int32, means in 1/16 int32 and scale indices uint8 of y, [M, 4h, 4w]. Raises CorruptStream."""
        reader = self._latent_coder.reader(stream)

        def read(part: Part) -> Symbols:
            indices = part.indices.numpy()
            if not self.silent:
                return reader.take(indices.ravel()).reshape(indices.shape)
            symbols, coded = np.zeros(indices.shape, dtype=np.int32), indices >= self.silent
            symbols[coded] = reader.take(indices[coded])
            return symbols

        latent, means, indices = self._predict(hyper[None], [rate], read)
        reader.finish()
        return latent[0], means[0], indices[0]

    def _channels(self, shape: tuple[int, ...]) -> npt.NDArray[np.uint16]:
        return np.repeat(np.arange(shape[0], dtype=np.uint16), shape[1] * shape[2])

    def to_tensors(self) -> dict[str, npt.NDArray[Any]]:
        """Return all arrays by the names they have in a weights file, without prefix."""
        tensors: dict[str, npt.NDArray[Any]] = {
            "medians": self.medians,
        }
        if self.head.gain_to_index is not None:
            tensors["gain_to_index"] = self.head.gain_to_index
        if self.float_means:
            tensors["float_means"] = np.ones(1, dtype=np.int32)
        if self.silent:
            tensors["silent"] = np.array([self.silent], dtype=np.int32)
        if self.head.thresholds is not None:
            tensors["thresholds"] = self.head.thresholds
        for name, tables in (("hyper", self.hyper_tables), ("latent", self.latent_tables)):
            tensors |= {f"{name}.lowest": tables.lowest, f"{name}.sizes": tables.sizes, f"{name}.counts": tables.counts}
        for i, layer in enumerate(self.head.layers):
            tensors |= _layer_tensors(f"head.{i}", layer)
        if self.context is not None:
            tensors["context.groups"] = self.context.groups
            for i, net in enumerate(self.context.nets):
                for j, layer in enumerate(net):
                    tensors |= _layer_tensors(f"context.{i}.{j}", layer)
        return tensors

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, npt.NDArray[Any]]) -> EntropyModel:
        """Build from what `to_tensors` gave.

        Raises:
            WeightsError: a tensor is missing or breaks a bound.
        """
        leaky = "thresholds" in tensors
        last = FINE_LIMIT if "context.groups" in tensors else OUTPUT_LIMIT
        try:
            layers = tuple(
                _layer(
                    tensors,
                    f"head.{i}",
                    relu=i < LAYERS - 1 and not leaky,
                    leaky=i < LAYERS - 1 and leaky,
                    limit=ACTIVATION_LIMIT if i < LAYERS - 1 else last,
                )
                for i in range(LAYERS)
            )
            hyper, latent = (
                Tables(tensors[f"{n}.lowest"], tensors[f"{n}.sizes"], tensors[f"{n}.counts"])
                for n in ("hyper", "latent")
            )
            rule = "thresholds" if leaky else "gain_to_index"
            head = IntegerHyperDecoder(layers, **{rule: tensors[rule]})
            context = _context(tensors, layers[-1].inputs) if "context.groups" in tensors else None
            silent, float_means = (_number(tensors, name) for name in ("silent", "float_means"))
            return cls(hyper, latent, tensors["medians"], head, context, silent, bool(float_means))
        except KeyError as error:
            raise WeightsError(f"the weights file lacks the integer tensor {error}") from error


def _number(tensors: Mapping[str, npt.NDArray[Any]], name: str) -> int:
    found = tensors.get(name, np.zeros(1, dtype=np.int32))
    if found.shape != (1,):
        raise WeightsError(f"{name}: one number is needed")
    return int(found[0])


def _of_part(latent: Tensor, part: Part) -> Tensor:
    """What belongs to a part of the latents [B, M, h, w], [m, n]."""
    own = latent[:, part.channels].transpose(0, 1)
    return own.flatten(1) if part.parity is None else half_of(own, part.parity)


def _layer_tensors(name: str, layer: IntegerLayer) -> dict[str, npt.NDArray[Any]]:
    return {f"{name}.kernel": layer.kernel, f"{name}.bias": layer.bias, f"{name}.shift": layer.shift}


def _layer(
    tensors: Mapping[str, npt.NDArray[Any]], name: str, *, relu: bool, limit: int, leaky: bool = False
) -> IntegerLayer:
    kernel, bias, shift = (tensors[f"{name}.{kind}"] for kind in ("kernel", "bias", "shift"))
    return IntegerLayer(kernel, bias, shift, relu, limit, leaky)


def _context(tensors: Mapping[str, npt.NDArray[Any]], features: int) -> ContextHead:
    groups = tensors["context.groups"]
    nets = tuple(
        tuple(
            _layer(
                tensors,
                f"context.{i}.{j}",
                relu=j < CONTEXT_LAYERS - 1,
                limit=ACTIVATION_LIMIT if j < CONTEXT_LAYERS - 1 else FINE_LIMIT,
            )
            for j in range(CONTEXT_LAYERS)
        )
        for i in range(2 * groups.size - 1)
    )
    return ContextHead(groups, features, nets)
