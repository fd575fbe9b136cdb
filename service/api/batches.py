"""Batches over HTTP: a file of requests in, a file of what came of them out."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Annotated, Any

import anyio.to_thread
from fastapi import APIRouter, Depends, Path, Request
from pydantic import BaseModel, ValidationError
from starlette.responses import JSONResponse, Response

from model.errors import InvalidParameter
from service.api import documentation as docs
from service.api.access import Batcher, Encoder
from service.api.body import BYTES_TYPE, read_upload
from service.api.parameters import given_once
from service.api.problems import kind_of
from service.api.queries import DecodeQuery, EncodeQuery, InspectQuery
from service.api.responses import answer_of, root_of
from service.api.schemas import BatchAnswer
from service.api.state import StateOf
from service.errors import AddressNotAllowed
from service.jobs.batches import Line, Services
from service.jobs.executor import Door
from service.jobs.records import BatchRecord
from service.outside.fetching import Sources
from service.outside.sinks import Sinks
from service.work import DecodeOptions, EncodeOptions, Options, Result, Work

JSONL_TYPES = ("application/jsonl", "application/x-ndjson", BYTES_TYPE)
MAX_LINES = 50_000
MAX_LINE_BYTES = 8192
MAX_CUSTOM_ID = 64
QUERIES: dict[str, type[BaseModel]] = {"/encode": EncodeQuery, "/decode": DecodeQuery}

router = APIRouter(tags=["batches"], dependencies=[Depends(given_once)])
BatchId = Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{1,64}$", description="Id of the batch.")]


@router.post(
    "/batches",
    status_code=202,
    summary="Send a batch",
    openapi_extra=docs.upload(InspectQuery, *JSONL_TYPES),
    responses={202: {"model": BatchAnswer}, **docs.problem_answers(*docs.BATCHES)},
)
async def create_batch(request: Request, state: StateOf, caller: Batcher) -> Response:
    """Take a file of JSON lines, each a request with a source; they are done as jobs while nobody else waits.

    A line is `{"custom_id": "a", "url": "/encode", "body": {"source": "https://...", "quality": 50, "result": "s3://..."}}`.
    """
    state.door.check_open()
    upload = await read_upload(request, JSONL_TYPES)
    total = await anyio.to_thread.run_sync(_check, upload.data, state.sources, state.sinks)
    id, record = await state.batches.submit(upload.data, total, caller.owner)
    root = root_of(request)
    return JSONResponse(
        batch_answer(id, record, root).model_dump(mode="json"), 202, {"Location": f"{root}/batches/{id}"}
    )


@router.get("/batches/{id}", summary="How far a batch is", responses=docs.problem_answers(*docs.BATCH))
async def get_batch(id: BatchId, caller: Encoder, request: Request, response: Response, state: StateOf) -> BatchAnswer:
    """Return the batch as it stands."""
    response.headers["Cache-Control"] = "no-store"
    return batch_answer(id, await state.batches.get(id, caller.owner), root_of(request))


@router.delete("/batches/{id}", summary="Cancel a batch", responses=docs.problem_answers(*docs.BATCH))
async def cancel_batch(id: BatchId, caller: Encoder, request: Request, state: StateOf) -> BatchAnswer:
    """Begin no further lines; those under way end."""
    return batch_answer(id, await state.batches.cancel(id, caller.owner), root_of(request))


_LINES: Any = {
    "response_class": Response,
    "responses": {200: docs.binary_answer("JSON lines.", JSONL_TYPES[:1], ()), **docs.problem_answers(*docs.BATCH)},
}


@router.get("/batches/{id}/output", summary="What succeeded", **_LINES)
async def get_batch_output(id: BatchId, caller: Encoder, state: StateOf) -> Response:
    """Return the lines that have succeeded so far, each with its job."""
    return Response(await state.batches.output(id, caller.owner, errors=False), media_type=JSONL_TYPES[0])


@router.get("/batches/{id}/errors", summary="What failed", **_LINES)
async def get_batch_errors(id: BatchId, caller: Encoder, state: StateOf) -> Response:
    """Return the lines that have failed so far, each with the type of its problem."""
    return Response(await state.batches.output(id, caller.owner, errors=True), media_type=JSONL_TYPES[0])


def services_of(door: Door, sources: Sources, sinks: Sinks, root: str) -> Services:
    """How lines of batches are done."""

    async def work(line: Line) -> Work:
        options = _options(line)
        return await door.admit(await sources.read(line["body"]["source"]), options)

    async def deliver(line: Line, result: Result) -> None:
        if (target := line["body"].get("result")) is not None:
            await sinks.put(target, result.data, result.media_type)

    def kind(error: Exception) -> tuple[int, str]:
        found = kind_of(error)
        return found.status, found.type

    put: Callable[[Line, Result], Awaitable[None]] = deliver
    return Services(work, put, lambda job: answer_of(job, root).model_dump(mode="json"), kind)


def batch_answer(id: str, record: BatchRecord, root: str) -> BatchAnswer:
    """A batch as JSON."""
    finished = record.finished_at
    return BatchAnswer(
        id=id,
        state=record.state,
        total=record.total,
        completed=record.completed,
        failed=record.failed,
        created_at=datetime.fromtimestamp(record.created_at, UTC),
        finished_at=None if finished is None else datetime.fromtimestamp(finished, UTC),
        output=f"{root}/batches/{id}/output",
        errors=f"{root}/batches/{id}/errors",
    )


def _check(data: bytes, sources: Sources, sinks: Sinks) -> int:
    """Count the lines of a batch, each of which must be a request that can be begun. Raises InvalidParameter."""
    seen: set[str] = set()
    for number, text in enumerate((line for line in data.splitlines() if line.strip()), 1):
        if number > MAX_LINES:
            raise InvalidParameter(f"a batch has at most {MAX_LINES} lines")
        line = _parsed(text, number)
        name = line.get("custom_id")
        if not isinstance(name, str) or not 1 <= len(name) <= MAX_CUSTOM_ID or name in seen:
            raise InvalidParameter(f"line {number}: custom_id must be a text of 1 to {MAX_CUSTOM_ID}, each once")
        seen.add(name)
        try:
            _options(line)
        except ValidationError as error:
            fault = error.errors()[0]
            where = ".".join(map(str, fault["loc"]))
            raise InvalidParameter(f"line {number}: {where}: {fault['msg']}") from None
        if "callback" in line["body"]:
            raise InvalidParameter(f"line {number}: callback is of jobs, not of batches")
        target = line["body"].get("result")
        if target is not None and not isinstance(target, str):
            raise InvalidParameter(f"line {number}: result must be an address")
        try:
            sources.check(line["body"]["source"])
            if target is not None:
                sinks.check(target)
        except AddressNotAllowed as error:
            raise AddressNotAllowed(f"line {number}: {error}") from None
    if not seen:
        raise InvalidParameter("the batch has no lines")
    return len(seen)


def _parsed(text: bytes, number: int) -> Line:
    try:
        line: Any = json.loads(text) if len(text) <= MAX_LINE_BYTES else None
    except (ValueError, RecursionError):
        line = None
    if not isinstance(line, dict) or line.get("url") not in tuple(QUERIES) or not isinstance(line.get("body"), dict):
        raise InvalidParameter(
            f"line {number} must be a JSON object with custom_id, url (/encode or /decode) and body, "
            f"of at most {MAX_LINE_BYTES} bytes"
        )
    if set(line) - {"custom_id", "url", "body", "method"} or line.get("method", "POST") != "POST":
        raise InvalidParameter(f"line {number} has members that are not known")
    if not isinstance(line["body"].get("source"), str):
        raise InvalidParameter(f"line {number}: body.source must be an address")
    return line


def _options(line: Line) -> Options:
    """The options of a line. Raises ValidationError."""
    given = {name: value for name, value in line["body"].items() if name != "result"}
    query = QUERIES[line["url"]].model_validate(given)
    if isinstance(query, EncodeQuery):
        return EncodeOptions(**query.model_dump(exclude={"source", "callback"}))
    values = query.model_dump(exclude={"source", "callback", "format"})
    return DecodeOptions(**values, format=getattr(query, "format", None) or "png")
