"""The hyper-decoder in integers: z_hat -> means and scale indices, bit for bit the same everywhere.

Float hyper-decoders round differently on a GPU and a CPU; a scale index flips and the rest of a stream is lost. Here
weights and activations are integers and every sum stays below 2**53, so float64 matrix products are exact whatever the
order of summation. A transposed convolution of stride 2 is written as a 3x3 convolution to four times the channels and
a pixel shuffle, so that one kind of layer is all there is. No library convolution: Winograd and FFT are not exact.

The last layer's scale half becomes an index in one of two ways. That of a model of many rates is the index itself, to
which a table adds what the rate byte's gain shifts it by (`gain_to_index`). cdc-x and cdc-eps emit sigma: the index is
the number of stored thresholds that it reaches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from model.entropy.likelihood import SIGMA_LEVELS
from model.errors import WeightsError

Z_BITS = 8  # medians are stored in 1/256, so 256 z_hat is an integer
ACTIVATION_BITS = 12  # fraction of the activations between layers
MEAN_BITS = 4  # means are multiples of 1/16
CONTEXT_BITS = 8  # fraction of latents, features and rate where they enter the context model
FINE_BITS = 8  # fraction of means that a context model is to correct, and of its corrections
SCALE_BITS = 8  # fraction of the scale index before its final rounding
SIGMA_BITS = 12  # fraction of a sigma that is compared with thresholds
LEAK, LEAK_BITS = 13107, 16  # LeakyReLU 0.2: v >= 0 ? v : floor(v * 13107 * 2**-16)
Z_LIMIT = 1 << 17  # |256 z_hat| is clamped to it: z of +-512
ACTIVATION_LIMIT = (1 << 24) - 1  # activations are clamped to it, and so fit float32 exactly
OUTPUT_LIMIT = 1 << 20
FINE_LIMIT = 1 << 24  # of what a context model corrects, and of its corrections
WEIGHT_LIMIT = 32767  # int16
STRIP_ROWS = 32  # rows of a layer evaluated at a time: bounds the memory of im2col
EXACT = 1 << 53

Int = npt.NDArray[np.int64]


@dataclass(frozen=True)
class IntegerLayer:
    """One layer: convolution with zero padding, rescale by 2**-shift, clamp.

    Attributes:
        kernel: int16, as stored: [out, in, 3, 3] or [out, in, 1, 1] of a convolution, [in, out, 5, 5] of a transposed
            one of stride 2, or [out, in] of a matrix that the caller gives its columns.
        bias: int64 [out], at the scale of the products.
        shift: int64 [out], result = floor((v + 2**(shift - 1)) * 2**-shift).
        relu: negative results become 0.
        limit: results are clamped to +-limit.
        leaky: negative results are multiplied by 0.2 (`LEAK`); excludes relu.
    """

    kernel: npt.NDArray[np.int16]
    bias: Int
    shift: Int
    relu: bool
    limit: int
    leaky: bool = False

    @property
    def upsample(self) -> int:
        """2 for a transposed convolution, else 1."""
        return 2 if self.kernel.ndim == 4 and self.kernel.shape[-1] == 5 else 1

    @property
    def reach(self) -> int:
        """Neighbours on each side that an output sees: 1, or 0 for a convolution of 1x1."""
        return 0 if self.kernel.ndim == 4 and self.kernel.shape[-1] == 1 else 1

    @property
    def outputs(self) -> int:
        """Number of output channels."""
        return len(self.bias)

    @property
    def inputs(self) -> int:
        """Number of input channels, or the length of a matrix's columns."""
        return int(self.kernel.shape[0 if self.upsample == 2 else 1])

    @cached_property
    def weight(self) -> Tensor:
        """float64 [out * upsample**2, in * 9 or in] with integer values: what im2col multiplies with."""
        kernel = torch.from_numpy(self.kernel.astype(np.float64))
        return (_phases(kernel) if self.upsample == 2 else kernel).flatten(1)

    @cached_property
    def offset(self) -> Tensor:
        """float64 [out * upsample**2, 1]: bias + 2**(shift - 1)."""
        offset = torch.from_numpy((self.bias + (np.int64(1) << self.shift >> 1)).astype(np.float64))
        return offset.repeat_interleave(self.upsample**2)[:, None]

    @cached_property
    def scale(self) -> Tensor:
        """float64 [out * upsample**2, 1]: 2**-shift."""
        scale = torch.from_numpy(np.ldexp(1.0, -self.shift.astype(np.int32)))
        return scale.repeat_interleave(self.upsample**2)[:, None]

    def multiply(self, columns: Tensor) -> Tensor:
        """columns float64 [in * 9 or in, n] -> float64 [out * upsample**2, n], rescaled and clamped."""
        return self.rescale(self.weight @ columns)

    def rescale(self, sums: Tensor) -> Tensor:
        """What `multiply` makes of the products' sums, float64 [out * upsample**2, n], which are used up."""
        low = 0 if self.relu else -self.limit
        out = sums.add_(self.offset).mul_(self.scale).floor_().clamp_(low, self.limit)
        return torch.where(out < 0, torch.floor(out * (LEAK * 2.0**-LEAK_BITS)), out) if self.leaky else out

    def check(self, input_limit: int, *, inputs: int | None = None, matrix: bool = False) -> None:
        """Assert that no sum can leave the exact range when inputs are at most `input_limit` in size.

        Args:
            input_limit: of the values that come in.
            inputs: how many input channels there are; None if any number will do.
            matrix: whether the layer is to be a matrix, or else a convolution.

        Raises:
            WeightsError: sum|w| * max|x| + |b| + 2**(shift - 1) reaches 2**53 for some output, or the shape is wrong.
        """
        shape = self.kernel.shape
        known = len(shape) == 2 if matrix else len(shape) == 4 and shape[2:] in ((1, 1), (3, 3), (5, 5))
        per_output = (self.bias.shape, self.shift.shape) == ((self.outputs,),) * 2
        if not known or not per_output or not self.outputs or int(self.shift.min()) < 0 or int(self.shift.max()) > 52:
            raise WeightsError(
                "integer hyper-decoder: a layer is neither a matrix nor a 1x1, 3x3 or transposed 5x5 convolution"
            )
        if shape[1 if self.upsample == 2 else 0] != self.outputs or self.inputs != (inputs or self.inputs):
            raise WeightsError("integer hyper-decoder: a layer does not fit the one before it, or its own biases")
        sums = self.weight.abs().sum(dim=1, keepdim=True)
        bound = float((sums * input_limit + self.offset.abs()).max())
        if bound >= EXACT:
            raise WeightsError(f"integer hyper-decoder: a sum can reach {bound:.3g}, beyond the exact range of float64")


@dataclass(frozen=True)
class IntegerHyperDecoder:
    """All of it.

    Attributes:
        layers: run in order on 256 z_hat; the last has 2 M channels: M means in 1/16 (1/256 where a context model
            corrects them), M scale numbers (indices in 1/256, or sigmas in 1/4096).
        gain_to_index: int32 [256, M], in 1/256 of a scale index: what rate byte r adds for channel c.
        thresholds: int32 [63], ascending, in 1/4096: the least sigma of each index from 1 on; excludes gain_to_index.
    """

    layers: tuple[IntegerLayer, ...]
    gain_to_index: npt.NDArray[np.int32] | None = None
    thresholds: npt.NDArray[np.int32] | None = None

    def __post_init__(self) -> None:
        limit, inputs = Z_LIMIT, None
        for layer in self.layers:
            layer.check(limit, inputs=inputs)
            limit, inputs = layer.limit, layer.outputs
        if (self.gain_to_index is None) == (self.thresholds is None):
            raise WeightsError("integer hyper-decoder: it needs a gain table or thresholds, not both")
        if self.gain_to_index is not None and self.gain_to_index.shape != (256, self.layers[-1].outputs // 2):
            raise WeightsError("integer hyper-decoder: the gain table does not fit the last layer")
        if self.gain_to_index is not None and int(np.abs(self.gain_to_index.astype(np.int64)).max()) > FINE_LIMIT:
            raise WeightsError("integer hyper-decoder: the gain table leaves the range of scale numbers")
        if self.thresholds is not None and (
            self.thresholds.shape != (SIGMA_LEVELS - 1,) or np.any(np.diff(self.thresholds.astype(np.int64)) <= 0)
        ):
            raise WeightsError(f"integer hyper-decoder: thresholds must be {SIGMA_LEVELS - 1} ascending integers")

    @property
    def latents(self) -> int:
        """M, the number of latent channels."""
        return self.layers[-1].outputs // 2

    def features(self, z256: Tensor) -> Tensor:
        """256 z_hat of B images, integer values of any dtype [C, B, h, w], clamped to +-2**17 -> the last hidden layer.

        float32 with integer values, in 1/4096, [F, B, 4h, 4w].
        """
        x = z256.to(device="cpu", dtype=torch.float32).clamp(-Z_LIMIT, Z_LIMIT)
        for layer in self.layers[:-1]:
            x = _run(layer, x)
        return x

    def parameters(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """The last hidden layer [F, B, h, w] -> means and scale numbers as `layers` says, both int32 [M, B, h, w]."""
        means, scales = (torch.empty((self.latents, *features.shape[1:]), dtype=torch.int32) for _ in range(2))

        def write(top: int, out: Tensor) -> None:
            rows = slice(top, top + out.shape[2])
            means[:, :, rows] = out[: self.latents].to(torch.int32)
            scales[:, :, rows] = out[self.latents :].to(torch.int32)

        _for_each_strip(self.layers[-1], features, write)
        return means, scales

    def indices(self, scales: Tensor, rates: Sequence[int], channels: slice) -> Tensor:
        """Scale numbers of some channels -> scale indices 0..63, uint8 [m, n].

        Args:
            scales: int32 [m, n], of one image after the other.
            rates: the rate byte of each image.
            channels: which m.
        """
        if self.gain_to_index is None:
            thresholds = torch.from_numpy(np.asarray(self.thresholds, dtype=np.int32))
            return torch.bucketize(scales, thresholds, right=True).to(torch.uint8)
        gain = torch.from_numpy(self.gain_to_index[list(rates), channels].T)
        gain = gain.repeat_interleave(scales.shape[1] // len(rates), dim=1) if len(rates) > 1 else gain
        shifted = (scales + gain + (1 << SCALE_BITS - 1)) >> SCALE_BITS  # an arithmetic shift is a floor
        return shifted.clamp(0, SIGMA_LEVELS - 1).to(torch.uint8)


def _run(layer: IntegerLayer, x: Tensor) -> Tensor:
    """x [in, B, h, w] -> float32 [out, B, h * upsample, w * upsample] with integer values."""
    u = layer.upsample
    out = torch.empty((layer.outputs, x.shape[1], x.shape[2] * u, x.shape[3] * u), dtype=torch.float32)

    def write(top: int, strip: Tensor) -> None:
        shuffled = F.pixel_shuffle(strip.transpose(0, 1), u).transpose(0, 1)
        out[:, :, top * u : top * u + shuffled.shape[2]] = shuffled.float()

    _for_each_strip(layer, x, write)
    return out


def _for_each_strip(layer: IntegerLayer, x: Tensor, write: Callable[[int, Tensor], None]) -> None:
    """Evaluate the layer on x [in, B, h, w] in strips; hand each, float64 [out * u**2, B, rows, w], to `write`."""
    reach = layer.reach
    padded = F.pad(x, (reach,) * 4)
    for top in range(0, x.shape[2], STRIP_ROWS):
        strip = padded[:, :, top : top + STRIP_ROWS + 2 * reach].transpose(0, 1).double()
        columns = F.unfold(strip, 2 * reach + 1).transpose(0, 1).flatten(1)
        out = layer.multiply(columns)
        write(top, out.view(out.shape[0], x.shape[1], -1, x.shape[3]))


def _phases(kernel: Tensor) -> Tensor:
    """Transposed kernel [in, out, 5, 5] (stride 2, padding 2, output padding 1) -> kernel [out * 4, in, 3, 3].

    The result is the 3x3 convolution whose pixel shuffle equals it: output row 2m + p takes tap k of input row i where
    2m + p + 2 - 2i = k, so rows m - 1, m, m + 1 give the taps 4 + p, 2 + p and p, those beyond 4 being zero.
    """
    inputs, outputs = kernel.shape[:2]
    phases = kernel.new_zeros(outputs, 2, 2, inputs, 3, 3)
    for p, r, a, b in product(range(2), range(2), range(3), range(3)):
        k, j = 4 + p - 2 * a, 4 + r - 2 * b
        if k < 5 and j < 5:
            phases[:, p, r, :, a, b] = kernel[:, :, k, j].T
    return phases.reshape(4 * outputs, inputs, 3, 3)
