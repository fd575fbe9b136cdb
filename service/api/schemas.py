"""What goes in as query and comes out as JSON."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, WithJsonSchema, model_validator

from service.framing import REGION_PATTERN
from service.outside.fetching import SOURCE_PATTERN

ModelName = Annotated[
    str | None,
    Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
        description="Name of the model, as in GET /models; left out: the default, or the newest fitting the file.",
        examples=["cdc-lite"],
    ),
]


class _Query(BaseModel):
    """A parameter that does not exist is refused: a misspelt one would otherwise be obeyed by silence."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Source = Annotated[
    str | None,
    Field(
        pattern=SOURCE_PATTERN,
        max_length=2048,
        description="Instead of a body: an https:// address or s3://bucket/key, where this service allows it.",
        examples=["https://images.example.org/photo.jpg"],
    ),
]


Callback = Annotated[
    str | None,
    Field(
        pattern=r"^https?://[!-~]{1,2040}$",
        description="Of a job: an https:// address that is told its end, as Standard Webhooks say, for up to a day.",
        examples=["https://example.org/cdc-hook"],
    ),
]


class EncodeQuery(_Query):
    """Query of POST /encode."""

    source: Source = None
    callback: Callback = None
    quality: int | None = Field(default=None, ge=1, le=100, description="Quality 1..100; left out: 50.", examples=[50])
    target_bpp: float | None = Field(
        default=None,
        gt=0,
        le=64,
        allow_inf_nan=False,
        description="Aim at this many bits per pixel of the whole file, instead of a quality.",
        examples=[0.25],
    )
    max_bytes: int | None = Field(
        default=None,
        ge=1,
        lt=2**63,
        description="Best quality within this many bytes, instead of a quality.",
        examples=[20000],
    )
    model: ModelName = None
    alpha: Literal["keep", "drop"] = Field(
        default="keep", description="keep: transparency is stored without loss; drop: the image is laid over white."
    )
    metadata: Literal["strip", "copyright", "keep"] = Field(
        default="strip",
        description="copyright: creator, credit, copyright and terms of EXIF, IPTC and XMP are kept; keep: these, and "
        "EXIF without location, maker notes and thumbnail.",
    )
    frame: Literal["first"] | None = Field(
        default=None, description="first: take the first frame of an animation, which is refused otherwise."
    )
    drawing: Literal["refuse", "allow"] = Field(
        default="refuse",
        description="refuse: an icon, screenshot or line art that is smaller as lossless WebP than above quality 50 is "
        "answered with advice; allow: it is encoded all the same.",
    )
    colour: Literal["keep", "srgb"] = Field(
        default="keep",
        description="keep: Display P3, Adobe RGB and ProPhoto RGB stay so, all else becomes sRGB; srgb: all.",
    )

    @model_validator(mode="after")
    def _one_target(self) -> Self:
        if sum(value is not None for value in (self.quality, self.target_bpp, self.max_bytes)) > 1:
            raise ValueError("quality, target_bpp and max_bytes exclude each other: give one")
        return self


def _parse_steps(value: object) -> int | Literal["auto"] | None:
    if value is None or value == "auto":
        return value
    if not re.fullmatch(r"[0-9]{1,9}", str(value)) or int(str(value)) < 1:
        raise ValueError("must be a whole number, at least 1, or auto")
    return int(str(value))


class InspectQuery(_Query):
    """Query of POST /inspect, which has no parameters."""


class DecodeQuery(_Query):
    """Query of POST /decode."""

    source: Source = None
    callback: Callback = None
    steps: Annotated[
        int | Literal["auto"] | None,
        PlainValidator(_parse_steps),
        WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1}, {"const": "auto"}]}),
    ] = Field(
        default=None,
        description=(
            "Denoising steps; left out: the model's own default. `auto`: as many as the present load affords within "
            "the deadline; X-Cdc-Steps says how many."
        ),
        examples=[17],
    )
    gamma: float | None = Field(
        default=None,
        ge=0,
        le=2,
        allow_inf_nan=False,
        description=(
            "Strength of what is sampled: 0 gives one image for every seed, 1 texture as the original's; left out: "
            "the model's own default."
        ),
        examples=[0.8],
    )
    seed: int | None = Field(
        default=None,
        ge=0,
        lt=2**63,
        description="Seed of the start noise; left out: derived from the file.",
        examples=[42],
    )
    model: ModelName = None
    deterministic: bool = Field(
        default=False,
        description="Bit-equal pixels on one type of device whatever else is served; slower under load.",
    )
    format: Literal["png", "webp", "jpeg"] | None = Field(
        default=None, description="Format of the answer; left out: by the Accept header, else png."
    )
    preview: bool = Field(default=False, description="For a job: send the x0 estimate with every step, as an event.")
    region: str | None = Field(
        default=None,
        pattern=REGION_PATTERN,
        description=(
            "The part to decode, `x,y,w,h` in pixels or `pct:x,y,w,h` in percent; what lies outside the image is left "
            "out. Its pixels are those of the whole decode; only what it needs is computed."
        ),
        examples=["0,0,512,512"],
    )
    width: int | None = Field(
        default=None,
        ge=1,
        le=65535,
        description="Width of the answer in pixels; alone, the height follows. Nothing is enlarged.",
        examples=[320],
    )
    height: int | None = Field(
        default=None, ge=1, le=65535, description="Height of the answer in pixels; alone, the width follows."
    )
    fit: Literal["inside", "contain", "cover"] = Field(
        default="inside",
        description=(
            "With width and height. inside: as large as fits, in proportion; contain: the same, padded to exactly that "
            "size; cover: exactly that size, of the middle of the region."
        ),
    )
    colour: Literal["keep", "srgb"] = Field(
        default="keep", description="keep: the file's colour space, with its profile; srgb: converted."
    )


class Problem(BaseModel):
    """An error as in RFC 9457."""

    type: str = Field(description="Kind of problem; never changes.", examples=["/problems/checksum-mismatch"])
    title: str = Field(description="The kind in words.")
    status: int = Field(description="HTTP status.")
    detail: str = Field(description="What is wrong with this request.")
    instance: str | None = Field(description="Id of the request, as in X-Request-Id.")
    errors: list[ParameterFault] | None = Field(default=None, description="For invalid-parameter: each fault.")


class ParameterFault(BaseModel):
    """A parameter that failed validation."""

    model_config = ConfigDict(populate_by_name=True)

    place: str = Field(alias="in", description="query, form, header or path.")
    parameter: str | None = Field(description="Its name; null for a rule over several.")
    message: str = Field(description="What is wrong with it.")


class ModelAnswer(BaseModel):
    """An installed model."""

    model_config = ConfigDict(from_attributes=True)

    name: str
    codec_id: str = Field(description="16 hexadecimal digits; files with this id decode with this model.")
    default_steps: int = Field(description="Steps of a decode that asks for none.")
    default_gamma: float = Field(description="Gamma of a decode that asks for none.")
    max_steps: int
    parameters: int = Field(description="Number of weights.")
    default: bool = Field(description="True for the model that encodes when none is asked for.")
    version: int = Field(description="Of the weights; of those with one codec id the highest decodes.")
    fixed_rate: bool = Field(description="True for a model of one rate, which takes no quality.")
    max_pixels: int | None = Field(
        description="Largest image it takes, sides counted in multiples of 64; null: no limit of its own."
    )


class ModelsAnswer(BaseModel):
    """The installed models."""

    models: list[ModelAnswer]


class SectionAnswer(BaseModel):
    """A section of a file."""

    type: int = Field(description="Section type, 1..255.")
    name: str = Field(description="HYPER, LATENT, ALPHA, EXIF or UNKNOWN.")
    bytes: int = Field(description="Length of its data.")


class DecodeCost(BaseModel):
    """What a decode with the default steps would cost; null where no installed model fits."""

    steps: int | None
    pixel_steps: int | None = Field(description="Pixels x steps.")
    within_limits: bool = Field(description="True when POST /decode takes the file with its default parameters.")


class InspectAnswer(BaseModel):
    """What a `.cdc` file says of itself."""

    width: int
    height: int
    codec_id: str
    rate: int = Field(description="Rate byte, 0..255.")
    quality: int | None = Field(description="The quality 1..100 nearest to the rate byte; null if there is one rate.")
    bytes: int = Field(description="Size of the whole file.")
    bpp: float = Field(description="Bits per pixel of the whole file.")
    sections: list[SectionAnswer]
    models: list[str] = Field(description="Installed models that decode it.")
    decode_cost: DecodeCost


class JobResultAnswer(BaseModel):
    """Where the result of a job is."""

    href: str = Field(examples=["/jobs/3q2-7wAAaBcDeFgHiJkLmNoP/result"])
    media_type: str
    bytes: int


class JobAnswer(BaseModel):
    """A job. Times are in UTC as in RFC 3339."""

    id: str
    operation: Literal["encode", "decode"]
    state: Literal["queued", "running", "succeeded", "failed", "cancelled", "expired"]
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    expires_at: datetime | None = Field(description="When the result goes.")
    position: int | None = Field(description="How many come first, while queued.")
    estimate_seconds: float | None = Field(description="Until it is done, while queued or running.")
    step: int | None = Field(description="Denoising steps done, of a decode.")
    steps: int | None
    error: Problem | None = Field(description="Why it failed.")
    result: JobResultAnswer | None = Field(description="Once it succeeded.")


class JobsQuery(_Query):
    """Query of GET /jobs."""

    limit: int = Field(default=50, ge=1, le=200, description="Jobs of a page.")
    after: str | None = Field(
        default=None, pattern=r"^[A-Za-z0-9_-]{1,64}$", description="The member `next` of the page before."
    )


class JobsAnswer(BaseModel):
    """A page of jobs, the newest first."""

    jobs: list[JobAnswer]
    next: str | None = Field(description="For `after` of the next page; null on the last one.")


class CallbackAnswer(BaseModel):
    """How the webhook of a job fares."""

    state: Literal["waiting", "pending", "delivered", "dead"] = Field(
        description="waiting for the end of the job; pending: being tried; dead: given up."
    )
    attempts: int
    error: str | None = Field(description="Why the last attempt failed.")


class BatchAnswer(BaseModel):
    """A batch of requests."""

    id: str
    state: Literal["in_progress", "completed", "cancelled", "expired"]
    total: int
    completed: int
    failed: int
    created_at: datetime
    finished_at: datetime | None
    output: str = Field(description="Where the lines that succeeded are.")
    errors: str = Field(description="Where the lines that failed are.")


class LinkQuery(_Query):
    """Query of POST /jobs/{id}/links."""

    ttl_s: int = Field(default=3600, ge=1, le=7 * 86400, description="Seconds the link is good for.", examples=[3600])


class LinkAnswer(BaseModel):
    """A link to the result of a job that needs no key."""

    href: str = Field(examples=["/links/WyJqb2IiXQ.c2lnbmF0dXJl"])
    expires_at: datetime


class VersionAnswer(BaseModel):
    """Versions of the service and of the file format it writes."""

    version: str
    format_version: int


class HealthAnswer(BaseModel):
    """The state of the service."""

    status: Literal["live", "ready"]


Problem.model_rebuild()
JobAnswer.model_rebuild()
