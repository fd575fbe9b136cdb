"""Records of the job road: what a store keeps, and what an owner sees. They survive JSON; no HTTP, no Redis."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Literal

from model import errors as codec_errors
from service import errors as service_errors
from service.errors import Busy, ServiceError
from service.work import Metadata, Operation, Options, Progress, WorkState

ID_BYTES = 18  # 144 random bits: an id cannot be guessed


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
        if not (isinstance(kind, type) and issubclass(kind, ServiceError | codec_errors.CodecError)):
            return ServiceError(self.detail)
        return kind(self.detail, self.retry_after or 1.0) if issubclass(kind, Busy) else kind(self.detail)


@dataclass(frozen=True)
class ResultInfo:
    """A result without its bytes, which are a blob: see `Result`."""

    media_type: str
    digest: str
    size: int
    metadata: Metadata
    seconds: dict[str, float]


@dataclass(frozen=True)
class Execution:
    """Work under way or done, and the jobs that want it. Times are seconds since 1970.

    Attributes:
        options, steps, seconds: what is to be done, and the device seconds it is estimated to take.
        request_id: of the request that brought it.
        share: key under which identical work finds it; empty for work that is not shared.
        direct: nobody but requests that wait for it want it.
        jobs: ids of the jobs, each with its idempotency key or "".
        ttl_s: seconds the result is to be kept.
        fence: number of the present attempt; what another one says is refused.
        deaths: attempts that neither ended nor were released.
        released: the present attempt was given up by its worker, without blame.
        events: how many there are.
        hooks: jobs whose end a webhook tells.
        attempted_at: when the present attempt began.
        trace: traceparent of the submission that began it, "" for none.
    """

    options: Options
    steps: int
    seconds: float
    request_id: str | None
    share: str
    direct: bool
    ttl_s: float
    queued_at: float
    jobs: dict[str, str] = field(default_factory=dict)
    hooks: tuple[str, ...] = ()
    state: WorkState = WorkState.QUEUED
    fence: int = 0
    deaths: int = 0
    released: bool = False
    events: int = 0
    step: int | None = None
    step_of: int | None = None
    started_at: float | None = None
    finished_at: float | None = None
    expires_at: float | None = None
    failure: Failure | None = None
    result: ResultInfo | None = None
    attempted_at: float | None = None
    trace: str = ""


@dataclass(frozen=True)
class JobRecord:
    """A job: whose it is and which execution it wants; the rest follows from that.

    Attributes:
        joined: how many events the execution had when the job joined it.
        told: events of its own that come before: 1 "queued", 2 "queued" and "running".
        cancelled_at, cancelled_events, expires_at: of a job that was cancelled, the second as `joined`.
    """

    owner: str
    operation: Operation
    execution: str
    created_at: float
    joined: int
    told: int
    cancelled_at: float | None = None
    cancelled_events: int | None = None
    expires_at: float | None = None


@dataclass(frozen=True)
class KeyRecord:
    """An idempotency key: the job that it made, and of what."""

    job: str
    fingerprint: str


@dataclass(frozen=True)
class ShareRecord:
    """The execution that identical work joins."""

    execution: str


@dataclass(frozen=True)
class HookRecord:
    """A webhook of a job, from its submission until it is no longer kept.

    Attributes:
        owner: of the job.
        url: where it goes.
        state: "waiting" for the end of the job, "pending", "delivered", "dead" once nothing more is tried.
        attempts: how often it was sent; the first at `first_at`, seconds since 1970.
        error: why the last one failed.
        trace: traceparent of the submission, "" for none.
    """

    owner: str
    url: str
    state: Literal["waiting", "pending", "delivered", "dead"] = "waiting"
    attempts: int = 0
    first_at: float | None = None
    error: str = ""
    trace: str = ""


@dataclass(frozen=True)
class BatchRecord:
    """A batch of requests.

    Attributes:
        owner: whose it is.
        total, completed, failed: lines.
        created_at, finished_at: seconds since 1970.
        state: "expired": its file was no longer kept.
        next: the first line that is not done yet.
        trace: traceparent of its submission, "" for none.
    """

    owner: str
    total: int
    created_at: float
    state: Literal["in_progress", "completed", "cancelled", "expired"] = "in_progress"
    next: int = 0
    completed: int = 0
    failed: int = 0
    finished_at: float | None = None
    trace: str = ""


Record = Execution | JobRecord | KeyRecord | ShareRecord | HookRecord | BatchRecord


@dataclass(frozen=True)
class Entry:
    """An event of an execution: a state it came into, or a step; `preview` names a blob."""

    state: WorkState | None = None
    step: int = 0
    steps: int = 0
    preview: str = ""


@dataclass(frozen=True)
class Job:
    """A job as its owner sees it.

    Attributes:
        id: unguessable.
        owner: name of the key that submitted it; nobody else sees it.
        created_at, started_at, finished_at, expires_at: seconds since 1970; the last is when the result goes.
        position: how many executions come first, while queued.
        estimate_seconds: until it is done, while queued or running.
        step, steps: of a running decode.
        failure: why it failed.
        result: of its result, once it succeeded.
    """

    id: str
    owner: str
    operation: Operation
    state: WorkState
    created_at: float
    started_at: float | None = None
    finished_at: float | None = None
    expires_at: float | None = None
    position: int | None = None
    estimate_seconds: float | None = None
    step: int | None = None
    steps: int | None = None
    failure: Failure | None = None
    result: ResultInfo | None = None


@dataclass(frozen=True)
class Event:
    """Something that happened to a job. `id` counts from 1 without gaps; `data` is a Job for "state"."""

    id: int
    type: Literal["state", "progress", "preview"]
    data: Job | Progress


def new_id() -> str:
    """Return a new id, URL-safe."""
    return secrets.token_urlsafe(ID_BYTES)
