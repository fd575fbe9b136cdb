"""The codec over HTTP: /encode, /decode, /inspect, /models."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from model.container import SectionType
from service.api import documentation as docs
from service.api.body import MEDIA_TYPES, deadline, pick_format, read_body, while_connected
from service.api.middleware import route_of
from service.api.schemas import (
    DecodeCost,
    DecodeQuery,
    EncodeQuery,
    InspectAnswer,
    ModelAnswer,
    ModelsAnswer,
    SectionAnswer,
)
from service.api.state import State, StateOf
from service.codec.service import Decoded, DecodeOptions, EncodeOptions, Inspection
from service.errors import NotReady

T = TypeVar("T")

CDC_TYPE = "image/x-cdc"
BYTES_TYPE = "application/octet-stream"

router = APIRouter(tags=["codec"])


@router.post(
    "/encode",
    summary="Encode an image",
    response_class=Response,
    openapi_extra=docs.upload("image/*", BYTES_TYPE),
    responses={
        200: docs.binary_answer("The .cdc file.", (CDC_TYPE,), docs.ENCODE_HEADERS),
        **docs.problem_answers(*docs.ENCODE),
    },
)
async def encode(request: Request, state: StateOf, query: Annotated[EncodeQuery, Query()]) -> Response:
    """Encode a PNG, JPEG, WebP, GIF, BMP, TIFF, AVIF or PPM image into a `.cdc` file.

    Orientation is applied, colours are converted to sRGB, 16-bit channels are brought to 8.
    """
    options = EncodeOptions(**query.model_dump())
    encoded = await _serve(request, state, ("image/*", BYTES_TYPE), lambda body: state.service.encode(body, options))
    result = encoded.result
    headers = {
        **_answer_headers(request, encoded.digest, encoded.seconds),
        "X-Cdc-Bpp": f"{result.bpp:.5g}",
        "X-Cdc-Width": str(result.width),
        "X-Cdc-Height": str(result.height),
        "X-Cdc-Model": result.model,
        "X-Cdc-Codec-Id": result.codec_id,
        "X-Cdc-Quality": str(result.quality),
        "Content-Disposition": 'attachment; filename="image.cdc"',
    }
    state.metrics.observe_stages(route_of(request.scope), encoded.seconds)
    return Response(result.data, 200, headers, CDC_TYPE)


@router.post(
    "/decode",
    summary="Decode a .cdc file",
    response_class=Response,
    openapi_extra=docs.upload(CDC_TYPE, BYTES_TYPE),
    responses={
        200: docs.binary_answer("The image.", docs.IMAGE_TYPES, docs.DECODE_HEADERS),
        **docs.problem_answers(*docs.DECODE),
    },
)
async def decode(request: Request, state: StateOf, query: Annotated[DecodeQuery, Query()]) -> Response:
    """Decode a `.cdc` file into a PNG (lossless), WebP or JPEG image.

    The same file, steps, gamma, seed and model give the same picture; the default seed comes from the file.
    """
    format = pick_format(query.format, request.headers.get("accept"))

    def work(body: bytes) -> Coroutine[Any, Any, Decoded]:
        left = request.state.deadline - asyncio.get_running_loop().time()
        options = DecodeOptions(
            query.steps, query.gamma, query.seed, query.model, format, query.deterministic, seconds_left=left
        )
        return state.service.decode(body, options)

    decoded = await _serve(request, state, (CDC_TYPE, BYTES_TYPE), work)
    result = decoded.result
    height, width = result.pixels.shape[:2]
    headers = {
        **_answer_headers(request, decoded.digest, decoded.seconds),
        "Vary": "Accept",
        "X-Cdc-Bpp": f"{result.bpp:.5g}",
        "X-Cdc-Width": str(width),
        "X-Cdc-Height": str(height),
        "X-Cdc-Model": result.model,
        "X-Cdc-Codec-Id": result.codec_id,
        "X-Cdc-Steps": str(result.steps),
        "X-Cdc-Gamma": f"{result.gamma:g}",
        "X-Cdc-Seed": str(result.seed),
        "Content-Disposition": f'inline; filename="image.{format}"',
    }
    if query.steps == "auto":
        headers["Cache-Control"] = "no-store"  # the same request may get another picture under another load
    state.metrics.observe_stages(route_of(request.scope), decoded.seconds)
    return Response(decoded.data, 200, headers, MEDIA_TYPES[format])


@router.post(
    "/inspect",
    summary="Describe a .cdc file",
    openapi_extra=docs.upload(CDC_TYPE, BYTES_TYPE),
    responses=docs.problem_answers(*docs.INSPECT),
)
async def inspect(request: Request, state: StateOf) -> InspectAnswer:
    """Return what a `.cdc` file says of itself and what a decode would cost; it is verified but not decoded."""
    return _describe(await _serve(request, state, (CDC_TYPE, BYTES_TYPE), state.service.inspect))


@router.get("/models", summary="List the installed models", responses=docs.problem_answers(NotReady))
async def models(state: StateOf) -> ModelsAnswer:
    """Return the installed models; the default one encodes when none is asked for."""
    return ModelsAnswer(models=[ModelAnswer.model_validate(info) for info in state.service.models()])


async def _serve(
    request: Request,
    state: State,
    accepted: tuple[str, ...],
    work: Callable[[bytes], Coroutine[Any, Any, T]],
) -> T:
    """Read the body and do `work` on it, within the deadline and while the caller is there."""
    settings = state.settings
    async with deadline(request, settings.default_deadline_s, settings.max_deadline_s):
        state.service.check_open()
        with state.uploads.hold(1):
            body = await read_body(request, accepted)
            return await while_connected(request, work(body), state.abandoned)


def _answer_headers(request: Request, digest: str, seconds: Mapping[str, float]) -> dict[str, str]:
    """Return the ETag (RFC 9110, 8.8.3: strong) and Server-Timing (milliseconds by stage)."""
    stages = ", ".join(f"{stage};dur={value * 1000:.1f}" for stage, value in seconds.items())
    return {"ETag": f'"{digest}"', "Server-Timing": stages}


def _describe(found: Inspection) -> InspectAnswer:
    header = found.container.header
    names = {int(kind): kind.name for kind in SectionType}
    return InspectAnswer(
        width=header.width,
        height=header.height,
        codec_id=header.codec_id.hex(),
        rate=header.rate,
        quality=round(header.rate * 99 / 255) + 1,  # the inverse of rate = round(255 (quality - 1) / 99)
        bytes=found.size,
        bpp=8 * found.size / header.pixels,
        sections=[
            SectionAnswer(type=s.type, name=names.get(s.type, "UNKNOWN"), bytes=len(s.data))
            for s in found.container.sections
        ],
        models=[info.name for info in found.models],
        decode_cost=DecodeCost(steps=found.steps, pixel_steps=found.pixel_steps, within_limits=found.within_limits),
    )
