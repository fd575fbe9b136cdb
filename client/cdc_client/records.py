"""What calls return. Answers may grow members: those that this version does not know are passed over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

State = Literal["queued", "running", "succeeded", "failed", "cancelled", "expired"]


@dataclass(frozen=True)
class File:
    """A file the service made.

    Attributes:
        content: its bytes, or where they were written.
        media_type: such as image/x-cdc or image/png.
        width, height: of the image, in pixels.
        bpp: bits per pixel of the `.cdc` file.
        model: name of the model that made it.
        seconds: time of each stage in the service, by its name.
        digest: SHA-256 of the bytes, hexadecimal.
        request_id: names the call in the logs of the service.
    """

    content: bytes | Path = field(repr=False)
    media_type: str
    width: int
    height: int
    bpp: float
    model: str
    seconds: Mapping[str, float] = field(repr=False)
    digest: str = field(repr=False)
    request_id: str | None = field(repr=False)

    @property
    def path(self) -> Path | None:
        """The file it was written to as it came, if the call was given `out`."""
        return self.content if isinstance(self.content, Path) else None

    @property
    def data(self) -> bytes:
        """The bytes; read from the file if they were written to one."""
        return self.content.read_bytes() if isinstance(self.content, Path) else self.content

    def save(self, path: str | Path) -> Path:
        """Write the bytes to a file and return its path."""
        path = Path(path)
        path.write_bytes(self.data)
        return path


@dataclass(frozen=True)
class Encoded(File):
    """A `.cdc` file. `quality` is the nearest of 1..100, None for a model of one rate.

    `target` is "met" or "unmet" where `target_bpp` or `max_bytes` was asked for: a model has a highest rate.
    """

    quality: int | None
    target: str | None = None


@dataclass(frozen=True)
class Decoded(File):
    """An image. `steps`, `gamma` and `seed` are those it was made with."""

    steps: int
    gamma: float
    seed: int


@dataclass(frozen=True)
class Model:
    """An installed model. A decode that asks for no steps or gamma takes its defaults."""

    name: str
    codec_id: str
    default_steps: int
    default_gamma: float
    max_steps: int
    parameters: int
    default: bool
    version: int
    fixed_rate: bool
    max_effort: int
    max_pixels: int | None


@dataclass(frozen=True)
class Section:
    """A section of a file; `bytes` is the length of its data."""

    type: int
    name: str
    bytes: int


@dataclass(frozen=True)
class Cost:
    """What a decode with default parameters costs; None where no installed model fits."""

    steps: int | None
    pixel_steps: int | None
    within_limits: bool


@dataclass(frozen=True)
class Inspection:
    """What a `.cdc` file says of itself."""

    width: int
    height: int
    codec_id: str
    rate: int
    quality: int | None
    bytes: int
    bpp: float
    sections: tuple[Section, ...]
    models: tuple[str, ...]
    decode_cost: Cost


@dataclass(frozen=True)
class JobResult:
    """Where the result of a job is."""

    href: str
    media_type: str
    bytes: int


@dataclass(frozen=True)
class JobStatus:
    """A job as it stood. `estimate_seconds` is until its end; `step` of `steps` are done, of a decode."""

    id: str
    operation: Literal["encode", "decode"]
    state: State
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    expires_at: datetime | None
    position: int | None
    estimate_seconds: float | None
    step: int | None
    steps: int | None
    error: dict[str, Any] | None
    result: JobResult | None

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.state not in ("queued", "running")


@dataclass(frozen=True)
class Link:
    """A link to a result that needs no key until it expires."""

    href: str
    expires_at: datetime


@dataclass(frozen=True)
class JobEvent:
    """Something that happened to a job.

    Attributes:
        id: number of the event; grows.
        type: "state", "progress" or "preview".
        status: of a state event.
        step, steps: of a progress or preview event.
        image: of a preview: an image file of the x0 estimate; None if it is no longer kept.
        media_type: of `image`.
    """

    id: int
    type: str
    status: JobStatus | None = None
    step: int | None = None
    steps: int | None = None
    image: bytes | None = field(default=None, repr=False)
    media_type: str | None = None
