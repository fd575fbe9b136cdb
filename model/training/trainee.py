"""A model in training: networks with noise in place of rounding, and CompressAI's entropy bottleneck as prior of z."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from model.architecture import Networks
from model.checkpoint import PRIOR_PREFIX, build_networks
from model.entropy.entropy_model import RDO
from model.entropy.likelihood import (
    LEVELS_PER_NAT,
    SIGMA_LEVELS,
    gaussian_bin_probability,
    gaussian_bits,
    sigma_of_index,
)
from model.errors import WeightsError
from model.networks.lite import CDCLite, interpolate_levels
from model.networks.paper import CDCPaper, PaperConfig

with warnings.catch_warnings():  # CompressAI decorates functions with torch.jit.script, which torch deprecates
    warnings.simplefilter("ignore", FutureWarning)
    from compressai.entropy_models import EntropyBottleneck
    from compressai.ops import LowerBound

LIKELIHOOD_BOUND = 1e-9
PAPER_SIGMA_MIN = 0.1
PRIOR_TENSORS = ("matrices.", "biases.", "factors.", "quantiles")  # what weights files keep of an EntropyBottleneck
CODEC_PARTS = ("networks.encoder", "networks.hyper_", "networks.log_gain", "hyper_prior")


@dataclass(frozen=True)
class Coded:
    """Through the bottleneck: y_hat [B, M, H/16, W/16] before the inverse gain, and the bits of each picture [B]."""

    y_hat: Tensor
    bits: Tensor


class Prediction(NamedTuple):
    """Of a training step: the denoiser's output, float32 [B, 3, H, W], and the rate in bit per pixel, [B]."""

    output: Tensor
    rate: Tensor


class Trainee(nn.Module):
    """A family of networks in training: what they have in common.

    With `frozen_codec` the encoder half computes what an encode would write (rounded, symbols chosen as an encoder
    does), without gradients, so that the decoder half learns on exactly what it will be given.
    """

    networks: Networks

    def __init__(self, networks: Networks, filters: tuple[int, ...], *, frozen_codec: bool) -> None:
        super().__init__()
        self.networks = networks
        channels = networks.hyper_encoder[-1].out_channels
        assert isinstance(channels, int)
        self.hyper_prior = EntropyBottleneck(channels, filters=filters)
        self.frozen_codec = frozen_codec
        self._likelihood_bound = LowerBound(LIKELIHOOD_BOUND)
        if frozen_codec:
            for name, parameter in self.named_parameters():
                if name.startswith(CODEC_PARTS):
                    parameter.requires_grad_(False)

    def forward(self, image: Tensor, q: Tensor, x: Tensor, t: Tensor) -> Prediction:
        """image [B, 3, H, W] in [-1, 1], rate q [B] in [0, 1], x_n [B, 3, H, W], time input t [B]."""
        if self.frozen_codec:
            with torch.no_grad():
                coded = self._code_as_encoded(image, q)
        else:
            coded = self._code_with_noise(image, q)
        context = self.networks.inject(self._ungained(coded.y_hat, q))
        with torch.autocast(image.device.type, enabled=False):
            modulation = self._modulate(t.float(), q.float())
        rate = coded.bits / (image.shape[2] * image.shape[3])
        return Prediction(self.networks.denoise(x, modulation, context).float(), rate)

    def times(self, n: Tensor, length: int) -> Tensor:
        """Indices n [B] of a schedule of that length -> the denoiser's time input in training, [B]."""
        raise NotImplementedError

    def lambdas(self, q: Tensor, target: float) -> Tensor:
        """The Lagrange multiplier of each row, [B]; `target` is that of a model with one rate."""
        raise NotImplementedError

    def aux_loss(self) -> Tensor:
        """Auxiliary loss of the entropy bottleneck: moves the quantiles to where its distribution has them."""
        loss: Tensor = self.hyper_prior.loss()
        return loss

    def compile_networks(self) -> None:
        """Compile the three networks in place."""
        for part in (self.networks.encoder, self.networks.conditioner, self.networks.denoiser):
            part.compile()

    def float_tensors(self) -> dict[str, Tensor]:
        """The tensors of a weights file, by their names there; not copied."""
        prior = {k: t for k, t in self.hyper_prior.state_dict().items() if k.startswith(PRIOR_TENSORS)}
        return {**self.networks.state_dict(), **{PRIOR_PREFIX + k: t for k, t in prior.items()}}

    def load_float_tensors(self, tensors: Mapping[str, Tensor], origin: str) -> None:
        """Take over the tensors of a weights file. Raises WeightsError."""
        architecture = "cdc-lite" if isinstance(self.networks, CDCLite) else "cdc-x"  # or cdc-eps: by its shapes
        networks, prior = build_networks(tensors, origin, architecture)
        try:
            self.networks.load_state_dict(networks.state_dict())
        except RuntimeError as error:
            raise WeightsError(f"{origin}: {str(error).splitlines()[-1].strip()}") from error
        self.hyper_prior.load_state_dict(prior.state_dict(), strict=False)  # its buffers are CompressAI's own

    # What differs between the families ----------------------------------------------------------------------------

    def _gained(self, y: Tensor, q: Tensor) -> Tensor:
        return y

    def _ungained(self, y_hat: Tensor, q: Tensor) -> Tensor:
        return y_hat

    def _modulate(self, t: Tensor, q: Tensor) -> Tensor:
        raise NotImplementedError

    def _head(self, z_hat: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
        """z_hat -> mean and sigma of y."""
        raise NotImplementedError

    def _as_coded(self, z_hat: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
        """The same with the roundings of the integer path."""
        raise NotImplementedError

    def _choose(self, residual: Tensor, sigma: Tensor) -> Tensor:
        """y - mean -> the symbols an encoder writes."""
        return residual.round()

    # The bottleneck -----------------------------------------------------------------------------------------------

    def _code_with_noise(self, image: Tensor, q: Tensor) -> Coded:
        """Rates of y and z with uniform noise (Balle et al. 2017), y_hat and z_hat rounded with straight gradients."""
        y = self._gained(self.networks.encoder(image).float(), q)
        z = self.networks.hyper_encoder(y).float()
        with torch.autocast(image.device.type, enabled=False):
            _, z_probability = self.hyper_prior(z)
            mean, sigma = self._head(_round(z - self._medians()) + self._medians(), q)
            noisy = y + torch.rand_like(y) - 0.5
            y_probability = self._likelihood_bound(gaussian_bin_probability(noisy - mean, sigma))
            bits = -(z_probability.log2().flatten(1).sum(1) + y_probability.log2().flatten(1).sum(1))
            return Coded(_round(y - mean) + mean, bits)

    def _code_as_encoded(self, image: Tensor, q: Tensor) -> Coded:
        """What `Codec.quantise` does, with a float head; the bits are of y alone."""
        y = self._gained(self.networks.encoder(image).float(), q)
        z = self.networks.hyper_encoder(y).float()
        with torch.autocast(image.device.type, enabled=False):
            mean, sigma = self._as_coded(torch.round(z - self._medians()) + self._medians(), q)
            symbols = self._choose(y - mean, sigma)
            return Coded(symbols + mean, gaussian_bits(symbols, sigma).flatten(1).sum(1))

    def _medians(self) -> Tensor:
        medians: Tensor = self.hyper_prior.quantiles[:, 0, 1].detach()[:, None, None]
        return medians


class LiteTrainee(Trainee):
    """cdc-lite in training: all rates at once, each row at its own q."""

    networks: CDCLite

    def __init__(self, networks: CDCLite | None = None, *, frozen_codec: bool = False) -> None:
        super().__init__(networks or CDCLite(), (3, 3, 3, 3), frozen_codec=frozen_codec)
        self._index_bound = LowerBound(0.0)
        self._index_ceiling = LowerBound(-(SIGMA_LEVELS - 1.0))

    def times(self, n: Tensor, length: int) -> Tensor:
        """(n + 1) / N."""
        return (n + 1) / length

    def lambdas(self, q: Tensor, target: float = 0.0) -> Tensor:
        """Log-linear over the levels of the networks; `target` is not used."""
        return torch.exp(interpolate_levels(self.networks.lambdas.log()[:, None], q)[:, 0])

    def _log_gain(self, q: Tensor) -> Tensor:
        return interpolate_levels(self.networks.log_gain, q)[:, :, None, None]

    def _gained(self, y: Tensor, q: Tensor) -> Tensor:
        return y * self._log_gain(q).exp()

    def _ungained(self, y_hat: Tensor, q: Tensor) -> Tensor:
        return y_hat * interpolate_levels(self.networks.log_inverse_gain, q).exp()[:, :, None, None]

    def _modulate(self, t: Tensor, q: Tensor) -> Tensor:
        return self.networks.denoiser.modulate(self.networks.denoiser.embed_time(t, q))

    def _index(self, z_hat: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
        """z_hat -> mean and scale index 0..63 of y; the index knows the gain, so the head need not learn it."""
        mean, scale = self.networks.hyper_decoder(z_hat).chunk(2, dim=1)
        index = scale + self._log_gain(q) * LEVELS_PER_NAT
        return mean, -self._index_ceiling(-self._index_bound(index))

    def _head(self, z_hat: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
        mean, index = self._index(z_hat, q)
        return mean, sigma_of_index(index)

    def _as_coded(self, z_hat: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
        mean, index = self._index(z_hat, q)
        return torch.round(16 * mean) / 16, sigma_of_index(torch.round(index))

    def _choose(self, residual: Tensor, sigma: Tensor) -> Tensor:
        """By rate and distortion, as `EntropyModel.quantise_latent`."""
        nearest = torch.round(residual)
        smaller = nearest - nearest.sign()
        saved = gaussian_bits(nearest, sigma) - gaussian_bits(smaller, sigma)
        worse = (residual - smaller).square() - (residual - nearest).square()
        return torch.where(worse < RDO * saved, smaller, nearest)


class PaperTrainee(Trainee):
    """cdc-x or cdc-eps in training: one rate, the paper's bounds. There is no gain and q is not used."""

    networks: CDCPaper

    def __init__(self, networks: CDCPaper, *, frozen_codec: bool = False) -> None:
        super().__init__(networks, (3, 3, 3), frozen_codec=frozen_codec)
        self._sigma_bound = LowerBound(PAPER_SIGMA_MIN)

    def times(self, n: Tensor, length: int) -> Tensor:
        """n / N, in both parameterisations."""
        return n / length

    def lambdas(self, q: Tensor, target: float) -> Tensor:
        """The target for every row."""
        return torch.full_like(q, target)

    def _modulate(self, t: Tensor, q: Tensor) -> Tensor:
        return self.networks.denoiser.modulate(t)

    def _head(self, z_hat: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
        mean, sigma = self.networks.hyper_decoder(z_hat).chunk(2, dim=1)
        return mean, self._sigma_bound(sigma)

    def _as_coded(self, z_hat: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
        mean, sigma = self._head(z_hat, q)
        return torch.round(16 * mean) / 16, sigma


def trainee_of(architecture: str, width: int, *, frozen_codec: bool) -> Trainee:
    """Return a new trainee of a family; `width` is the base width of the paper's networks, 64 in the published ones."""
    if architecture == "cdc-lite":
        return LiteTrainee(frozen_codec=frozen_codec)
    context = width if architecture == "cdc-x" else 3
    return PaperTrainee(CDCPaper(PaperConfig(width, context)), frozen_codec=frozen_codec)


def _round(x: Tensor) -> Tensor:
    """Round, with the gradient of the identity."""
    rounded: Tensor = x + (x.round() - x).detach()
    return rounded
