"""What goes in as query."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, WithJsonSchema, model_validator

from model.config import DEFAULT_EFFORT, MAX_EFFORT
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
    effort: int = Field(
        default=DEFAULT_EFFORT,
        ge=1,
        le=MAX_EFFORT,
        description="1: one pass; higher: the symbols are refined for this image, in rounds of about seven times the "
        "work of a pass, for a file that is some percent smaller at the same error. Decoders do not change.",
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


class JobsQuery(_Query):
    """Query of GET /jobs."""

    limit: int = Field(default=50, ge=1, le=200, description="Jobs of a page.")
    after: str | None = Field(
        default=None, pattern=r"^[A-Za-z0-9_-]{1,64}$", description="The member `next` of the page before."
    )


class LinkQuery(_Query):
    """Query of POST /jobs/{id}/links."""

    ttl_s: int = Field(default=3600, ge=1, le=7 * 86400, description="Seconds the link is good for.", examples=[3600])
