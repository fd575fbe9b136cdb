"""cdc-lite in training: all rates at once, each row at its own q, and the codec before its sampler."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from model.diffusion.schedule import Schedule
from model.entropy.entropy_model import RDO
from model.entropy.likelihood import LEVELS_PER_NAT, SIGMA_LEVELS, gaussian_bits, sigma_of_index
from model.entropy.passes import Pass
from model.networks.family import interpolate_levels
from model.networks.lite import LAMBDAS, LARGEST_INDEX, CDCLite
from model.training.config import Learning, TrainingConfig
from model.training.losses import Loss, rate_distortion
from model.training.module import Call, TrainingModule, round_through
from model.training.types import Coded, Prediction

FILTERS = (3, 3, 3, 3)  # of the prior of z
PARTS: dict[Learning, tuple[str, ...]] = {
    "all": (
        "networks.g_",
        "networks.hyper_",
        "networks.context",
        "networks.log_gain",
        "networks.log_shrink",
        "hyper_prior",
    ),
    "entropy": ("networks.hyper_decoder", "networks.context", "hyper_prior"),
    "decoder": ("networks.g_s", "networks.log_shrink"),
    "denoiser": ("networks.denoiser",),
}


class LiteTraining(TrainingModule):
    """The codec in training.

    With part "all" noise stands for rounding where bits are counted, and rounding passes gradients through where the
    decoder reads. With part "entropy" or "decoder" the encoder is fixed and symbols are those it writes: means rounded,
    symbols chosen by rate and distortion, silent ones zero.
    """

    architecture = "cdc-lite"
    networks: CDCLite

    def __init__(self, networks: CDCLite | None = None, part: Learning = "all") -> None:
        super().__init__(networks or CDCLite(), FILTERS, part, lambda name: name.startswith(PARTS[part]))

    def lambdas(self, q: Tensor) -> Tensor:
        """lambda [B] at rates q [B]: log-linear between the ends."""
        low, high = torch.log(torch.tensor(LAMBDAS, device=q.device))
        return torch.exp(low + q * (high - low))

    def loss(
        self,
        call: Call,
        image: Tensor,
        config: TrainingConfig,
        schedule: Schedule,
        step: int,
        distance: nn.Module | None,
    ) -> Loss:
        """D + lambda R over sqrt(lambda), at rates spread evenly over the batch: none may drown the others."""
        rows = len(image) * (config.rates_per_crop if self.part == "entropy" else 1)
        q = (torch.randperm(rows, device=image.device) + torch.rand(rows, device=image.device)) / rows
        prediction: Prediction = call(image, q)
        return rate_distortion(config, image, prediction, self.lambdas(q), distance)

    def forward(self, image: Tensor, q: Tensor) -> Prediction:
        """image [B, 3, H, W] in [-1, 1], rates q [B] in [0, 1] -> x_base and rate.

        With part "entropy" there is no x_base, and there may be a multiple of B rates, B a round over the images.
        """
        pixels = image.shape[2] * image.shape[3]
        if self.part == "all":
            coded = self._code_with_noise(self.analyse(image, q), q)
            return Prediction(self.synthesise(coded, q)[0], coded.bits / pixels)
        with torch.no_grad():
            features = self.networks.analyse(image).repeat(len(q) // len(image), 1, 1, 1)
            y = self.networks.latent(features, q).float()
        if self.part == "entropy":
            return Prediction(None, self.code(y, q).bits / pixels)
        with torch.no_grad():
            coded = self.code(y, q)
        return Prediction(self.synthesise(coded, q)[0], coded.bits / pixels)

    def analyse(self, image: Tensor, q: Tensor) -> Tensor:
        """image [B, 3, H, W], q [B] -> y [B, M, h, w] in quantisation steps, float32."""
        return self.networks.latent(self.networks.analyse(image), q).float()

    def synthesise(self, coded: Coded, q: Tensor) -> tuple[Tensor, Tensor]:
        """y_hat and its prior -> x_base [B, 3, H, W] and the denoiser's map."""
        latents = self.networks.dequantise(coded.y_hat, coded.mean.detach(), coded.index.detach(), q)
        base, context = self.networks.inject(latents, q)
        return base.float(), context

    def _code_with_noise(self, y: Tensor, q: Tensor) -> Coded:
        z = self.networks.hyper(y).float()
        with torch.autocast(y.device.type, enabled=False):
            z_hat = round_through(z - self.medians()) + self.medians()
            y_hat, mean, scale = self._prior(z_hat, q, y, as_coded=False)
            index = _Bounded.apply(scale + self._shift(q))
            bits = self.noisy_bits(z, y + torch.rand_like(y) - 0.5 - mean, sigma_of_index(index))
            return Coded(y_hat, mean, index, bits)

    def code(self, y: Tensor, q: Tensor) -> Coded:
        """What `Codec.quantise` does, with a float prior: y_hat, means and indices of a file, and the bits of it."""
        with torch.no_grad():
            z = self.networks.hyper(y).float()
        with torch.autocast(y.device.type, enabled=False):
            z_hat = torch.round(z - self.medians()) + self.medians()
            y_hat, mean, scale = self._prior(z_hat, q, y, as_coded=True)
            index = _Bounded.apply(scale + self._shift(q))
            symbols = (y_hat - mean).detach().round() + (mean.detach() - mean)  # a mean may move, a symbol may not
            bits = torch.where(index < 0.5, 0.0, gaussian_bits(symbols, sigma_of_index(index))).flatten(1).sum(1)
            z_probability = self._likelihood_bound(self.hyper_prior._likelihood(_channels_first(z_hat))[0])
            z_bits = -z_probability.log2().sum(0).reshape(len(z_hat), -1).sum(1)
            return Coded(y_hat, torch.round(16 * mean) / 16, torch.round(index), bits + z_bits)

    def _prior(self, z_hat: Tensor, q: Tensor, y: Tensor, *, as_coded: bool) -> tuple[Tensor, Tensor, Tensor]:
        """z_hat -> y_hat, means and scale numbers of y, pass by pass."""
        shift, taken = self._shift(q), list[Tensor]()

        def take(part: Pass, mask: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
            channels = slice(part.start, part.stop)
            if as_coded:
                mean = torch.round(16 * mean).detach() / 16
                symbols = chosen(y[:, channels] - mean, scale.detach() + shift[:, channels])
            else:
                symbols = round_through(y[:, channels] - mean)
            taken.append((symbols + mean) * mask)
            return symbols + mean

        mean, scale = self.networks.prior(z_hat, q, take)
        y_hat = torch.cat([even + odd for even, odd in zip(taken[::2], taken[1::2], strict=True)], dim=1)
        return y_hat, mean, scale

    def _shift(self, q: Tensor) -> Tensor:
        """What the gain adds to a scale index, [B, M, 1, 1]: the networks need not learn it."""
        return interpolate_levels(self.networks.log_gain, q)[:, :, None, None] * LEVELS_PER_NAT

    def load_float_tensors(self, tensors: Any, origin: str) -> None:
        """As the base. A denoiser that the file lacks starts anew."""
        if not any(k.startswith("denoiser.") for k in tensors):
            fresh = {k: t for k, t in self.networks.state_dict().items() if k.startswith(("denoiser.", "log_residual"))}
            tensors = fresh | dict(tensors)
        super().load_float_tensors(tensors, origin)

    def compile_networks(self) -> None:
        """Compile both transforms in place."""
        for part in (self.networks.g_a, self.networks.g_s):
            part.compile()


def chosen(residual: Tensor, index: Tensor) -> Tensor:
    """y - mean, scale indices -> symbols by rate and distortion, as `EntropyModel.quantise_latent`; silent ones 0."""
    index = index.clamp(0, LARGEST_INDEX).round()
    sigma = sigma_of_index(index)
    nearest = torch.round(residual)
    smaller = nearest - nearest.sign()
    saved = gaussian_bits(nearest, sigma) - gaussian_bits(smaller, sigma)
    worse = (residual - smaller).square() - (residual - nearest).square()
    return torch.where(index < 1, 0.0, torch.where(worse < RDO * saved, smaller, nearest))


class _Bounded(torch.autograd.Function):
    """Clamp to the range of scale indices; gradients pass where they lead back inside."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clamp(0, SIGMA_LEVELS - 1.0)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (x,), (gradient,) = ctx.saved_tensors, gradients
        inside: Tensor = ((x >= 0) | (gradient < 0)) & ((x <= SIGMA_LEVELS - 1.0) | (gradient > 0))
        return gradient * inside


def _channels_first(z: Tensor) -> Tensor:
    """[B, C, h, w] -> [C, 1, B h w], as CompressAI's likelihood takes it."""
    return z.transpose(0, 1).reshape(z.shape[1], 1, -1)
