"""The IIIF Image API 3.0 at level 1 (https://iiif.io/api/image/3.0/), over the `.cdc` file that a job has made.

Nothing is enlarged, turned or made grey; beyond level 1 there are regions and sizes in percent and `!w,h`.
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from starlette.responses import RedirectResponse, Response

from model.errors import InvalidParameter
from service.api.access import Decoder
from service.api.body import deadline, while_connected
from service.api.jobs import JobId
from service.api.refusals import MalformedRequest
from service.api.responses import response_of, root_of
from service.api.routes import over_sync
from service.api.state import State, StateOf
from service.errors import TooMuchWork, UnknownJob
from service.framing import NUMBER, REGION_PATTERN, Fit, frame_of
from service.jobs.executor import CDC_TYPE
from service.work import DecodeOptions, Format

CONTEXT = "http://iiif.io/api/image/3/context.json"
FORMATS: dict[str, Format] = {"jpg": "jpeg", "png": "png", "webp": "webp"}
TILE = 512
HEADERS = {
    "Access-Control-Allow-Origin": "*",
    "Cache-Control": "private, max-age=3600",
    "Link": '<http://iiif.io/api/image/3/level1.json>;rel="profile"',
}
_SIZE = re.compile(rf"(?P<most>!)?(?P<width>[0-9]{{0,6}}),(?P<height>[0-9]{{0,6}})|pct:(?P<percent>{NUMBER})")
Part = Annotated[str, Path(max_length=64)]

router = APIRouter(include_in_schema=False)  # the specification is its document


@router.get("/iiif/{id}")
async def get_base(id: JobId, request: Request) -> Response:
    """Lead to the description."""
    return RedirectResponse(f"{root_of(request)}/iiif/{id}/info.json", 303, HEADERS)


@router.get("/iiif/{id}/info.json")
async def get_info(id: JobId, caller: Decoder, request: Request, state: StateOf) -> Response:
    """Describe the image."""
    header = (await state.door.inspect(await _file(state, id, caller.owner))).container.header
    longest, factors = max(header.width, header.height), [1]
    while TILE * factors[-1] < longest:
        factors.append(2 * factors[-1])
    info: dict[str, Any] = {
        "@context": CONTEXT,
        "id": f"{str(request.base_url).rstrip('/')}/iiif/{id}",
        "type": "ImageService3",
        "protocol": "http://iiif.io/api/image",
        "profile": "level1",
        "width": header.width,
        "height": header.height,
        "tiles": [{"width": TILE, "scaleFactors": factors}],
        "extraFormats": ["png", "webp"],
        "extraFeatures": ["profileLinkHeader", "regionByPct", "sizeByConfinedWh", "sizeByPct"],
    }
    linked = "application/ld+json" in request.headers.get("accept", "")
    kind = f'application/ld+json;profile="{CONTEXT}"' if linked else "application/json"
    return Response(json.dumps(info), 200, {**HEADERS, "Vary": "Accept"}, kind)


@router.get("/iiif/{id}/{region}/{size}/{rotation}/{quality}.{format}")
async def get_image(
    id: JobId,
    region: Part,
    size: Part,
    rotation: Part,
    quality: Part,
    format: Part,
    caller: Decoder,
    request: Request,
    state: StateOf,
) -> Response:
    """Decode a part of the image, at the size that is asked for."""
    if rotation != "0" or quality not in ("default", "color") or format not in FORMATS:
        raise MalformedRequest("rotation is 0, quality default or color, format jpg, png or webp")

    async def answer() -> Response:
        data = await _file(state, id, caller.owner)
        header = (await state.door.inspect(data)).container.header
        options = options_of(region, size, (header.width, header.height), FORMATS[format])
        work = await state.door.admit(data, options)
        if over_sync(state, work):
            raise TooMuchWork("so large a part is decoded as a job alone")
        result = await state.jobs.run(work, caller.owner)
        return response_of(result, "decode", HEADERS)

    async with deadline(request, state.settings.default_deadline_s, state.settings.max_deadline_s):
        state.door.check_open()
        with state.uploads.hold(1):
            return await while_connected(request, answer())


def options_of(region: str, size: str, whole: tuple[int, int], format: Format) -> DecodeOptions:
    """Read region and size (IIIF Image API 3.0, 4.1 and 4.2) of an image of that width and height.

    Raises:
        MalformedRequest: they are none, have no pixels, or would enlarge.
    """
    if region == "square":
        side = min(whole)
        region = f"{(whole[0] - side) // 2},{(whole[1] - side) // 2},{side},{side}"
    elif region != "full" and not re.fullmatch(REGION_PATTERN, region):
        raise MalformedRequest("region is full, square, x,y,w,h or pct:x,y,w,h")
    given = None if region == "full" else region
    try:
        part = frame_of(whole, given).region
    except InvalidParameter as error:
        raise MalformedRequest(str(error)) from None
    if size == "max":
        return DecodeOptions(region=given, format=format)
    found = _SIZE.fullmatch(size)
    if found is None or found["width"] == found["height"] == "":
        raise MalformedRequest("size is max, w,  ,h  w,h  !w,h  or pct:n; ^, which enlarges, is not supported")
    width, height = (int(found[side]) if found[side] else None for side in ("width", "height"))
    fit: Fit = "inside" if found["most"] else "fill"
    if found["percent"]:
        share = float(found["percent"]) / 100
        width, height = round(part.width * share), round(part.height * share)
    too_large = (width or 1) > part.width or (height or 1) > part.height
    if 0 in (width, height) or (too_large and fit == "fill") or (fit == "inside" and None in (width, height)):
        raise MalformedRequest(f"{size} of {part.width}x{part.height} pixels: none, or more than there are")
    return DecodeOptions(region=given, width=width, height=height, fit=fit, format=format)


async def _file(state: State, id: str, owner: str) -> bytes:
    """The file of a job. Raises UnknownJob where its result is none, and as `Jobs.result`."""
    result = await state.jobs.result(id, owner)
    if result.media_type != CDC_TYPE:
        raise UnknownJob("the result of this job is no .cdc file")
    return result.data
