"""Models in training: networks with noise in place of rounding, and CompressAI's entropy bottleneck as prior of z."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from model.diffusion.schedule import Schedule
from model.entropy.likelihood import gaussian_bin_probability
from model.errors import WeightsError
from model.networks.lite import CDCLite
from model.networks.paper import CDCPaper, PaperConfig
from model.training.config import Learning, TrainingConfig
from model.training.losses import Loss, draw, equation_9
from model.training.rates import lambda_of
from model.training.types import Prediction
from model.weights.files import PRIOR_PREFIX, build_networks

with warnings.catch_warnings():  # CompressAI decorates functions with torch.jit.script, which torch deprecates
    warnings.simplefilter("ignore", FutureWarning)
    from compressai.entropy_models import EntropyBottleneck
    from compressai.ops import LowerBound

LIKELIHOOD_BOUND = 1e-9
PAPER_SIGMA_MIN = 0.1
PRIOR_TENSORS = ("matrices.", "biases.", "factors.", "quantiles")  # what weights files keep of an EntropyBottleneck
CODEC_PARTS = ("networks.encoder", "networks.hyper_", "hyper_prior")
Call = Callable[..., Any]  # the module as the trainer wraps it


class TrainingModule(nn.Module):
    """A family of networks in training: what they have in common.

    With part "decoder" the encoder half computes what an encode would write, without gradients, so that what learns
    does so on what it will be given.
    """

    architecture: str
    networks: CDCLite | CDCPaper

    def __init__(
        self, networks: CDCLite | CDCPaper, filters: tuple[int, ...], part: Learning, learns: Callable[[str], bool]
    ) -> None:
        """`learns` says by its name whether a parameter learns."""
        super().__init__()
        self.networks = networks
        channels = networks.hyper_encoder[-1].out_channels
        assert isinstance(channels, int)
        self.hyper_prior = EntropyBottleneck(channels, filters=filters)
        self.part = part
        self._likelihood_bound = LowerBound(LIKELIHOOD_BOUND)
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(learns(name))

    def loss(
        self,
        call: Call,
        image: Tensor,
        config: TrainingConfig,
        schedule: Schedule,
        step: int,
        distance: nn.Module | None,
    ) -> Loss:
        """Draw what is random in a step, run the module and measure.

        Args:
            call: the module itself, or what the trainer has wrapped it in.
            image: [B, 3, H, W] in [-1, 1].
            config: of the run.
            schedule: noise levels.
            step: steps done before.
            distance: d, for rho > 0.
        """
        raise NotImplementedError

    @property
    def moves_quantiles(self) -> bool:
        """True where the prior of z learns, and so must its quantiles."""
        return bool(self.hyper_prior.quantiles.requires_grad)

    def aux_loss(self) -> Tensor:
        """Auxiliary loss of the entropy bottleneck: moves the quantiles to where its distribution has them."""
        loss: Tensor = self.hyper_prior.loss()
        return loss

    def compile_networks(self) -> None:
        """Compile the networks that take most of the time, in place."""
        raise NotImplementedError

    def float_tensors(self) -> dict[str, Tensor]:
        """The tensors of a weights file, by their names there; not copied."""
        prior = {k: t for k, t in self.hyper_prior.state_dict().items() if k.startswith(PRIOR_TENSORS)}
        return {**self.networks.state_dict(), **{PRIOR_PREFIX + k: t for k, t in prior.items()}}

    def load_float_tensors(self, tensors: Mapping[str, Tensor], origin: str) -> None:
        """Take over the tensors of a weights file. Raises WeightsError."""
        networks, prior = build_networks(tensors, origin, self.architecture)
        try:
            self.networks.load_state_dict(networks.state_dict())
        except RuntimeError as error:
            raise WeightsError(f"{origin}: {str(error).splitlines()[-1].strip()}") from error
        self.hyper_prior.load_state_dict(prior.state_dict(), strict=False)  # its buffers are CompressAI's own

    def medians(self) -> Tensor:
        """Of z, [C, 1, 1], without gradient."""
        medians: Tensor = self.hyper_prior.quantiles[:, 0, 1].detach()[:, None, None]
        return medians

    def noisy_bits(self, z: Tensor, offset: Tensor, sigma: Tensor) -> Tensor:
        """Bits of z [B, C, h, w] and y [B] with uniform noise (Balle et al. 2017); `offset` is noisy y - mean."""
        _, z_probability = self.hyper_prior(z)
        y_probability = self._likelihood_bound(gaussian_bin_probability(offset, sigma))
        bits: Tensor = -(z_probability.log2().flatten(1).sum(1) + y_probability.log2().flatten(1).sum(1))
        return bits


class PaperTraining(TrainingModule):
    """cdc-x or cdc-eps in training: one rate, the paper's bounds."""

    networks: CDCPaper

    def __init__(self, networks: CDCPaper, part: Learning = "all") -> None:
        """Raises ValueError: a part that the paper's networks have no training of."""
        if part not in ("all", "decoder"):
            raise ValueError(f"part {part!r} is of cdc-lite")
        super().__init__(networks, (3, 3, 3), part, lambda name: part == "all" or not name.startswith(CODEC_PARTS))
        self._sigma_bound = LowerBound(PAPER_SIGMA_MIN)
        self.architecture = "cdc-x"  # or cdc-eps: by its shapes

    def loss(
        self,
        call: Call,
        image: Tensor,
        config: TrainingConfig,
        schedule: Schedule,
        step: int,
        distance: nn.Module | None,
    ) -> Loss:
        """Eq. 9 at random noise levels."""
        drawn = draw(image, schedule)
        prediction: Prediction = call(image, drawn.x, drawn.n / schedule.length)
        return equation_9(config, drawn, prediction, lambda_of(config, step), distance)

    def forward(self, image: Tensor, x: Tensor, t: Tensor) -> Prediction:
        """image [B, 3, H, W] in [-1, 1], x_n [B, 3, H, W], time input t [B] = n / N -> x0_hat or eps_hat, and rate."""
        with torch.set_grad_enabled(self.part == "all" and torch.is_grad_enabled()):
            y = self.networks.encoder(image).float()
            y_hat, bits = self._code(y)
        context = self.networks.inject(y_hat)
        with torch.autocast(x.device.type, enabled=False):
            modulation = self.networks.denoiser.modulate(t.float())
        output = self.networks.denoise(x, modulation, context).float()
        return Prediction(output, bits / (image.shape[2] * image.shape[3]))

    def _code(self, y: Tensor) -> tuple[Tensor, Tensor]:
        z = self.networks.hyper_encoder(y).float()
        with torch.autocast(y.device.type, enabled=False):
            z_hat = round_through(z - self.medians()) + self.medians()
            mean, sigma = self.networks.hyper_decoder(z_hat).chunk(2, dim=1)
            sigma = self._sigma_bound(sigma)
            if self.part == "decoder":
                mean = torch.round(16 * mean) / 16
            bits = self.noisy_bits(z, y + torch.rand_like(y) - 0.5 - mean, sigma)
            return round_through(y - mean) + mean, bits

    def compile_networks(self) -> None:
        """Compile the three networks in place."""
        for part in (self.networks.encoder, self.networks.conditioner, self.networks.denoiser):
            part.compile()


def training_module_of(
    architecture: str, width: int, part: Learning = "all", critic: Sequence[int] = ()
) -> TrainingModule:
    """Return a new module of a family.

    `width` is the base width of the paper's networks, 64 in the published ones; `critic` are the channels of the maps
    that a critic reads, see `SamplerTraining`.
    """
    if architecture == "cdc-lite":
        from model.training.lite import LiteTraining
        from model.training.sampler import SamplerTraining

        return SamplerTraining(critic) if part == "denoiser" else LiteTraining(part=part)
    context = width if architecture == "cdc-x" else 3
    return PaperTraining(CDCPaper(PaperConfig(width, context)), part)


def round_through(x: Tensor) -> Tensor:
    """Round, with the gradient of the identity."""
    rounded: Tensor = x + (x.round() - x).detach()
    return rounded
