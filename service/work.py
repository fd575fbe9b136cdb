"""What is asked for and what comes of it: typed records, made once at the door. No HTTP, no torch, no Pillow."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Literal

from model.config import DEFAULT_EFFORT
from model.container import Container
from service.framing import Fit, Frame

Operation = Literal["encode", "decode"]
Format = Literal["png", "webp", "jpeg"]
Colour = Literal["keep", "srgb"]


class WorkState(StrEnum):
    """How far work is, as its owner sees it. "expired": the result is no longer kept."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"

    @property
    def ended(self) -> bool:
        """True when nothing will change any more but that the result expires."""
        return self not in (WorkState.QUEUED, WorkState.RUNNING)


@dataclass(frozen=True)
class EncodeOptions:
    """How to encode. At most one of `quality` (1..100), `target_bpp` (> 0), `max_bytes` (> 0); none: quality 50.

    `effort` 1..9 is what the encoder spends: one pass, or ever more rounds of refinement. `colour` keeps a space that
    has a name, or converts to sRGB. `drawing` says what becomes of an image that is smaller without loss, see
    `service.images.drawings`.
    """

    quality: int | None = None
    target_bpp: float | None = None
    max_bytes: int | None = None
    effort: int = DEFAULT_EFFORT
    model: str | None = None
    alpha: Literal["keep", "drop"] = "keep"
    metadata: Literal["strip", "copyright", "keep"] = "strip"
    frame: Literal["first"] | None = None
    colour: Colour = "keep"
    drawing: Literal["refuse", "allow"] = "refuse"
    operation: Literal["encode"] = "encode"


@dataclass(frozen=True)
class DecodeOptions:
    """How to decode; None stands for the model's, or the file's, own value.

    Attributes:
        steps: denoising steps; "auto" is as many as fit the time, see `Work.steps`.
        gamma: strength of what is sampled, 0..2.
        seed: of the start noise, 0..2**63-1.
        format: of the image file.
        deterministic: bit-equal on one type of device, whatever the load.
        preview: send the x0 estimate with every step.
        colour: keep the file's space, or convert to sRGB.
        region, width, height, fit: what of the image, and at what size; see `service.framing.frame_of`.
    """

    steps: int | Literal["auto"] | None = None
    gamma: float | None = None
    seed: int | None = None
    model: str | None = None
    format: Format = "png"
    deterministic: bool = False
    preview: bool = False
    region: str | None = None
    width: int | None = None
    height: int | None = None
    fit: Fit = "inside"
    colour: Colour = "keep"
    operation: Literal["decode"] = "decode"


Options = EncodeOptions | DecodeOptions


@dataclass(frozen=True)
class Work:
    """One thing to do, checked against all limits that show without doing it.

    Attributes:
        options: how, and whether it is an encode or a decode.
        body: the uploaded file.
        digest: sha256 of the body, hexadecimal.
        width, height: of what is coded or decoded, in pixels; of an encode before orientation, of a decode those of
            its region.
        container: of a decode, the parsed file, whose checksum holds.
        frame: of a decode, its region and size.
        reduction: of a decode, the fraction 1/n of the size that it is done at.
        steps: of a decode, the denoising steps it will take; of an encode, those that its refinement is worth.
        cost: estimated device work, in pixels of one denoising step of the default model.
        request_id: of the request that brought it, for the logs.
    """

    options: Options
    body: bytes = field(repr=False)
    digest: str = ""
    width: int = 0
    height: int = 0
    container: Container | None = field(default=None, repr=False)
    frame: Frame | None = None
    reduction: int = 1
    steps: int = 0
    cost: float = 0.0
    request_id: str | None = None

    @property
    def repeatable(self) -> bool:
        """True when the same work always has the same result, so that one execution may serve several jobs."""
        return not (isinstance(self.options, DecodeOptions) and (self.options.steps == "auto" or self.options.preview))

    def fingerprint(self) -> str:
        """Sha256 over all that was asked for, hexadecimal."""
        options = self.options if self.options.operation == "encode" else replace(self.options, preview=False)
        return hashlib.sha256(f"{options} {self.digest}".encode()).hexdigest()


@dataclass(frozen=True)
class Metadata:
    """What a result says of itself: bits per pixel, sizes in pixels, the parameters that were used.

    `target` is "met" or "unmet" where an encode was asked for a size.
    """

    bpp: float
    width: int
    height: int
    model: str
    codec_id: str
    quality: int | None = None
    steps: int | None = None
    gamma: float | None = None
    seed: int | None = None
    target: str | None = None


@dataclass(frozen=True)
class Result:
    """What came of work: the file, its media type and sha256 in hexadecimal, and the seconds of each stage."""

    data: bytes = field(repr=False)
    media_type: str
    digest: str
    metadata: Metadata
    seconds: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Progress:
    """`step` of `steps` denoising steps, or rounds of refinement, are done.

    `preview` is a small JPEG of the x0 estimate, where asked for.
    """

    step: int
    steps: int
    preview: bytes | None = field(default=None, repr=False)
