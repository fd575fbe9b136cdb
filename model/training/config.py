"""Every value of a training run: presets, overrides, and the record written beside each checkpoint."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from model.errors import InvalidParameter

Architecture = Literal["cdc-lite", "cdc-x", "cdc-eps"]
Learning = Literal["all", "decoder", "denoiser", "entropy"]  # which part of the model


class TrainingConfig(BaseModel):
    """A training run. Defaults are those of the preset `lite`.

    Squared errors are means over the values of a crop in [-1, 1]; rates are in bit per pixel; the loss is the paper's
    Eq. 8 and 9: (1 - rho) w(n) |x0 - x0_hat|^2 + rho perceptual_scale d(x0_hat, x0) + lambda rate.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    architecture: Architecture = Field(default="cdc-lite", description="Which networks to train.")

    width: int = Field(default=64, ge=8, multiple_of=8, description="Base width of cdc-x and cdc-eps.")

    data: tuple[Path, ...] = Field(
        default=(), description="Folders of images, .tar shards, or Vimeo-90k folders (with sequences/)."
    )
    validation: Path | None = Field(default=None, description="Folder or .tar to evaluate on; none: no evaluation.")
    crop: int = Field(default=256, ge=64, multiple_of=64, description="Side of the random crops, in pixels.")
    batch: int = Field(default=8, ge=1, description="Crops a step, on each device.")
    flat_below: float = Field(
        default=1.5, ge=0, description="Crops whose levels (0..255) deviate less than this are drawn again."
    )
    cache: bool = Field(default=False, description="Decode all images once and keep them in memory.")
    readers: int = Field(default=1, ge=0, description="Processes that decode and crop ahead; 0: none.")

    steps: int | None = Field(default=None, ge=1, description="Stop after this many steps in all.")
    minutes: float | None = Field(
        default=None, gt=0, description="Stop after this many minutes in all, resumes counted."
    )
    seed: int = Field(default=0, ge=0, lt=2**31, description="Of crops, noise and rates.")

    lr: float = Field(default=1e-3, gt=0, description="Learning rate of the networks.")
    lr_schedule: Literal["cosine", "steps"] = Field(
        default="cosine", description="cosine: over the whole run to lr_final; steps: the paper's decay."
    )
    lr_warmup: int = Field(default=200, ge=0, description="Steps of linear warm-up after every start of an optimiser.")
    lr_final: float = Field(default=2e-5, ge=0, description="cosine: where it ends; steps: where it stops falling.")
    lr_decay: float = Field(default=0.8, gt=0, le=1, description="steps: factor at each drop.")
    lr_decay_every: int = Field(default=100_000, ge=1, description="steps: steps between drops.")
    aux_lr: float = Field(default=1e-3, gt=0, description="Learning rate of the prior's quantiles (auxiliary loss).")
    betas: tuple[float, float] = Field(default=(0.9, 0.99), description="Of Adam.")
    clip: float = Field(default=1.0, gt=0, description="Largest norm of the gradient.")
    ema: float = Field(default=0.9995, ge=0, lt=1, description="Decay of the averaged weights; 0: no average.")

    lambda_target: float = Field(
        default=0.01, gt=0, description="lambda of a model with one rate; cdc-lite draws it from its own range."
    )
    lambda_warmup: float = Field(default=1e-5, gt=0, description="lambda during the first lambda_warmup_steps.")
    lambda_warmup_steps: int = Field(default=0, ge=0, description="Steps before the target lambda holds.")
    weighting: Literal["snr", "l1"] = Field(
        default="snr", description="snr: squared error by w(n) = clamp(SNR, snr_min, snr_max); l1: of the noise."
    )
    snr_min: float = Field(default=0.3, ge=0, description="Least weight of a noise level.")
    snr_max: float = Field(default=5.0, gt=0, description="Largest weight of a noise level.")
    rho: float = Field(default=0.0, ge=0, le=1, description="Share of the perceptual term, Eq. 9.")
    perceptual: str | None = Field(
        default=None,
        description="Distance d: lpips:vgg, lpips:alex, lpips:squeeze, or squeezenet:FILE.npz, vgg19:FILE.pth, "
        "torchscript:FILE, several joined by +.",
    )
    perceptual_scale: float = Field(
        default=1.0, ge=0, description="Factor of d, since distances of different backbones differ in size."
    )
    score_scale: float = Field(default=4.0, ge=0, description="part denoiser: factor of the octaves' scoring rules.")
    error_scale: float = Field(default=0.1, ge=0, description="part denoiser: factor of a sample's squared error.")
    levels_scale: float = Field(
        default=0.0, ge=0, description="part denoiser: factor of the squared error at random noise levels."
    )
    rollouts: float = Field(
        default=0.25,
        ge=0,
        lt=1,
        description="part denoiser: share of the samples that continue a decode of several steps.",
    )
    critic: float = Field(
        default=0.0,
        ge=0,
        description="part denoiser: gradient of a critic's term at the samples, as a share of that of the other terms; "
        "it reads the features of `perceptual`.",
    )
    part: Learning = Field(
        default="all",
        description="decoder: what decodes, alone, so that the codec id and published files stay; of cdc-lite also "
        "denoiser: the sampler alone; entropy: the entropy model alone, by rate.",
    )
    rates_per_crop: int = Field(default=4, ge=1, description="entropy: rates that each crop is coded at in a step.")
    initial: Path | None = Field(
        default=None, description="Weights to start from: a weights file, or averaged weights of another run."
    )

    accelerator: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="Kind of device.")
    devices: int | Literal["auto"] = Field(default="auto", description="How many devices; auto: all GPUs, or one CPU.")
    precision: Literal["auto", "bf16-mixed", "32-true"] = Field(
        default="auto", description="Arithmetic; auto: bf16-mixed where the device multiplies bfloat16 natively."
    )
    compile: bool = Field(default=False, description="Compile the networks (pays on a GPU, after a minute).")
    threads: int = Field(default=0, ge=0, description="CPU threads; 0: as torch chooses.")

    log_every: int = Field(default=50, ge=1, description="Steps between two lines of the log.")
    save_every_s: float = Field(default=120.0, ge=0, description="Seconds between two checkpoints.")
    evaluate_every: int = Field(default=2000, ge=1, description="Steps between two evaluations.")
    evaluate_pictures: int = Field(default=8, ge=1, description="Images of an evaluation.")

    @property
    def uses_features(self) -> bool:
        """True where `perceptual` is used."""
        return self.rho > 0 or (self.part == "denoiser" and (self.perceptual_scale > 0 or self.critic > 0))

    @model_validator(mode="after")
    def _check(self) -> TrainingConfig:
        if self.rho > 0 and self.perceptual is None:
            raise ValueError("rho above 0 needs `perceptual`")
        if self.snr_min > self.snr_max:
            raise ValueError("snr_min is above snr_max")
        if self.architecture != "cdc-eps" and self.weighting == "l1":
            raise ValueError("weighting l1 is of the noise: it needs cdc-eps")
        if self.part in ("entropy", "denoiser") and self.architecture != "cdc-lite":
            raise ValueError(f"part {self.part} is of cdc-lite")
        if self.part == "entropy" and self.rho > 0:
            raise ValueError("part=entropy trains by rate alone: no rho")
        if self.part == "denoiser" and self.uses_features and self.perceptual is None:
            raise ValueError("part=denoiser needs `perceptual`, the features that its samples are judged by")
        if self.critic > 0 and self.part != "denoiser":
            raise ValueError("critic needs part=denoiser")
        if self.critic > 0 and (self.perceptual or "").startswith("lpips:"):
            raise ValueError("a critic reads feature maps: squeezenet, vgg19 or torchscript, not lpips")
        if self.rho > 0 and self.part == "denoiser":
            raise ValueError("part=denoiser has no rho: its factors are score_scale, perceptual_scale and error_scale")
        return self


# The paper's recipe (section 4.1 and the published checkpoints; design notes in docs/training.md).
_PAPER: dict[str, Any] = {
    "steps": 1_500_000,
    "lr": 5e-5,
    "lr_schedule": "steps",
    "lr_warmup": 0,
    "lr_final": 2e-5,
    "betas": (0.9, 0.999),
    "lambda_warmup_steps": 500_000,
    "snr_min": 0.0,
    "ema": 0.999,
    "precision": "32-true",
}
PRESETS: dict[str, dict[str, Any]] = {
    "lite": {},
    "lite-sampler": {
        "part": "denoiser",
        "lr": 1e-3,
        "crop": 128,
        "batch": 8,
        "ema": 0.999,
        "perceptual": "lpips:vgg",
        "perceptual_scale": 30.0,
    },
    "paper-x": {**_PAPER, "architecture": "cdc-x"},
    "paper-eps": {**_PAPER, "architecture": "cdc-eps", "weighting": "l1"},
}


def resolve(preset: str, overrides: Mapping[str, Any] | None = None, assignments: Sequence[str] = ()) -> TrainingConfig:
    """Return a preset with some values replaced.

    Args:
        preset: a name in `PRESETS`.
        overrides: values by name.
        assignments: texts "name=value"; the value is JSON, or else a plain text.

    Raises:
        InvalidParameter: no such preset or value, or one out of range; the message names it.
    """
    if preset not in PRESETS:
        raise InvalidParameter(f"no preset {preset!r}; there are {', '.join(PRESETS)}")
    values = {**PRESETS[preset], **(overrides or {})}
    for text in assignments:
        name, equals, value = text.partition("=")
        if not equals:
            raise InvalidParameter(f"{text!r} is not of the form name=value")
        values[name.strip()] = _parse(value)
    try:
        return TrainingConfig(**values)
    except ValidationError as error:
        faults = (f"{'.'.join(map(str, e['loc'])) or 'configuration'}: {e['msg']}" for e in error.errors())
        raise InvalidParameter("; ".join(faults)) from None


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
