"""Jobs over HTTP: /jobs/{id}, its result and its events; and how a request becomes a job (RFC 7240)."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Path, Query, Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from model.errors import InvalidParameter
from service.access.gate import ANONYMOUS, Caller
from service.api import documentation as docs
from service.api.access import AnyCaller
from service.api.conditional import not_modified
from service.api.parameters import given_once
from service.api.queries import JobsQuery, LinkQuery
from service.api.refusals import MalformedRequest
from service.api.responses import VARY, answer_of, as_accepted, event_data, response_of, root_of, varies
from service.api.schemas import CallbackAnswer, JobAnswer, JobsAnswer, LinkAnswer
from service.api.state import State, StateOf
from service.errors import JobCancelled, JobNotFinished, LinksOff, NotAuthenticated, QueueUnavailable
from service.jobs.records import Event
from service.work import Work, WorkState

HEARTBEAT_S = 15.0
MAX_WAIT_S = 300.0
_WAIT = re.compile(r"wait\s*=\s*\"?([0-9]{1,6})\"?")
_KEY = re.compile(r"[\x21-\x7e]{1,255}")

audit = logging.getLogger("service.audit")
router = APIRouter(tags=["jobs"], dependencies=[Depends(given_once)])
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


def idempotency_key(request: Request) -> str | None:
    """Return the Idempotency-Key of a request, None where it has none. Raises MalformedRequest."""
    key = request.headers.get("idempotency-key")
    if key is not None and not _KEY.fullmatch(key):
        raise MalformedRequest("Idempotency-Key must be 1 to 255 printable ASCII characters without spaces")
    return key


async def submit(
    request: Request, state: State, work: Work, prefer: Preferences, caller: Caller, callback: str = ""
) -> Response:
    """Make a job of the work; answer 202, or the result where it is done within `prefer.wait` seconds.

    Raises:
        MalformedRequest: an Idempotency-Key that is none.
        KeyReused, Busy, Draining, QueueUnavailable: see `Jobs.submit`.
        The job's own error, if it failed within that time.
    """
    owner, root = caller.owner, root_of(request)
    job = await state.jobs.submit(work, owner, idempotency_key(request), callback)
    location = {"Location": f"{root}/jobs/{job.id}"}
    if prefer.wait:
        job = await state.jobs.wait(job.id, owner, prefer.wait)
        if job.state in (WorkState.SUCCEEDED, WorkState.FAILED):
            result = await state.jobs.result(job.id, owner)
            applied = {"Preference-Applied": f"respond-async, wait={prefer.wait:g}", **location}
            response = response_of(result, job.operation, applied, varies=varies(work.options))
            return as_accepted(request, response)
    headers = {**location, "Cache-Control": "no-store"}
    if prefer.respond_async:
        headers["Preference-Applied"] = "respond-async"
    return JSONResponse(answer_of(job, root).model_dump(mode="json"), 202, headers)


@router.get(
    "/jobs",
    summary="The caller's jobs",
    responses=docs.problem_answers(*docs.ACCESS, QueueUnavailable, InvalidParameter),
)
async def list_jobs(
    caller: AnyCaller, request: Request, response: Response, state: StateOf, query: Annotated[JobsQuery, Query()]
) -> JobsAnswer:
    """Return the jobs that were sent with the same token, the newest first, a page at a time."""
    if caller.owner == ANONYMOUS:
        raise NotAuthenticated("jobs are listed by their token: send Authorization: Bearer TOKEN, with each job too")
    jobs, following = await state.jobs.page(caller.owner, query.after, query.limit)
    response.headers["Cache-Control"] = "no-store"
    return JobsAnswer(jobs=[answer_of(job, root_of(request)) for job in jobs], next=following)


@router.get("/jobs/{id}/callback", summary="How a webhook fares", responses=docs.problem_answers(*docs.CALLBACK))
async def get_callback(id: JobId, caller: AnyCaller, response: Response, state: StateOf) -> CallbackAnswer:
    """Return how often the webhook of a job was sent and whether it arrived, for a week. `dead`: it is given up."""
    found = await state.jobs.hook(id, caller.owner)
    response.headers["Cache-Control"] = "no-store"
    return CallbackAnswer(state=found.state, attempts=found.attempts, error=found.error or None)


@router.get("/jobs/{id}", summary="How far a job is", responses=docs.problem_answers(*docs.JOB))
async def get_job(id: JobId, caller: AnyCaller, request: Request, response: Response, state: StateOf) -> JobAnswer:
    """Return the job as it stands."""
    found = await state.jobs.get(id, caller.owner)
    response.headers["Cache-Control"] = "no-store"
    return answer_of(found, root_of(request))


@router.delete("/jobs/{id}", summary="Cancel a job", responses=docs.problem_answers(*docs.JOB))
async def cancel_job(id: JobId, caller: AnyCaller, request: Request, state: StateOf) -> JobAnswer:
    """Cancel the job, within one denoising step if it runs; one that has ended stays as it is."""
    return answer_of(await state.jobs.cancel(id, caller.owner), root_of(request))


@router.get(
    "/jobs/{id}/result",
    summary="The result of a job",
    response_class=Response,
    responses={
        200: docs.binary_answer("What the request would have answered.", docs.RESULT_TYPES, docs.DECODE_HEADERS),
        **docs.problem_answers(*docs.JOB, JobNotFinished, JobCancelled, *docs.FAILURES),
    },
)
async def get_job_result(id: JobId, caller: AnyCaller, request: Request, state: StateOf) -> Response:
    """Return the file with the headers of a direct answer; the problem of a job that failed."""
    return await _result(request, state, id, caller.owner)


@router.post(
    "/jobs/{id}/links",
    summary="A link to the result",
    responses=docs.problem_answers(*docs.JOB, LinksOff),
)
async def create_link(
    id: JobId, caller: AnyCaller, request: Request, state: StateOf, query: Annotated[LinkQuery, Query()]
) -> LinkAnswer:
    """Make a link by which anybody can fetch the result without a key, until it expires."""
    await state.jobs.get(id, caller.owner)
    token, expires = state.links.sign(id, query.ttl_s)
    audit.info("link made", extra={"key": caller.key, "job": id, "ttl_s": query.ttl_s})
    return LinkAnswer(href=f"{root_of(request)}/links/{token}", expires_at=datetime.fromtimestamp(expires, UTC))


@router.get(
    "/links/{token}",
    summary="The result behind a link",
    response_class=Response,
    responses={
        200: docs.binary_answer("What the request would have answered.", docs.RESULT_TYPES, docs.DECODE_HEADERS),
        **docs.problem_answers(*docs.LINK, JobNotFinished, JobCancelled, *docs.FAILURES),
    },
)
async def get_linked_result(token: LinkToken, request: Request, state: StateOf) -> Response:
    """Return the result; needs no key."""
    return await _result(request, state, state.links.open(token), None)


async def _result(request: Request, state: State, id: str, owner: str | None) -> Response:
    """The result, or 304 by the record alone: its bytes may lie in a store far away."""
    found = await state.jobs.get(id, owner)
    headers = {"Cache-Control": "private, max-age=3600"}
    known = None
    if found.result is not None:
        known = not_modified(request, {"ETag": f'"{found.result.digest}"', **headers, **VARY})
    return known or as_accepted(request, response_of(await state.jobs.result(id, owner), found.operation, headers))


@router.get(
    "/jobs/{id}/events",
    summary="Follow a job",
    response_class=StreamingResponse,
    responses={200: docs.EVENTS, 204: docs.NO_MORE_EVENTS, **docs.problem_answers(*docs.JOB)},
)
async def follow_job(
    id: JobId,
    caller: AnyCaller,
    request: Request,
    state: StateOf,
    last_event_id: Annotated[str, Header(pattern=r"^[0-9]{0,12}$", description="Resume after this event.")] = "",
) -> Response:
    """Stream what happens to the job, from its beginning or after `Last-Event-ID`, until it ends.

    After the last event of a job that has ended the answer is 204, on which an EventSource asks no more (WHATWG HTML,
    9.2.3).
    """
    owner, after = caller.owner, int(last_event_id or 0)
    found = await state.jobs.get(id, owner)  # refuse before the stream begins
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}  # proxies must not collect events
    if found.state.ended and not await _any_events(state.jobs.events(id, owner, after)):
        return Response(None, 204, headers)
    stream = _with_heartbeats(state.jobs.events(id, owner, after), root_of(request))
    return StreamingResponse(stream, headers=headers, media_type="text/event-stream")


async def _any_events(stream: AsyncIterator[Event]) -> bool:
    async for _ in stream:
        return True
    return False


async def _with_heartbeats(stream: AsyncIterator[Event], root: str) -> AsyncIterator[str]:
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
            yield f"id: {event.id}\nevent: {event.type}\ndata: {event_data(event, root)}\n\n"
    finally:
        if pending is not None:
            pending.cancel()
