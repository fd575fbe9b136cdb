"""Responses: the file with its headers, a job as JSON, an event as text."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from fastapi import Request
from starlette.responses import Response

from service.api.body import BYTES_TYPE
from service.api.problems import kind_of
from service.api.schemas import JobAnswer, JobResultAnswer, Problem
from service.images.preview import MEDIA_TYPE as PREVIEW_TYPE
from service.jobs.records import Event, Job
from service.logs import request_id
from service.work import DecodeOptions, Metadata, Operation, Options, Result

VARY = {"Vary": "Accept"}  # of a file: its type, and of a decode its format


def root_of(request: Request) -> str:
    """The path prefix that a proxy has taken away, put before every address that leaves the service."""
    return str(request.scope.get("root_path", "")).rstrip("/")


def response_of(
    result: Result, operation: Operation, headers: Mapping[str, str] | None = None, *, varies: bool = False
) -> Response:
    """Return the file with what it says of itself as X-Cdc headers, a strong ETag (RFC 9110, 8.8.3) and timings.

    `varies`: the same request may get another image under another load, so it is not to be kept.
    """
    stages = ", ".join(f"{stage};dur={value * 1000:.1f}" for stage, value in result.seconds.items())
    own = {
        "ETag": f'"{result.digest}"',
        "Server-Timing": stages,
        **VARY,
        **_described(result.metadata),
        **(headers or {}),
    }
    if operation == "encode":
        own["Content-Disposition"] = 'attachment; filename="image.cdc"'
    else:
        own["Content-Disposition"] = f'inline; filename="image.{result.media_type.removeprefix("image/")}"'
    if varies:
        own["Cache-Control"] = "no-store"
    return Response(result.data, 200, own, result.media_type)


def _described(metadata: Metadata) -> dict[str, str]:
    """What a result says of itself, as X-Cdc headers."""
    values = {**vars(metadata), "bpp": f"{metadata.bpp:.5g}"}
    if metadata.gamma is not None:
        values["gamma"] = f"{metadata.gamma:g}"
    return {
        f"X-Cdc-{name.replace('_', '-').title()}": str(value) for name, value in values.items() if value is not None
    }


def varies(options: Options) -> bool:
    """True where a result depends on the load: with `steps=auto`."""
    return isinstance(options, DecodeOptions) and options.steps == "auto"


def as_accepted(request: Request, response: Response) -> Response:
    """Give a file no type of its own where the caller takes bytes alone: `Accept: application/octet-stream`."""
    if request.headers.get("accept", "").strip().lower() == BYTES_TYPE and response.status_code == 200:
        response.headers["Content-Type"] = BYTES_TYPE
    return response


def answer_of(job: Job, root: str) -> JobAnswer:
    """A job as JSON; `root` goes before its addresses, see `root_of`."""
    result = None
    if (found := job.result) is not None:
        result = JobResultAnswer(href=f"{root}/jobs/{job.id}/result", media_type=found.media_type, bytes=found.size)
    return JobAnswer(
        id=job.id,
        operation=job.operation,
        state=job.state.value,
        created_at=_time(job.created_at) or datetime.now(UTC),
        started_at=_time(job.started_at),
        finished_at=_time(job.finished_at),
        expires_at=_time(job.expires_at),
        position=job.position,
        estimate_seconds=job.estimate_seconds,
        step=job.step,
        steps=job.steps,
        error=_problem(job),
        result=result,
    )


def webhook_body(root: str) -> Callable[[str, Job | None, float], bytes]:
    """What makes the body of a webhook of a job: type, timestamp, and the job as `GET /jobs/{id}` shows it.

    Of a job that is known no longer there is its id alone.
    """

    def body(id: str, job: Job | None, now: float) -> bytes:
        state = "expired" if job is None else job.state.value
        data = {"id": id} if job is None else answer_of(job, root).model_dump(mode="json")
        stamp = datetime.fromtimestamp(now, UTC).isoformat().replace("+00:00", "Z")
        return json.dumps({"type": f"job.{state}", "timestamp": stamp, "data": data}).encode()

    return body


def _problem(job: Job) -> Problem | None:
    if job.failure is None:
        return None
    kind = kind_of(job.failure.exception())
    detail = job.failure.detail or kind.title
    return Problem(type=kind.type, title=kind.title, status=kind.status, detail=detail, instance=request_id.get())


def _time(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def event_data(event: Event, root: str) -> str:
    """The data of a server-sent event: a job, or a step with its preview in base64."""
    if isinstance(event.data, Job):
        return answer_of(event.data, root).model_dump_json()
    values: dict[str, Any] = {"step": event.data.step, "steps": event.data.steps}
    if event.type == "preview":
        image = None if event.data.preview is None else base64.b64encode(event.data.preview).decode()
        values |= {"media_type": PREVIEW_TYPE, "image": image}
    return json.dumps(values)
