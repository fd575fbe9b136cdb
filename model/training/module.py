"""A model in training: networks with noise in place of rounding, and CompressAI's entropy bottleneck as prior of z."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn

from model.checkpoint import PRIOR_PREFIX, build_networks
from model.diffusion.sampler import ddim_step
from model.entropy.entropy_model import RDO
from model.entropy.likelihood import (
    LEVELS_PER_NAT,
    SIGMA_LEVELS,
    gaussian_bin_probability,
    gaussian_bits,
    sigma_of_index,
)
from model.entropy.passes import Pass
from model.errors import WeightsError
from model.networks.family import interpolate_levels
from model.networks.lite import CDCLite
from model.networks.paper import CDCPaper, PaperConfig
from model.training.config import DECODER_PARTS, Learning
from model.training.types import Coded, Prediction, Prior, Rule, Walk

with warnings.catch_warnings():  # CompressAI decorates functions with torch.jit.script, which torch deprecates
    warnings.simplefilter("ignore", FutureWarning)
    from compressai.entropy_models import EntropyBottleneck
    from compressai.ops import LowerBound

LIKELIHOOD_BOUND = 1e-9
PAPER_SIGMA_MIN = 0.1
PRIOR_TENSORS = ("matrices.", "biases.", "factors.", "quantiles")  # what weights files keep of an EntropyBottleneck
CODEC_PARTS = ("networks.encoder", "networks.hyper_", "networks.context", "networks.log_gain", "hyper_prior")
ENTROPY_PARTS = ("networks.hyper_", "networks.context", "hyper_prior")


class TrainingModule(nn.Module):
    """A family of networks in training: what they have in common.

    With part "decoder" or "denoiser" the encoder half computes what an encode would write (rounded, symbols chosen as
    an encoder does), without gradients, so that what learns does so on what it will be given, but for the few latents
    that floats and integers round apart. With part
    "entropy" the hyper networks, the context and the prior of z learn alone.
    """

    networks: CDCLite | CDCPaper

    def __init__(self, networks: CDCLite | CDCPaper, filters: tuple[int, ...], part: Learning) -> None:
        super().__init__()
        self.networks = networks
        channels = networks.hyper_encoder[-1].out_channels
        assert isinstance(channels, int)
        self.hyper_prior = EntropyBottleneck(channels, filters=filters)
        self.part = part
        self._likelihood_bound = LowerBound(LIKELIHOOD_BOUND)
        for name, parameter in self.named_parameters():
            learns = {
                "all": True,
                "decoder": not name.startswith(CODEC_PARTS),
                "denoiser": name.startswith("networks.denoiser"),
                "entropy": name.startswith(ENTROPY_PARTS),
            }
            parameter.requires_grad_(learns[part])

    def forward(self, image: Tensor, q: Tensor, x: Tensor, t: Tensor, walk: Walk | None = None) -> Prediction:
        """image [B, 3, H, W] in [-1, 1], rate q [B] in [0, 1], x_n [B, 3, H, W], time input t [B].

        With a walk its last rows are still to be brought to their noise levels. With part "entropy" there may be a
        multiple of B rates, B of them for each round over the images.
        """
        pixels = image.shape[2] * image.shape[3]
        if self.part == "entropy":
            with torch.no_grad():
                y = self.networks.encoder(image).float()
            return Prediction(None, self._code_with_noise(y.repeat(len(q) // len(y), 1, 1, 1), q).bits / pixels)
        y = self.networks.encoder(image).float()
        if self.part in DECODER_PARTS:
            with torch.no_grad():
                coded = self._code_as_encoded(y, q)
        else:
            coded = self._code_with_noise(y, q)
        context = self.networks.inject(self._ungained(coded.y_hat, q))
        if walk is not None:
            x = self._take(walk, x, q, context)
        return Prediction(self._denoise(x, t, q, context), coded.bits / pixels)

    def _denoise(self, x: Tensor, t: Tensor, q: Tensor, context: tuple[Tensor, ...]) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            modulation = self._modulate(t.float(), q.float())
        return self.networks.denoise(x, modulation, context).float()

    @torch.no_grad()
    def _take(self, walk: Walk, x: Tensor, q: Tensor, context: tuple[Tensor, ...]) -> Tensor:
        """Take the last rows of x along their walk, as a decode does."""
        rows = slice(len(x) - walk.rows, len(x))
        walker, own = x[rows], tuple(features[rows] for features in context)
        for t, alpha_from, alpha_to in zip(walk.times, walk.alpha_bar, walk.alpha_bar[1:], strict=False):
            network = partial(self._denoise, t=t.expand(walk.rows), q=q[rows], context=own)
            levels = (alpha_from.expand(walk.rows), alpha_to.expand(walk.rows))
            walker = ddim_step(network, walker, *levels, "x").x
        torch.clear_autocast_cache()  # it holds casts of the weights that were made without gradients
        return torch.cat([x[: rows.start], walker]).contiguous(memory_format=torch.channels_last)

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
        if self.part in DECODER_PARTS and isinstance(networks, CDCLite) and isinstance(self.networks, CDCLite):
            self.networks.context = self.networks.context if networks.context is not None else None  # the codec stays
        own = self.networks.state_dict()
        fresh = {k: t for k, t in own.items() if k.startswith("context.")}  # files of before it existed lack it
        try:
            self.networks.load_state_dict(fresh | networks.state_dict())
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

    def _prior(self, z_hat: Tensor, q: Tensor, y: Tensor, rule: Rule) -> Prior:
        """z_hat -> means and scales of y, and the y_hat that `rule` makes of them."""
        raise NotImplementedError

    def _choose(self, residual: Tensor, sigma: Tensor) -> Tensor:
        """y - mean -> the symbols an encoder writes."""
        return residual.round()

    # The bottleneck -----------------------------------------------------------------------------------------------

    def _code_with_noise(self, y: Tensor, q: Tensor) -> Coded:
        """Rates of y and z with uniform noise (Balle et al. 2017), y_hat and z_hat rounded with straight gradients."""
        y = self._gained(y, q)
        z = self.networks.hyper_encoder(y).float()
        with torch.autocast(y.device.type, enabled=False):
            _, z_probability = self.hyper_prior(z)
            z_hat = _round(z - self._medians()) + self._medians()
            prior = self._prior(z_hat, q, y, Rule(lambda residual, _: _round(residual), as_coded=False))
            noisy = y + torch.rand_like(y) - 0.5
            y_probability = self._likelihood_bound(gaussian_bin_probability(noisy - prior.mean, prior.sigma))
            bits = -(z_probability.log2().flatten(1).sum(1) + y_probability.log2().flatten(1).sum(1))
            return Coded(prior.y_hat, bits)

    def _code_as_encoded(self, y: Tensor, q: Tensor) -> Coded:
        """What `Codec.quantise` does, with a float head; the bits are of y alone."""
        y = self._gained(y, q)
        z = self.networks.hyper_encoder(y).float()
        with torch.autocast(y.device.type, enabled=False):
            z_hat = torch.round(z - self._medians()) + self._medians()
            prior = self._prior(z_hat, q, y, Rule(self._choose, as_coded=True))
            return Coded(prior.y_hat, gaussian_bits(prior.y_hat - prior.mean, prior.sigma).flatten(1).sum(1))

    def _medians(self) -> Tensor:
        medians: Tensor = self.hyper_prior.quantiles[:, 0, 1].detach()[:, None, None]
        return medians


class LiteTraining(TrainingModule):
    """cdc-lite in training: all rates at once, each row at its own q."""

    networks: CDCLite

    def __init__(self, networks: CDCLite | None = None, part: Learning = "all") -> None:
        super().__init__(networks or CDCLite(), (3, 3, 3, 3), part)
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

    def _prior(self, z_hat: Tensor, q: Tensor, y: Tensor, rule: Rule) -> Prior:
        """The index of a scale knows the gain, so the networks need not learn it."""
        shift = self._log_gain(q) * LEVELS_PER_NAT
        taken: list[Tensor] = []

        def sigma_of(scale: Tensor, channels: slice) -> Tensor:
            index = -self._index_ceiling(-self._index_bound(scale + shift[:, channels]))
            return sigma_of_index(torch.round(index) if rule.as_coded else index)

        def take(part: Pass, mask: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
            channels = slice(part.start, part.stop)
            mean = torch.round(16 * mean) / 16 if rule.as_coded else mean
            y_hat = rule.symbols(y[:, channels] - mean, sigma_of(scale, channels)) + mean
            taken.append(y_hat * mask)
            return y_hat

        mean, scale = self.networks.prior(z_hat, q, take)
        mean = torch.round(16 * mean) / 16 if rule.as_coded else mean
        pairs = zip(taken[::2], taken[1::2], strict=True)
        y_hat = torch.cat([even + odd for even, odd in pairs], dim=1) if len(taken) > 1 else taken[0]
        return Prior(mean, sigma_of(scale, slice(None)), y_hat)

    def _choose(self, residual: Tensor, sigma: Tensor) -> Tensor:
        """By rate and distortion, as `EntropyModel.quantise_latent`."""
        nearest = torch.round(residual)
        smaller = nearest - nearest.sign()
        saved = gaussian_bits(nearest, sigma) - gaussian_bits(smaller, sigma)
        worse = (residual - smaller).square() - (residual - nearest).square()
        return torch.where(worse < RDO * saved, smaller, nearest)


class PaperTraining(TrainingModule):
    """cdc-x or cdc-eps in training: one rate, the paper's bounds. There is no gain and q is not used."""

    networks: CDCPaper

    def __init__(self, networks: CDCPaper, part: Learning = "all") -> None:
        super().__init__(networks, (3, 3, 3), part)
        self._sigma_bound = LowerBound(PAPER_SIGMA_MIN)

    def times(self, n: Tensor, length: int) -> Tensor:
        """n / N, in both parameterisations."""
        return n / length

    def lambdas(self, q: Tensor, target: float) -> Tensor:
        """The target for every row."""
        return torch.full_like(q, target)

    def _modulate(self, t: Tensor, q: Tensor) -> Tensor:
        return self.networks.denoiser.modulate(t)

    def _prior(self, z_hat: Tensor, q: Tensor, y: Tensor, rule: Rule) -> Prior:
        mean, sigma = self.networks.hyper_decoder(z_hat).chunk(2, dim=1)
        mean, sigma = torch.round(16 * mean) / 16 if rule.as_coded else mean, self._sigma_bound(sigma)
        return Prior(mean, sigma, rule.symbols(y - mean, sigma) + mean)


def training_module_of(architecture: str, width: int, part: Learning = "all") -> TrainingModule:
    """Return a new module of a family; `width` is the base width of the paper's networks, 64 in the published ones."""
    if architecture == "cdc-lite":
        return LiteTraining(part=part)
    context = width if architecture == "cdc-x" else 3
    return PaperTraining(CDCPaper(PaperConfig(width, context)), part)


def _round(x: Tensor) -> Tensor:
    """Round, with the gradient of the identity."""
    rounded: Tensor = x + (x.round() - x).detach()
    return rounded
