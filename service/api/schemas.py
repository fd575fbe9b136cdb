"""What comes out as JSON."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


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
    max_effort: int = Field(description="Highest effort of an encode.")
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
