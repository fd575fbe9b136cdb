"""Reading a request: its body, its deadline, the format it wants, and whether its caller is still there."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import anyio.to_thread
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from service.api.refusals import EmptyBody, MalformedRequest, NotAcceptable, UnsupportedMediaType
from service.errors import Cancelled, DeadlineExceeded
from service.work import Format

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

T = TypeVar("T")

BYTES_TYPE = "application/octet-stream"
MULTIPART = "multipart/form-data"
FIELD = b"file"
FORM = "application/x-www-form-urlencoded"  # what curl --data-binary says of any file
MAX_PARTS = 16
SMALL_BYTES = 1 << 20  # joined sooner than a thread starts
MAX_FIELD_BYTES = 256  # of a parameter: the longest, a model's name, has 64
MEDIA_TYPES: dict[Format, str] = {"png": "image/png", "webp": "image/webp", "jpeg": "image/jpeg"}
_DIGITS = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True)
class Upload:
    """A file, and the other fields of the form it came in."""

    data: bytes
    fields: Mapping[str, str] = field(default_factory=dict)


async def read_upload(request: Request, accepted: tuple[str, ...]) -> Upload:
    """Return the uploaded file: the raw body, or the part `file` of a multipart one (RFC 7578) with its other fields.

    `accepted` lists content types, `image/*` standing for all images. A body without a content type, or with the one
    that curl gives to any file, is judged by its bytes.

    Raises:
        UnsupportedMediaType, MalformedRequest, EmptyBody: see `service.api.refusals`.
        BodyTooLarge, SlowBody: from the layer that limits the body as it arrives.
    """
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise UnsupportedMediaType("a compressed body is not taken; send it without Content-Encoding")
    header = request.headers.get("content-type", "")
    media_type = header.split(";")[0].strip().lower()
    family = media_type.split("/")[0] + "/*"
    if not {media_type, family} & {"", FORM, MULTIPART, *accepted}:
        raise UnsupportedMediaType(f"send {', '.join(accepted)} or {MULTIPART}, not {media_type!r}")
    parts = [part async for part in request.stream()]
    whole = len(parts) < 2 or sum(map(len, parts)) < SMALL_BYTES  # 64 MiB would hold up the event loop for 0.1 s
    upload = Upload(b"".join(parts) if whole else await anyio.to_thread.run_sync(b"".join, parts))
    if media_type == MULTIPART:
        upload = await anyio.to_thread.run_sync(read_form, upload.data, header)
    if not upload.data:
        raise EmptyBody("the body is empty; send a file in it")
    return upload


def read_form(body: bytes, content_type: str) -> Upload:
    """Return the part named `file` of a multipart body, and its other parts as fields; blocks.

    Raises:
        MalformedRequest: not multipart, no such part, two of one name, more than 16 parts, or a field that is not
            UTF-8 or longer than 256 bytes.
    """
    boundary = parse_options_header(content_type)[1].get(b"boundary")
    if not boundary:
        raise MalformedRequest("the multipart content type lacks its boundary")
    # Counted first: the parser is slow where data imitates the boundary over and over.
    if body.count(b"\r\n--" + boundary) > MAX_PARTS:
        raise MalformedRequest(f"the multipart body has more than {MAX_PARTS} parts")
    reader = _PartReader()
    try:
        parser = MultipartParser(boundary, reader.callbacks())
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise MalformedRequest("the multipart body is malformed") from error
    if not reader.ended:
        raise MalformedRequest("the multipart body is cut short")
    parts: dict[bytes, bytes] = {}
    for name, chunks in reader.parts:
        if name in parts:
            raise MalformedRequest(f"the multipart body has two parts named {_shown(name)}")
        parts[name] = b"".join(chunks)
    if FIELD not in parts:
        raise MalformedRequest("the multipart body lacks a part named 'file'")
    data = parts.pop(FIELD)
    try:
        return Upload(data, {name.decode(): _field_value(name, value) for name, value in parts.items()})
    except UnicodeDecodeError:
        raise MalformedRequest("a field of the multipart body is not UTF-8") from None


def _field_value(name: bytes, value: bytes) -> str:
    if len(value) > MAX_FIELD_BYTES:
        raise MalformedRequest(f"the field {_shown(name)} has {len(value)} bytes; the limit is {MAX_FIELD_BYTES}")
    return value.decode()


def _shown(name: bytes) -> str:
    return repr(name[:32].decode("ascii", "replace"))


class _PartReader:
    """Collects the parts of a form: the name of each, b"" where it has none, and its data in pieces."""

    def __init__(self) -> None:
        self.parts: list[tuple[bytes, list[bytes]]] = []
        self.ended = False
        self._name = self._field = self._value = b""

    def callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._data,
            "on_end": self._end,
        }

    def _begin(self) -> None:
        self._name = b""

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._field.lower() == b"content-disposition":
            self._name = parse_options_header(self._value)[1].get(b"name", b"")
        self._field = self._value = b""

    def _headers_finished(self) -> None:
        self.parts.append((self._name, []))

    def _data(self, data: bytes, start: int, end: int) -> None:
        self.parts[-1][1].append(data[start:end])

    def _end(self) -> None:
        self.ended = True


def pick_format(query: Format | None, accept: str | None) -> Format:
    """Return the output format: `query` if given, else what the Accept header (RFC 9110, 12.5.1) likes best.

    Among equals PNG comes before WebP before JPEG; no header means PNG, and so does application/octet-stream.

    Raises:
        NotAcceptable: the header excludes all three.
    """
    if query is not None:
        return query
    if not accept or accept.strip().lower() in ("", BYTES_TYPE):
        return "png"
    weights: dict[str, float] = {}
    for item in accept.lower().split(","):
        media_range, *parameters = (part.strip() for part in item.split(";"))
        weights[media_range] = next((_quality(p) for p in parameters if p.startswith("q=")), 1.0)
    best: Format = "png"
    best_weight = 0.0
    for format, media_type in MEDIA_TYPES.items():
        weight = next((weights[r] for r in (media_type, "image/*", "*/*") if r in weights), 0.0)
        if weight > best_weight:
            best, best_weight = format, weight
    if best_weight == 0.0:
        raise NotAcceptable(f"the answer can be {', '.join(MEDIA_TYPES.values())}; the Accept header excludes them all")
    return best


def _quality(parameter: str) -> float:
    return float(parameter[2:]) if re.fullmatch(r"q=[01](\.[0-9]{0,3})?", parameter) else 1.0


@asynccontextmanager
async def deadline(request: Request, default_s: float, longest_s: float) -> AsyncIterator[None]:
    """Cancel the block when the request's time is up: X-Deadline-Ms after its arrival, or `default_s` seconds.

    Raises:
        MalformedRequest: the header is not a number of milliseconds, 1..999999999.
        DeadlineExceeded: the time is up.
    """
    header = request.headers.get("x-deadline-ms")
    seconds = default_s
    if header is not None:
        if not _DIGITS.fullmatch(header) or int(header) < 1:
            raise MalformedRequest("X-Deadline-Ms must be a whole number of milliseconds, at least 1")
        seconds = min(int(header) / 1000, longest_s)
    try:
        request.state.deadline = request.state.started + seconds
        async with asyncio.timeout_at(request.state.deadline):
            yield
    except TimeoutError:
        raise DeadlineExceeded(f"the work was not done within {seconds:g} seconds") from None


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Return the result of `work`; cancel it when the caller goes away or this task is cancelled.

    Raises:
        Cancelled: the caller went away first.
    """
    task = asyncio.create_task(work)
    watch = asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise Cancelled("the caller went away before the work was done")
    finally:
        watch.cancel()
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
            task.cancelled() or task.exception()  # an error nobody waits for any more


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
