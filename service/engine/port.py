"""What goes into the engine and what comes out: plain records that cross a process boundary. No torch, no HTTP."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, overload

import numpy as np
import numpy.typing as npt

from model.config import DEFAULT_EFFORT
from model.container import Container, Section
from model.tiling import Region, Tiling, encode_area, layout_of
from service.work import Progress

Pixels = npt.NDArray[np.uint8]
Kind = Literal["analyse", "condition", "denoise", "half", "quarter"]  # of forward passes
REDUCED: dict[int, Kind] = {1: "condition", 2: "half", 4: "quarter"}  # the conditioner's, by the fraction of the size

# Multiply-adds of a kind of pass per pixel, relative to one denoising step of cdc-lite (12.8 GFLOP at 768x512).
WEIGHT: dict[Kind, float] = {"denoise": 1.0, "condition": 2.1, "analyse": 0.8, "half": 0.8, "quarter": 0.4}
REFINEMENT_WEIGHT = 8  # of the gradients of a round: forwards and backwards through synthesis and entropy model
REFINEMENT_BYTES, REFINEMENT_PIXEL_BYTES = 700 << 20, 40  # of a tile's backward pass, and of a pixel's latents
SYMBOL_BYTES = 40  # a pixel of the whole image, in the worker, while its symbols are decoded


@dataclass(frozen=True)
class ModelInfo:
    """An installed model.

    Attributes:
        name: what `model=` takes.
        codec_id: 16 hexadecimal digits; files with this id decode with this model.
        default_steps: steps of a decode that asks for none.
        max_steps: most steps of a decode.
        parameters: number of weights.
        default: True for the model that encodes when none is asked for.
        fixed_rate: True for a model without qualities.
        max_pixels: largest image it takes, sides counted in multiples of 64; None for no limit of its own.
        step_cost: work of a denoising step per pixel, relative to cdc-lite's.
        decode_bytes, encode_bytes: memory per pixel in the worker while an image is decoded or encoded.
        version: of the weights; of those with one codec id the highest decodes.
        whole_canvas: True where a pass takes the whole image at once, and not tiles of it.
        margin, encoder_margin: pixels around a tile's centre in decoder and encoder.
        radius, step_radius: pixels around a region that decide it, see `model.tiling.Tiling`.
        default_gamma: strength of the start noise of a decode that asks for none.
        direct: True where a decode without noise runs no denoising pass.
        reductions: fractions 1/n of the size that it decodes an image at, without noise.
        max_effort: the highest effort of an encode.
    """

    name: str
    codec_id: str
    default_steps: int
    max_steps: int
    parameters: int
    default: bool
    fixed_rate: bool = False
    max_pixels: int | None = None
    step_cost: float = 1.0
    decode_bytes: int = 85  # docs/benchmarks.md, 40 megapixels
    encode_bytes: int = 80
    version: int = 0
    whole_canvas: bool = False
    margin: int = Tiling.margin
    encoder_margin: int = Tiling.encoder_margin
    direct: bool = False
    default_gamma: float = 0.0
    reductions: tuple[int, ...] = (1,)
    radius: int = Tiling.radius
    step_radius: int = Tiling.step_radius
    max_effort: int = 1

    def encode_cost(self, width: int, height: int) -> float:
        """Device work of an encode, in pixels of one denoising step of the default model, padding included."""
        return WEIGHT["analyse"] * self.step_cost * self.encode_pixels(width, height)

    def refinement_cost(self, width: int, height: int, rounds: int, *, sized: bool) -> float:
        """Work of its refinement, in the same unit."""
        return refinement_steps(rounds, sized=sized) * self.step_cost * self.encode_pixels(width, height)

    def encode_bytes_of(self, width: int, height: int, rounds: int = 0) -> int:
        """Memory that an encode takes in the worker."""
        refined = REFINEMENT_PIXEL_BYTES * width * height + REFINEMENT_BYTES if rounds else 0
        return self.encode_bytes * self.encode_pixels(width, height) + refined

    def decode_cost(self, work: Decode) -> float:
        """Device work of a decode, in the same unit."""
        return decode_passes(work, direct=self.direct) * self.step_cost * self.decode_pixels(work)

    def decode_bytes_of(self, work: Decode) -> int:
        """Memory that a decode takes in the worker."""
        symbols = 0 if work.region is None else SYMBOL_BYTES * work.width * work.height
        return self.decode_bytes * self.decode_pixels(work) + symbols

    def encode_pixels(self, width: int, height: int) -> int:
        """Pixels that the encoder computes, padding and margins of tiles included."""
        return encode_area(height, width, self.encoder_margin)

    def decode_pixels(self, work: Decode) -> int:
        """Pixels that a pass of the decoder computes, likewise."""
        tiling = Tiling(margin=self.margin, radius=self.radius, step_radius=self.step_radius)
        steps = 0 if self.direct and work.noiseless else work.steps
        return layout_of(work.width, work.height, tiling, work.region, steps, whole_canvas=self.whole_canvas).area

    def takes(self, width: int, height: int) -> bool:
        """True when an image of that size, sides rounded up to multiples of 64, is within the model's own limit."""
        return self.max_pixels is None or -(-width // 64) * -(-height // 64) * 64**2 <= self.max_pixels


def refinement_steps(rounds: int, *, sized: bool) -> int:
    """Denoising steps that cost as much as rounds of refinement; of a size that is asked for, two rates are refined."""
    return REFINEMENT_WEIGHT * (rounds + 1) * (1 + sized) if rounds else 0


@dataclass(frozen=True)
class Decode:
    """What the cost of a decode follows from: size of the image, region, steps, whether gamma is 0, fraction 1/n."""

    width: int
    height: int
    steps: int
    region: Region | None = None
    noiseless: bool = False
    reduction: int = 1


def decode_passes(work: Decode, *, direct: bool) -> float:
    """Passes of a decode, in denoising steps; without noise, of a model that can, it is the conditioner's alone."""
    return WEIGHT[REDUCED[work.reduction]] + (0 if direct and work.noiseless else WEIGHT["denoise"] * work.steps)


@dataclass(frozen=True)
class EncodeRequest:
    """One image to encode. At most one of `quality`, `target_bpp`, `max_bytes`; none means quality 50.

    Attributes:
        pixels: uint8 [H, W, 3], sRGB.
        model: name of the model, None for the default one.
        quality: 1..100.
        target_bpp: aim at this many bits per pixel, file overhead and extra sections included (> 0).
        max_bytes: the best quality whose file has at most this many bytes (> 0).
        sections: further sections of the file (alpha, EXIF), in file order.
        effort: 1..`max_effort` of the model.
    """

    pixels: Pixels
    model: str | None = None
    quality: int | None = None
    target_bpp: float | None = None
    max_bytes: int | None = None
    sections: tuple[Section, ...] = ()
    effort: int = DEFAULT_EFFORT


@dataclass(frozen=True)
class EncodeResult:
    """An encoded image: the file and what the answer says about it.

    `quality` is None for a model of one rate; `seconds` maps a stage to its time; `target` says whether the asked size
    was met, None where none was asked for.
    """

    data: bytes
    model: str
    codec_id: str
    width: int
    height: int
    rate: int
    quality: int | None
    bpp: float
    seconds: Mapping[str, float] = field(default_factory=dict)
    target: str | None = None


@dataclass(frozen=True)
class DecodeRequest:
    """One file to decode.

    Attributes:
        container: a parsed `.cdc` file.
        model: name of the model, None for the newest one with the file's codec id.
        steps: denoising steps, 1..max_steps of the model; None for the model's own default.
        gamma: 0..2, the strength of what is sampled; 0 is deterministic; None for the model's own default.
        seed: 0..2**63-1 for the start noise; None derives one from the file, so that the default is reproducible.
        deterministic: every tile has a forward pass of its own: bit-equal on one type of device, whatever the load.
        previews: send a small image of the x0 estimate with every step.
        region: the part to decode, None for all of it.
        reduction: decode at 1/n of the size, n among the model's `reductions`; the result covers the region to the
            next whole pixel outwards.
    """

    container: Container
    model: str | None = None
    steps: int | None = None
    gamma: float | None = None
    seed: int | None = None
    deterministic: bool = False
    previews: bool = False
    region: Region | None = None
    reduction: int = 1


@dataclass(frozen=True)
class DecodeResult:
    """A decoded image: uint8 [H, W, 3] and the parameters that were used. `sections` are the file's further ones."""

    pixels: Pixels
    model: str
    codec_id: str
    steps: int
    gamma: float
    seed: int
    sections: tuple[Section, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)


Order = EncodeRequest | DecodeRequest
Outcome = EncodeResult | DecodeResult
OnProgress = Callable[[Progress], None]


@dataclass(frozen=True)
class EngineStatus:
    """What a health check or a gauge wants to know.

    Attributes:
        ready: the worker has loaded its models and takes work.
        draining: no new work is taken.
        waiting: requests accepted and not yet started.
        running: requests being worked on.
        restarts: times a worker process died and was replaced.
        backlog_seconds: estimated device time of everything accepted and not done, refinements aside.
        refinement_seconds: that of the refinements.
        reason: why it is not ready, for people.
    """

    ready: bool
    draining: bool
    waiting: int
    running: int
    restarts: int
    backlog_seconds: float = 0.0
    refinement_seconds: float = 0.0
    reason: str = "the models are still being loaded"


class EngineView(Protocol):
    """What the door needs to know of an engine, here or elsewhere."""

    async def start(self) -> None:
        """Start the worker; returns when it is on its way, not when it is ready."""

    async def stop(self, grace: float) -> None:
        """Take no more work, wait up to `grace` seconds for running work, then end the worker."""

    def seconds_of(self, cost: float) -> float:
        """Estimate after how many seconds work of that cost would be done; cost is pixels x denoising steps."""

    def models(self) -> tuple[ModelInfo, ...]:
        """Return the installed models; empty until ready."""

    def status(self) -> EngineStatus:
        """Return the present state; never blocks."""


class Engine(EngineView, Protocol):
    """Where requests go. Errors are those of `model.errors` and `service.errors`."""

    @overload
    async def run(self, order: EncodeRequest, on_progress: OnProgress | None = None) -> EncodeResult: ...

    @overload
    async def run(self, order: DecodeRequest, on_progress: OnProgress | None = None) -> DecodeResult: ...

    async def run(self, order: Order, on_progress: OnProgress | None = None) -> Outcome:
        """Encode one image, or decode one file; `on_progress` is told of every denoising step and round of refinement.

        Cancelling the awaiting task cancels the work within one denoising step, or tile of a round.
        """
