"""Jobs over HTTP: /jobs/{id}, its result and its events; and how a request becomes a job (RFC 7240)."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import re
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from service.access.gate import Caller
from service.api import documentation as docs
from service.api.access import AnyCaller
from service.api.problems import kind_of
from service.api.refusals import MalformedRequest
from service.api.schemas import JobAnswer, JobResultAnswer, LinkAnswer, LinkQuery, Problem
from service.api.state import State, StateOf
from service.errors import JobCancelled, JobNotFinished, LinksOff
from service.images.preview import MEDIA_TYPE as PREVIEW_TYPE
from service.jobs.records import Answer, Event, Job, Operation, Work
from service.logs import request_id

HEARTBEAT_S = 15.0
MAX_WAIT_S = 300.0
_WAIT = re.compile(r"wait\s*=\s*\"?([0-9]{1,6})\"?")
_KEY = re.compile(r"[\x21-\x7e]{1,255}")

audit = logging.getLogger("service.audit")
router = APIRouter(tags=["jobs"])
JobId = Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{1,64}$", description="Id of the job.")]

LinkToken = Annotated[str, Path(max_length=1024, description="What a link was made with.")]


@dataclass(frozen=True)
class Preferences:
    """What a Prefer header asks for: a job, after at most `wait` seconds of waiting for its end."""

    respond_async: bool
    wait: float


def preferences(headers: Iterable[str]) -> Preferences:
    """Read Prefer headers (RFC 7240); what is not known is passed over, as the RFC wants."""
    parts = [part.split(";")[0].strip().lower() for header in headers for part in header.split(",")]
    waits = [float(found[1]) for part in parts if (found := _WAIT.fullmatch(part))]
    return Preferences("respond-async" in parts, min(waits[0], MAX_WAIT_S) if waits else 0.0)


async def submit(request: Request, state: State, work: Work, prefer: Preferences, caller: Caller) -> Response:
    """Make a job of the work; answer 202, or the result where it is done within `prefer.wait` seconds.

    Raises:
        MalformedRequest: an Idempotency-Key that is none.
        KeyReused, Busy, Draining, QueueUnavailable: see `JobBackend.submit`.
        The job's own error, if it failed within that time.
    """
    key = request.headers.get("idempotency-key")
    if key is not None and not _KEY.fullmatch(key):
        raise MalformedRequest("Idempotency-Key must be 1 to 255 printable ASCII characters without spaces")
    owner = caller.owner
    job = await state.jobs.submit(work, owner, key)
    if prefer.wait:
        job = await state.jobs.wait(job.id, owner, prefer.wait)
        if job.state in ("succeeded", "failed"):
            answer = await state.jobs.result(job.id, owner)
            applied = {"Preference-Applied": f"respond-async, wait={prefer.wait:g}", "Location": f"/jobs/{job.id}"}
            return response_of(answer, work.operation, work.options, applied)
    headers = {"Location": f"/jobs/{job.id}", "Cache-Control": "no-store"}
    if prefer.respond_async:
        headers["Preference-Applied"] = "respond-async"
    return JSONResponse(answer_of(job).model_dump(mode="json"), 202, headers)


@router.get("/jobs/{id}", summary="How far a job is", responses=docs.problem_answers(*docs.JOB))
async def job(id: JobId, caller: AnyCaller, response: Response, state: StateOf) -> JobAnswer:
    """Return the job as it stands."""
    found = await state.jobs.get(id, caller.owner)
    response.headers["Cache-Control"] = "no-store"
    return answer_of(found)


@router.delete("/jobs/{id}", summary="Cancel a job", responses=docs.problem_answers(*docs.JOB))
async def cancel(id: JobId, caller: AnyCaller, state: StateOf) -> JobAnswer:
    """Cancel the job, within one denoising step if it runs; one that has ended stays as it is."""
    return answer_of(await state.jobs.cancel(id, caller.owner))


@router.get(
    "/jobs/{id}/result",
    summary="The result of a job",
    response_class=Response,
    responses={
        200: docs.binary_answer("What the request would have answered.", docs.RESULT_TYPES, docs.DECODE_HEADERS),
        **docs.problem_answers(*docs.JOB, JobNotFinished, JobCancelled, *docs.FAILURES),
    },
)
async def result(id: JobId, caller: AnyCaller, state: StateOf) -> Response:
    """Return the file with the headers of a direct answer; the problem of a job that failed."""
    return await _result(state, id, caller.owner)


@router.post(
    "/jobs/{id}/links",
    summary="A link to the result",
    responses=docs.problem_answers(*docs.JOB, LinksOff),
)
async def link(id: JobId, caller: AnyCaller, state: StateOf, query: Annotated[LinkQuery, Query()]) -> LinkAnswer:
    """Make a link by which anybody can fetch the result without a key, until it expires."""
    await state.jobs.get(id, caller.owner)
    token, expires = state.links.sign(id, query.ttl_s)
    audit.info("link made", extra={"key": caller.key, "job": id, "ttl_s": query.ttl_s})
    return LinkAnswer(href=f"/links/{token}", expires_at=datetime.fromtimestamp(expires, UTC))


@router.get(
    "/links/{token}",
    summary="The result behind a link",
    response_class=Response,
    responses={
        200: docs.binary_answer("What the request would have answered.", docs.RESULT_TYPES, docs.DECODE_HEADERS),
        **docs.problem_answers(*docs.LINK, JobNotFinished, JobCancelled, *docs.FAILURES),
    },
)
async def linked(token: LinkToken, state: StateOf) -> Response:
    """Return the result; needs no key."""
    return await _result(state, state.links.open(token), None)


async def _result(state: State, id: str, owner: str | None) -> Response:
    answer = await state.jobs.result(id, owner)
    found = await state.jobs.get(id, owner)
    return response_of(answer, found.operation, {}, {"Cache-Control": "private, max-age=3600"})


@router.get(
    "/jobs/{id}/events",
    summary="Follow a job",
    response_class=StreamingResponse,
    responses={200: docs.EVENTS, **docs.problem_answers(*docs.JOB)},
)
async def events(
    id: JobId,
    caller: AnyCaller,
    state: StateOf,
    last_event_id: Annotated[str, Header(pattern=r"^[0-9]{0,12}$", description="Resume after this event.")] = "",
) -> StreamingResponse:
    """Stream what happens to the job, from its beginning or after `Last-Event-ID`, until it ends."""
    owner = caller.owner
    await state.jobs.get(id, owner)  # refuse before the stream begins
    stream = state.jobs.events(id, owner, int(last_event_id or 0))
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}  # proxies must not collect events
    return StreamingResponse(_with_heartbeats(stream), headers=headers, media_type="text/event-stream")


def response_of(
    answer: Answer, operation: Operation, options: Mapping[str, Any], headers: Mapping[str, str] | None = None
) -> Response:
    """Return the file with what it says of itself as X-Cdc headers, a strong ETag (RFC 9110, 8.8.3) and timings."""
    stages = ", ".join(f"{stage};dur={value * 1000:.1f}" for stage, value in answer.seconds.items())
    own = {
        "ETag": f'"{answer.digest}"',
        "Server-Timing": stages,
        **{f"X-Cdc-{name.title()}": value for name, value in answer.facts.items()},
        **(headers or {}),
    }
    if operation == "encode":
        own["Content-Disposition"] = 'attachment; filename="image.cdc"'
    else:
        own["Content-Disposition"] = f'inline; filename="image.{answer.media_type.removeprefix("image/")}"'
        own["Vary"] = "Accept"
    if options.get("steps") == "auto":
        own["Cache-Control"] = "no-store"  # the same request may get another picture under another load
    return Response(answer.data, 200, own, answer.media_type)


def answer_of(job: Job) -> JobAnswer:
    """A job as JSON."""
    result = None
    if job.state == "succeeded":
        result = JobResultAnswer(
            href=f"/jobs/{job.id}/result", media_type=job.media_type or "application/octet-stream", bytes=job.size or 0
        )
    return JobAnswer(
        id=job.id,
        operation=job.operation,
        state=job.state,
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


def _problem(job: Job) -> Problem | None:
    if job.failure is None:
        return None
    kind = kind_of(job.failure.exception())
    detail = job.failure.detail or kind.title
    return Problem(type=kind.type, title=kind.title, status=kind.status, detail=detail, instance=request_id.get())


def _time(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


async def _with_heartbeats(stream: AsyncIterator[Event]) -> AsyncIterator[str]:
    """Events as text; a comment whenever nothing has happened for a while, so that proxies keep the connection."""
    following = aiter(stream)
    pending: asyncio.Future[Event] | None = None
    try:
        while True:
            pending = pending or asyncio.ensure_future(anext(following))
            done, _ = await asyncio.wait({pending}, timeout=HEARTBEAT_S)
            if not done:
                yield ": still here\n\n"
                continue
            try:
                event = pending.result()
            except StopAsyncIteration:
                return
            pending = None
            yield f"id: {event.id}\nevent: {event.type}\ndata: {_data(event)}\n\n"
    finally:
        if pending is not None:
            pending.cancel()


def _data(event: Event) -> str:
    if isinstance(event.data, Job):
        return answer_of(event.data).model_dump_json()
    values: dict[str, Any] = {"step": event.data.step, "steps": event.data.steps}
    if event.type == "preview":
        image = None if event.data.preview is None else base64.b64encode(event.data.preview).decode()
        values |= {"media_type": PREVIEW_TYPE, "image": image}
    return json.dumps(values)
