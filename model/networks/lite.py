"""cdc-lite, one model for all rates: patch 8, depthwise blocks, block means around the networks, a sampler behind.

    image --g_a(q)--> y --gain(q)--> Q --[entropy coding]--> y_hat --inverse gain(q)--> g_s(q) --> x_base
                           \\--h_a--> z --Q--> h_s, context --> prior of y: mean, scale --^  |
                                                                                            `--> map at 1/8
    v_n, map, t, q --denoiser--> v0_hat                     image = x_base + gamma residual_size(q) v

The denoiser samples the residual x - x_base in units of its standard deviation at the rate. Going part of the way from
the image of least error to a sample is the best there is between the two (Freirich et al. 2021): gamma is that part,
and at gamma 0 no denoising runs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from model.errors import WeightsError
from model.networks.context import ContextModel, context_sizes
from model.networks.denoiser import Denoiser
from model.networks.family import Family, Window, interpolate_levels, scale_by_level
from model.networks.transforms import MEANS, AnalysisTransform, SynthesisTransform, TransformConfig

LAMBDAS = (0.45, 0.00015)  # of D + lambda R at q = 0 and q = 1, log-linear between; D squared error, R bit per pixel
STEP_PER_LAMBDA = 26.0  # a quantisation step starts at sqrt(26 lambda)
LARGEST_INDEX = 63  # scale indices enter the synthesis as a share of it
MAX_WIDTH, MAX_BLOCKS = 2048, 64  # that a weights file may ask for


@dataclass(frozen=True)
class LiteConfig(TransformConfig):
    """Sizes: those of the transforms, `hyper` channels of z, channels of the context's groups, its hidden width,
    blocks of the denoiser.
    """

    hyper: int = 128
    groups: tuple[int, ...] = (16, 32, 80, 192)
    context: int = 128
    denoiser: int = 4

    @classmethod
    def of_tensors(cls, tensors: Mapping[str, Tensor]) -> LiteConfig:
        """Read the sizes off a state dict. Raises WeightsError where they are not there or too large."""

        def outputs(name: str) -> int:
            tensor = tensors.get(name)
            if tensor is None or tensor.ndim < 2 or not 1 <= tensor.shape[0] <= MAX_WIDTH:
                raise WeightsError(f"these are not the networks of cdc-lite: {name} is missing or of a wrong shape")
            return int(tensor.shape[0])

        def blocks(name: str) -> int:
            return next((n for n in range(MAX_BLOCKS) if f"{name}.{n}.before.weight" not in tensors), MAX_BLOCKS)

        sizes = context_sizes(tensors)
        if sizes is None or sum(sizes[0]) != outputs("g_a.head.weight"):
            raise WeightsError("the context model does not fit the latents")
        return cls(
            widths=(outputs("g_a.stem.weight"), outputs("g_a.down.weight")),
            latents=outputs("g_a.head.weight"),
            analysis=(blocks("g_a.fine"), blocks("g_a.coarse")),
            synthesis=(blocks("g_s.fine"), blocks("g_s.coarse")),
            levels=outputs("log_gain"),
            hyper=outputs("hyper_encoder.0.weight"),
            groups=sizes[0],
            context=sizes[1],
            denoiser=blocks("denoiser.blocks"),
        )


class CDCLite(Family):
    """g_a, h_a, h_s with context, g_s, denoiser. The prior of z and the integer tables live in `model.entropy`.

    `log_gain` and `log_shrink` [levels, M] are natural logarithms: the inverse gain is exp(log_shrink - log_gain), so
    that what scales amplitudes is a small factor that training moves slowly. `log_residual` [levels, 1] is that of the
    residual's standard deviation.
    """

    has_base = True
    log_gain: nn.Parameter

    def __init__(self, config: LiteConfig | None = None) -> None:
        super().__init__()
        config = config or LiteConfig()
        self.config = config
        m, n = config.latents, config.hyper
        self.latents, self.features = m, MEANS + config.widths[1]
        self.g_a = AnalysisTransform(config)
        self.g_s = SynthesisTransform(config)
        self.hyper_encoder = nn.Sequential(
            nn.Conv2d(m, n, 1),
            nn.ReLU(),
            nn.Conv2d(n, n, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Conv2d(n, n, 5, stride=2, padding=2),
        )
        self.hyper_decoder = nn.Sequential(
            nn.ConvTranspose2d(n, n, 5, 2, 2, 1),
            nn.ReLU(),
            nn.ConvTranspose2d(n, n * 3 // 2, 5, 2, 2, 1),
            nn.ReLU(),
            nn.Conv2d(n * 3 // 2, 2 * m, 1),
        )
        self.context = ContextModel(config.groups, n * 3 // 2, config.context)
        low, high = (0.5 * math.log(STEP_PER_LAMBDA * value) for value in LAMBDAS)
        self.log_gain = nn.Parameter(-torch.linspace(low, high, config.levels)[:, None].repeat(1, m))
        self.log_shrink = nn.Parameter(torch.zeros(config.levels, m))
        self.denoiser = Denoiser(config.widths[0], config.denoiser)
        self.log_residual = nn.Parameter(torch.linspace(-2, -4, config.levels)[:, None])

    def analyse(self, image: Tensor) -> Tensor:
        """Image [B, 3, H, W] -> block means and features before the rate's factor, [B, 3 + width, h, w]."""
        return self.g_a.analyse(image)

    def latent(self, features: Tensor, q: Tensor) -> Tensor:
        """What `analyse` gave -> y [B, M, h, w] in quantisation steps."""
        return super().latent(self.g_a.latent(features, q), q)

    def hyper(self, y: Tensor) -> Tensor:
        """h_a on sign(y) log(1 + |y|): at high rates y is hundreds of steps. On the encoder's side alone."""
        return super().hyper(y.sign() * y.abs().log1p())

    def dequantise(self, y_hat: Tensor, mean: Tensor, index: Tensor, q: Tensor) -> Tensor:
        """y_hat and means after the inverse gain, and indices / 63, one after the other: [B, 3 M, h, w]."""
        log_inverse_gain = self.log_shrink - self.log_gain
        scaled = (scale_by_level(v, log_inverse_gain, q) for v in (y_hat, mean))
        return torch.cat([*scaled, index / LARGEST_INDEX], dim=1)

    def inject(self, latents: Tensor, q: Tensor) -> tuple[Tensor, ...]:
        """What `dequantise` gave -> x_base [B, 3, H, W] and the map of g_s at 1/8."""
        return self.g_s(latents, q)  # type: ignore[no-any-return]

    @property
    def reductions(self) -> tuple[int, ...]:
        """See `Family.reductions`."""
        return self.g_s.reductions

    def add_heads(self, tensors: Mapping[str, Tensor]) -> None:
        """See `SynthesisTransform.add_heads`."""
        self.g_s.add_heads(tensors)

    def base(self, latents: Tensor, q: Tensor, factor: int = 1, keep: Window | None = None) -> Tensor:
        """See `Family.base`; at 1/2 and 1/4 it is nearly x_base averaged over squares."""
        return self.g_s.base(latents, q, factor, keep)

    def residual_size(self, q: Tensor) -> Tensor:
        """Rates [B] in [0, 1] -> the standard deviation of x - x_base there, [B]."""
        return interpolate_levels(self.log_residual, q)[:, 0].exp()

    def lambda_of(self, q: float) -> float:
        """See `Family.lambda_of`: log-linear between the ends."""
        low, high = map(math.log, LAMBDAS)
        return math.exp(low + q * (high - low))

    def modulate(self, times: Tensor, rate: int) -> Tensor:
        """FiLM coefficients of the denoiser's blocks at each time, float64 [K, S]."""
        return self.denoiser.modulate(times, torch.full_like(times, rate / 255))

    def denoise(self, x: Tensor, modulation: Tensor, injected: tuple[Tensor, ...]) -> Tensor:
        """v_n [B, 3, H, W], modulation, the map at 1/8 -> v0_hat [B, 3, H, W]."""
        return self.denoiser(x, modulation, injected)  # type: ignore[no-any-return]

    def cast(self, dtype: torch.dtype) -> None:
        """Run g_s and the denoiser in that type; what time and rate decide stays in float64."""
        self.g_s.to(dtype)
        self.denoiser.to(dtype)
        self.denoiser.time.double()

    def blank(self, rows: int, height: int, width: int) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """See `Denoiser.blank`."""
        return self.denoiser.blank(rows, height, width)
