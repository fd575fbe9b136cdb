"""What the OpenAPI document says beyond the signatures: binary bodies, response headers, problems."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from model.errors import (
    ChecksumMismatch,
    CorruptStream,
    InvalidParameter,
    MalformedFile,
    NotACdcFile,
    TargetUnreachable,
    TruncatedFile,
    UnknownCodec,
    UnknownModel,
    UnsupportedVersion,
)
from service.api import problems, refusals
from service.api.body import BYTES_TYPE, MEDIA_TYPES, MULTIPART
from service.api.schemas import JobAnswer, Problem
from service.errors import (
    AddressNotAllowed,
    AnimatedImage,
    BodyTooLarge,
    BrokenImage,
    Busy,
    DeadlineExceeded,
    Draining,
    JobExpired,
    KeyReused,
    KeysUnavailable,
    LinkExpired,
    LinkInvalid,
    NotAllowed,
    NotAuthenticated,
    NotReady,
    OutsideFailed,
    QueueUnavailable,
    RateLimited,
    TooManyPixels,
    TooMuchWork,
    UnknownBatch,
    UnknownJob,
    UnsupportedImage,
    WorkerFailed,
)

Responses = dict[int | str, dict[str, Any]]

BODY = (
    NotAuthenticated,
    NotAllowed,
    RateLimited,
    KeysUnavailable,
    refusals.MalformedRequest,
    refusals.EmptyBody,
    refusals.SlowBody,
    refusals.UnsupportedMediaType,
    BodyTooLarge,
    InvalidParameter,
)
SOURCE = (AddressNotAllowed, OutsideFailed)
WORK = (TooManyPixels, UnknownModel, Busy, Draining, NotReady, WorkerFailed, DeadlineExceeded)
FILE = (
    NotACdcFile,
    TruncatedFile,
    ChecksumMismatch,
    MalformedFile,
    UnsupportedVersion,
)
ACCESS = (NotAuthenticated, NotAllowed, RateLimited, KeysUnavailable)
JOB = (*ACCESS, UnknownJob, JobExpired, QueueUnavailable, InvalidParameter)
CALLBACK = (*ACCESS, UnknownJob, QueueUnavailable, InvalidParameter)
BATCH = (*ACCESS, UnknownBatch, QueueUnavailable, InvalidParameter)
BATCHES = (*BODY, Busy, Draining, NotReady, QueueUnavailable, AddressNotAllowed)
LINK = (LinkInvalid, LinkExpired, UnknownJob, JobExpired, QueueUnavailable, InvalidParameter)
ACCEPT = (KeyReused, QueueUnavailable)
ENCODE = (*BODY, *SOURCE, *WORK, *ACCEPT, UnsupportedImage, BrokenImage, AnimatedImage, TargetUnreachable)
DECODE = (
    *BODY,
    *SOURCE,
    *WORK,
    KeyReused,
    QueueUnavailable,
    *FILE,
    CorruptStream,
    UnknownCodec,
    TooMuchWork,
    refusals.NotAcceptable,
)
FAILURES = (UnsupportedImage, BrokenImage, AnimatedImage, TargetUnreachable, CorruptStream, WorkerFailed, *FILE)
INSPECT = (*BODY, *FILE, Busy, Draining, NotReady, DeadlineExceeded)

TAGS = [
    {"name": "codec", "description": "Images in, `.cdc` files out, and back; each call answers with the file itself."},
    {"name": "jobs", "description": "Work that outlives its request: `Prefer: respond-async` makes a job of it."},
    {"name": "batches", "description": "Many requests in one file, done while nobody else waits."},
    {"name": "operation", "description": "For those who run the service: health, version, metrics."},
]
_BINARY = {"type": "string", "format": "binary"}
_FILE = {**_BINARY, "minLength": 1, "description": "The file."}

_HEADERS: dict[str, tuple[str, str]] = {
    "ETag": ("string", "Strong validator: sha256 of the body, in quotes."),
    "Server-Timing": ("string", "Stages of the work and their milliseconds."),
    "X-Request-Id": ("string", "Id of the request, the caller's own if it sent one."),
    "X-Cdc-Bpp": ("number", "Bits per pixel of the .cdc file."),
    "X-Cdc-Width": ("integer", "Width in pixels."),
    "X-Cdc-Height": ("integer", "Height in pixels."),
    "X-Cdc-Model": ("string", "Model that did the work."),
    "X-Cdc-Codec-Id": ("string", "Codec id of the file, 16 hexadecimal digits."),
    "X-Cdc-Quality": ("integer", "Quality that was used, 1..100."),
    "X-Cdc-Target": (
        "string",
        "`met` or `unmet`: whether the size that was asked for is reached.",
    ),
    "X-Cdc-Steps": ("integer", "Denoising steps that were taken."),
    "X-Cdc-Gamma": ("number", "Strength of what was sampled."),
    "X-Cdc-Seed": ("integer", "Seed of the start noise."),
}
_COMMON = ("ETag", "Server-Timing", "X-Request-Id", "X-Cdc-Bpp", "X-Cdc-Width", "X-Cdc-Height", "X-Cdc-Model")
ENCODE_HEADERS = (*_COMMON, "X-Cdc-Codec-Id", "X-Cdc-Quality", "X-Cdc-Target")
DECODE_HEADERS = (*_COMMON, "X-Cdc-Codec-Id", "X-Cdc-Steps", "X-Cdc-Gamma", "X-Cdc-Seed")

DEADLINE_PARAMETER = {
    "name": "X-Deadline-Ms",
    "in": "header",
    "required": False,
    "description": "Milliseconds after which the work is cancelled and 504 answered.",
    "schema": {"type": "integer", "minimum": 1, "maximum": 999_999_999},
    "example": 30000,
}


JOB_PARAMETERS = [
    {
        "name": "Prefer",
        "in": "header",
        "required": False,
        "description": "`respond-async` answers 202 and a job; with `wait=N` if it takes over N seconds (RFC 7240).",
        "schema": {"type": "string"},
        "example": "respond-async, wait=5",
    },
    {
        "name": "Idempotency-Key",
        "in": "header",
        "required": False,
        "description": "The same key with the same request gives the same job or answer, for as long as a job is kept; "
        "with another request it is refused.",
        "schema": {"type": "string", "pattern": "^[!-~]{1,255}$"},
        "example": "9f3c1c52-7f0e-4c53-9d0b-7f3f6a1d2b11",
    },
]


def upload(query: type[BaseModel], *media_types: str) -> dict[str, Any]:
    """Return the operation's members for a raw upload of `media_types` or a multipart one, and the deadline header.

    The fields of a form beside `file` are those of `query`.
    """
    schemas = query.model_json_schema().get("properties", {})
    fields = {name: _of_form(schema) for name, schema in schemas.items() if name != "source"}  # instead of a form
    form = {
        "type": "object",
        "required": ["file"],
        "properties": {"file": _FILE, **fields},
        "additionalProperties": False,
    }
    content: dict[str, Any] = {MULTIPART: {"schema": form}}
    content.update({media_type: {"schema": _BINARY} for media_type in media_types})
    needed = "source" not in schemas
    return {"requestBody": {"required": needed, "content": content}, "parameters": [DEADLINE_PARAMETER]}


def _of_form(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of a parameter as a field of a form, which is left out where a query model says null."""
    kinds = [kind for kind in schema.get("anyOf", ()) if kind != {"type": "null"}]
    rest = {name: value for name, value in schema.items() if name != "anyOf"}
    return {**rest, **kinds[0]} if len(kinds) == 1 else {**rest, **({"anyOf": kinds} if kinds else {})}


def work_upload(query: type[BaseModel], *media_types: str) -> dict[str, Any]:
    """Return the same for work that can be a job: with the headers Prefer and Idempotency-Key."""
    members = upload(query, *media_types)
    return {**members, "parameters": [*members["parameters"], *JOB_PARAMETERS]}


def binary_answer(description: str, media_types: tuple[str, ...], headers: tuple[str, ...]) -> dict[str, Any]:
    """Return a response with a binary body; also as bytes of no type, which generated clients know how to return."""
    return {
        "description": description,
        "content": {media_type: {"schema": _BINARY} for media_type in (*media_types, BYTES_TYPE)},
        "headers": {
            name: {"description": _HEADERS[name][1], "schema": {"type": _HEADERS[name][0]}} for name in headers
        },
    }


def problem_answers(*errors: type[Exception]) -> Responses:
    """Return the responses of the problems of `errors`, one per status with an example of each type."""
    grouped: dict[int, list[problems.Kind]] = {}
    for error in errors:
        kind = problems.TABLE[next(c for c in error.__mro__ if c in problems.TABLE)]
        grouped.setdefault(kind.status, [])
        if kind not in grouped[kind.status]:
            grouped[kind.status].append(kind)
    return {status: _problem_answer(kinds) for status, kinds in sorted(grouped.items())}


def _problem_answer(kinds: list[problems.Kind]) -> dict[str, Any]:
    examples = {
        kind.name: {
            "summary": kind.title,
            "value": {
                "type": kind.type,
                "title": kind.title,
                "status": kind.status,
                "detail": kind.title,
                "instance": "6f1c2d3e4b5a69788796a5b4c3d2e1f0",
            },
        }
        for kind in kinds
    }
    schema = {"$ref": f"#/components/schemas/{Problem.__name__}"}
    answer: dict[str, Any] = {
        "description": "; ".join(kind.title for kind in kinds),
        "content": {problems.MEDIA_TYPE: {"schema": schema, "examples": examples}},
    }
    if any(kind.retry for kind in kinds):
        answer["headers"] = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}}}
    return answer


ACCEPTED: dict[str, Any] = {
    "description": "A job was made of it: for `Prefer: respond-async`, or since it is too large for an answer at once.",
    "model": JobAnswer,
    "headers": {
        "Location": {"description": "The job, /jobs/{id}.", "schema": {"type": "string"}},
        "Preference-Applied": {"description": "respond-async (RFC 7240).", "schema": {"type": "string"}},
    },
    "links": {
        name: {"operationId": operation, "parameters": {"id": "$response.body#/id"}, "description": text}
        for name, operation, text in (
            ("status", "get_job", "How far the job is."),
            ("result", "get_job_result", "Its result."),
            ("cancel", "cancel_job", "Cancels it."),
            ("link", "create_link", "A link to its result."),
        )
    },
}
EVENTS: dict[str, Any] = {
    "description": (
        "Server-sent events: `state` with the job, `progress` with step and steps, `preview` with step, steps, "
        "media_type and image (base64). Ids count from 1; a comment comes every 15 seconds; the stream ends "
        "with the job."
    ),
    "content": {  # the schema of one event, as tools for event streams take it
        "text/event-stream": {
            "schema": {
                "type": "object",
                "required": ["id", "event", "data"],
                "properties": {
                    "id": {"type": "string", "pattern": "^[0-9]+$"},
                    "event": {"enum": ["state", "progress", "preview"]},
                    "data": {"type": "string", "description": "JSON."},
                },
            }
        }
    },
}
NO_MORE_EVENTS = {"description": "The job has ended, and `Last-Event-ID` is its last event: do not connect again."}
IMAGE_TYPES = tuple(MEDIA_TYPES.values())
RESULT_TYPES = ("image/x-cdc", *IMAGE_TYPES)
