"""What goes through the job queue: plain records that survive JSON. No HTTP, no Redis."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from model import errors as codec_errors
from service import errors as service_errors
from service.errors import Busy, ServiceError

Operation = Literal["encode", "decode"]
State = Literal["queued", "running", "succeeded", "failed", "cancelled", "expired"]
ENDED: tuple[State, ...] = ("succeeded", "failed", "cancelled", "expired")
ID_BYTES = 18  # 144 random bits: an id cannot be guessed


@dataclass(frozen=True)
class Work:
    """What is to be done.

    Attributes:
        operation: "encode" or "decode".
        body: the uploaded file.
        options: of the operation, as JSON values; the fields of `EncodeOptions` or `DecodeOptions`.
        previews: send the x0 estimate with every step.
        cost: estimated device work, in pixels of one denoising step of the default model.
        request_id: of the request that brought it, for the logs.
    """

    operation: Operation
    body: bytes = field(repr=False)
    options: Mapping[str, Any] = field(default_factory=dict)
    previews: bool = False
    cost: float = field(default=0.0, compare=False)
    request_id: str | None = field(default=None, compare=False)

    @property
    def repeatable(self) -> bool:
        """True when the same work always has the same answer, so that one execution may serve several jobs."""
        return self.options.get("steps") != "auto"

    @cached_property
    def body_sha256(self) -> str:
        """Sha256 of the body, hexadecimal; blocks for a large one when it is first asked for."""
        return hashlib.sha256(self.body).hexdigest()

    def fingerprint(self) -> str:
        """Sha256 over all that decides the answer, hexadecimal."""
        lasting = {name: value for name, value in self.options.items() if name != "seconds_left"}  # no two share it
        text = json.dumps([self.operation, lasting, self.body_sha256], sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def share_key(fingerprint: str, generation: str) -> str:
    """Under what name the answer to work is kept for identical work: another generation of models has another."""
    return hashlib.sha256(f"{fingerprint} {generation}".encode()).hexdigest()


@dataclass(frozen=True)
class Answer:
    """What an operation gave.

    Attributes:
        data: the file.
        media_type: of it.
        digest: sha256 of the file, hexadecimal.
        facts: what the answer says of itself (bpp, width, model ...), by name.
        seconds: time of each stage.
    """

    data: bytes = field(repr=False)
    media_type: str
    digest: str
    facts: Mapping[str, str]
    seconds: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Step:
    """How far a decode is; `preview` is a small WebP file, where previews were asked for."""

    step: int
    steps: int
    preview: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Failure:
    """An error that crosses a process boundary: its class by name, its message, when to come back."""

    error: str
    detail: str
    retry_after: float | None = None

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """Describe an error; what an unforeseen one says stays in the log of its process."""
        if isinstance(error, ServiceError | codec_errors.CodecError):
            retry = error.retry_after if isinstance(error, Busy) else None
            return cls(type(error).__name__, str(error), retry)
        return cls(ServiceError.__name__, "an unexpected error")

    def exception(self) -> Exception:
        """Return an error of the same class."""
        kind = getattr(service_errors, self.error, None) or getattr(codec_errors, self.error, None)
        if kind is Busy:
            return Busy(self.detail, self.retry_after or 1.0)
        if isinstance(kind, type) and issubclass(kind, ServiceError | codec_errors.CodecError):
            return kind(self.detail)
        return ServiceError(self.detail)


@dataclass(frozen=True)
class Job:
    """A job as its owner sees it.

    Attributes:
        id: unguessable.
        owner: name of the key that submitted it; nobody else sees it.
        operation: what is done.
        state: queued, running, or how it ended; "expired" when the result is no longer kept.
        created_at, started_at, finished_at, expires_at: seconds since 1970; the last is when the result goes.
        position: how many executions come first, while queued.
        estimate_seconds: until it is done, while queued or running.
        step, steps: of a running decode.
        failure: why it failed.
        media_type, size, digest: of the result, in bytes and sha256 in hexadecimal, once succeeded.
    """

    id: str
    owner: str
    operation: Operation
    state: State
    created_at: float
    started_at: float | None = None
    finished_at: float | None = None
    expires_at: float | None = None
    position: int | None = None
    estimate_seconds: float | None = None
    step: int | None = None
    steps: int | None = None
    failure: Failure | None = None
    media_type: str | None = None
    size: int | None = None
    digest: str | None = None

    @property
    def ended(self) -> bool:
        """True when nothing about it will change but that its result expires."""
        return self.state in ENDED


@dataclass(frozen=True)
class Event:
    """Something that happened to a job. `id` counts from 1 without gaps; `data` is a Job for "state", else a Step."""

    id: int
    type: Literal["state", "progress", "preview"]
    data: Job | Step


def new_id() -> str:
    """Return a new job id, URL-safe."""
    return secrets.token_urlsafe(ID_BYTES)
