"""The codec over HTTP: /encode, /decode, /inspect, /models."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel
from starlette.responses import Response

from model.config import quality_of_rate
from model.container import SectionType
from model.errors import InvalidParameter
from service.access.gate import Caller
from service.api import documentation as docs
from service.api.access import AnyCaller, Decoder, Encoder
from service.api.body import BYTES_TYPE, Upload, deadline, pick_format, read_upload, while_connected
from service.api.jobs import idempotency_key, preferences, submit
from service.api.middleware import route_of
from service.api.parameters import given_once, with_fields
from service.api.queries import DecodeQuery, EncodeQuery, InspectQuery
from service.api.refusals import EmptyBody
from service.api.responses import as_accepted, response_of, varies
from service.api.schemas import DecodeCost, InspectAnswer, ModelAnswer, ModelsAnswer, SectionAnswer
from service.api.state import State, StateOf
from service.errors import NotReady, TooMuchWork
from service.jobs.executor import CDC_TYPE, Inspection
from service.work import DecodeOptions, EncodeOptions, Options, Work

T = TypeVar("T")
Q = TypeVar("Q", bound=BaseModel)


router = APIRouter(tags=["codec"], dependencies=[Depends(given_once)])


@router.post(
    "/encode",
    summary="Encode an image",
    response_class=Response,
    openapi_extra=docs.work_upload(EncodeQuery, "image/*", BYTES_TYPE),
    responses={
        200: docs.binary_answer("The .cdc file.", (CDC_TYPE,), docs.ENCODE_HEADERS),
        202: docs.ACCEPTED,
        **docs.problem_answers(*docs.ENCODE),
    },
)
async def encode_image(
    request: Request, state: StateOf, caller: Encoder, query: Annotated[EncodeQuery, Query()]
) -> Response:
    """Encode a PNG, JPEG, WebP, GIF, BMP, TIFF, AVIF or PPM image into a `.cdc` file.

    Orientation is applied, colours are converted to sRGB, 16-bit channels are brought to 8.
    """

    def options(query: EncodeQuery) -> EncodeOptions:
        return EncodeOptions(**query.model_dump(exclude={"source", "callback"}))

    return await _answer(request, state, caller, ("image/*", BYTES_TYPE), query, options)


@router.post(
    "/decode",
    summary="Decode a .cdc file",
    response_class=Response,
    openapi_extra=docs.work_upload(DecodeQuery, CDC_TYPE, BYTES_TYPE),
    responses={
        200: docs.binary_answer("The image.", docs.IMAGE_TYPES, docs.DECODE_HEADERS),
        202: docs.ACCEPTED,
        **docs.problem_answers(*docs.DECODE),
    },
)
async def decode_file(
    request: Request, state: StateOf, caller: Decoder, query: Annotated[DecodeQuery, Query()]
) -> Response:
    """Decode a `.cdc` file into a PNG (lossless), WebP or JPEG image.

    The same file, steps, gamma, seed and model give the same image; the default seed comes from the file.
    """

    def options(query: DecodeQuery) -> DecodeOptions:
        values = query.model_dump(exclude={"format", "source", "callback"})
        return DecodeOptions(**values, format=pick_format(query.format, request.headers.get("accept")))

    return await _answer(request, state, caller, (CDC_TYPE, BYTES_TYPE), query, options)


@router.post(
    "/inspect",
    summary="Describe a .cdc file",
    openapi_extra=docs.upload(InspectQuery, CDC_TYPE, BYTES_TYPE),
    responses=docs.problem_answers(*docs.INSPECT),
)
async def inspect_file(
    request: Request, state: StateOf, _: AnyCaller, query: Annotated[InspectQuery, Query()]
) -> InspectAnswer:
    """Return what a `.cdc` file says of itself and what a decode would cost; it is verified but not decoded."""
    found = await serve_upload(request, state, (CDC_TYPE, BYTES_TYPE), query, lambda body, _: state.door.inspect(body))
    return _describe(found)


@router.get("/models", summary="List the installed models", responses=docs.problem_answers(*docs.ACCESS, NotReady))
async def list_models(state: StateOf, _: AnyCaller) -> ModelsAnswer:
    """Return the installed models; the default one encodes when none is asked for."""
    return ModelsAnswer(models=[ModelAnswer.model_validate(info) for info in state.door.models()])


async def serve_upload(
    request: Request,
    state: State,
    accepted: tuple[str, ...],
    query: Q,
    use: Callable[[bytes, Q], Coroutine[Any, Any, T]],
) -> T:
    """Read the body and use it, within the deadline and while the caller is there."""
    async with deadline(request, state.settings.default_deadline_s, state.settings.max_deadline_s):
        state.door.check_open()
        state.uploads.check(1)  # a full queue is told before the body is read
        source = getattr(query, "source", None)
        upload = await read_upload(request, accepted) if source is None else await _fetched(request, state, source)
        with state.uploads.hold(1), state.fetched.hold(0 if source is None else len(upload.data)):
            parameters = with_fields(query, request.query_params, upload.fields)
            if getattr(parameters, "source", None) != source:
                raise InvalidParameter("a source stands in the query, and instead of a body")
            return await while_connected(request, use(upload.data, parameters))


async def _fetched(request: Request, state: State, source: str) -> Upload:
    """The file that a request names; it sends none."""
    if any([part async for part in request.stream()]):
        raise InvalidParameter("give a body or a source, not both")
    data = await state.sources.read(source)
    if not data:
        raise EmptyBody("the source is empty")
    return Upload(data)


async def _answer(
    request: Request,
    state: State,
    caller: Caller,
    accepted: tuple[str, ...],
    query: Q,
    options: Callable[[Q], Options],
) -> Response:
    """Do the work and answer with its result, or make a job of it: where asked to, or where it is too large."""
    prefer, key = preferences(request.headers.getlist("prefer")), idempotency_key(request)

    async def answer(body: bytes, query: Q) -> Response:
        left = request.state.deadline - asyncio.get_running_loop().time()
        work = await state.door.admit(body, options(query), math.inf if prefer.respond_async else left)
        callback = getattr(query, "callback", None) or ""
        if callback:
            state.webhooks.check(callback)
        if prefer.respond_async or over_sync(state, work):
            return await submit(request, state, work, prefer, caller, callback)
        if callback:
            raise InvalidParameter("a callback is of a job: send Prefer: respond-async")
        result = await state.jobs.run(work, caller.owner, key)
        if key is None:
            state.metrics.observe_stages(route_of(request.scope), result.seconds)
        return as_accepted(request, response_of(result, work.options.operation, varies=varies(work.options)))

    return await serve_upload(request, state, accepted, query, answer)


def over_sync(state: State, work: Work) -> bool:
    """True for work that is only taken as a job. Raises TooMuchWork where it is not taken at all."""
    bound, cost = state.settings.max_sync_pixel_steps, work.width * work.height * work.steps
    if not bound or cost <= bound:
        return False
    if state.settings.over_sync == "refuse":
        raise TooMuchWork(f"{cost} pixels x steps; at most {bound} are answered at once: send Prefer: respond-async")
    return True


def _describe(found: Inspection) -> InspectAnswer:
    header = found.container.header
    names = {int(kind): kind.name for kind in SectionType}
    fixed_rate = any(info.fixed_rate for info in found.models)
    return InspectAnswer(
        width=header.width,
        height=header.height,
        codec_id=header.codec_id.hex(),
        rate=header.rate,
        quality=None if fixed_rate else quality_of_rate(header.rate),
        bytes=found.size,
        bpp=8 * found.size / header.pixels,
        sections=[
            SectionAnswer(type=s.type, name=names.get(s.type, "UNKNOWN"), bytes=len(s.data))
            for s in found.container.sections
        ],
        models=[info.name for info in found.models],
        decode_cost=DecodeCost(steps=found.steps, pixel_steps=found.pixel_steps, within_limits=found.within_limits),
    )
