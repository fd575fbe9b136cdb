"""Every call, without input and output: what is sent, when it is tried again, what the answer means.

A call is a generator. It yields a `Request` and is sent the `Response` or the `ConnectionFailed` that came of it; it
yields a `Pause` and is resumed after it; it returns its result. `Client` and `AsyncClient` only drive these generators.
"""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import httpx

from cdc_client.answers import CDC_TYPE, Response, bytes_of, page_in, status_in
from cdc_client.config import ClientConfig
from cdc_client.errors import ApiError, CdcError, ConnectionFailed, JobCancelled, TimedOut, error_of, error_of_problem
from cdc_client.options import DecodeOptions, EncodeOptions
from cdc_client.records import JobStatus
from cdc_client.sources import Body

T = TypeVar("T")
IMAGE_TYPE = "application/octet-stream"  # the service looks at the bytes
_FORMATS = {".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp"}
RETRIED = frozenset({408, 429, 502, 503})  # 504 would only fail again, later


@dataclass(frozen=True)
class Request:
    """An HTTP request; `path` is below the base URL.

    `timeout`: seconds without a byte of an answer; None: as configured. `out`: the file that an answer of 200 goes to.
    """

    method: str
    path: str
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = field(default=None, repr=False)
    timeout: float | None = None
    out: Path | None = None


@dataclass(frozen=True)
class Pause:
    """Nothing is done for so many seconds."""

    seconds: float


Call: TypeAlias = Generator[Request | Pause, Response | ConnectionFailed | None, T]


class Gate:
    """Shared by the calls of one client: after a 429 none of them goes out before the service wants it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._opens = 0.0

    def close_for(self, seconds: float) -> None:
        """Hold new requests back for so long."""
        self._opens = max(self._opens, self._clock() + seconds)

    @property
    def seconds(self) -> float:
        """How long a request must still wait."""
        return max(0.0, self._opens - self._clock())


@dataclass(frozen=True)
class Caller:
    """What all calls of a client share."""

    config: ClientConfig
    gate: Gate = field(default_factory=Gate)


def exchange(caller: Caller, request: Request) -> Call[Response]:
    """Send a request until it succeeds, fails for good, or was tried often enough.

    Only requests that may be sent twice come here: reads, pure work, and jobs with an Idempotency-Key.

    Raises:
        ApiError, ConnectionFailed: the last outcome.
    """
    config, tried = caller.config, 0
    while True:
        while caller.gate.seconds > 0:
            yield Pause(caller.gate.seconds)
        outcome = yield request
        assert outcome is not None
        if isinstance(outcome, Response) and outcome.status < 400:
            return outcome
        error: CdcError
        wait = backoff(config, tried)
        if isinstance(outcome, ConnectionFailed):
            error = outcome
        else:
            error = api = error_of(outcome.status, bytes_of(outcome), outcome.headers)
            if api.status not in RETRIED or (api.retry_after or 0) > config.max_retry_after_s:
                raise error
            wait = wait if api.retry_after is None else api.retry_after + random.random() * config.first_backoff_s
            if api.status == 429:
                caller.gate.close_for(wait)
        if tried >= config.max_retries:
            raise error
        tried += 1
        yield Pause(wait)


def backoff(config: ClientConfig, tried: int) -> float:
    """Seconds before the next try: doubled each time, drawn from the upper half so that clients spread."""
    longest = min(config.max_backoff_s, config.first_backoff_s * 2.0**tried)
    return longest * (0.5 + random.random() / 2)


def encode_request(body: Body, options: EncodeOptions, out: Path | None = None) -> Request:
    """POST /encode."""
    values = {**options, "frame": "first" if options.get("first_frame") else None}
    return _work_request("/encode", body, IMAGE_TYPE, values, out)


def decode_request(body: Body, options: DecodeOptions, *, previews: bool = False, out: Path | None = None) -> Request:
    """POST /decode. The format follows the ending of `out` where none is given."""
    format = options.get("format") or _FORMATS.get(out.suffix.lower() if out is not None else "", "png")
    values = {**options, "format": format, "deterministic": "true" if options.get("deterministic") else None}
    return _work_request("/decode", body, CDC_TYPE, {**values, "preview": "true" if previews else None}, out)


def inspect_request(body: Body) -> Request:
    """POST /inspect. Raises TypeError for a file that the service would have to read itself."""
    if not isinstance(body, bytes):
        raise TypeError("a file that the service reads itself cannot be inspected")
    return Request("POST", "/inspect", headers={"Content-Type": CDC_TYPE}, body=body)


def link_request(id: str, ttl_s: int) -> Request:
    """POST /jobs/{id}/links."""
    return Request("POST", f"/jobs/{id}/links", {"ttl_s": str(ttl_s)})


def as_job(request: Request) -> Request:
    """The same work as a job; its Idempotency-Key makes it safe to send twice."""
    return replace(request, headers={**request.headers, "Prefer": "respond-async", "Idempotency-Key": uuid.uuid4().hex})


def submit(caller: Caller, request: Request) -> Call[JobStatus]:
    """Make a job of the work."""
    return status_in((yield from exchange(caller, as_job(request))))


def work(caller: Caller, request: Request, read: Callable[[Response], T]) -> Call[T]:
    """Do the work at once; where the service makes a job of it because of its size, wait for that."""
    response = yield from exchange(caller, request)
    if response.status != 202:
        return read(response)
    status = yield from wait(caller, status_in(response).id, None)
    return read((yield from result(caller, status, request.out)))


def wait(
    caller: Caller, id: str, seconds: float | None, clock: Callable[[], float] = time.monotonic
) -> Call[JobStatus]:
    """Ask until the job has ended or `seconds` are over; the pauses follow its own estimate."""
    until = None if seconds is None else clock() + seconds
    while True:
        found = status_in((yield from exchange(caller, Request("GET", f"/jobs/{id}"))))
        left = None if until is None else until - clock()
        if found.ended or (left is not None and left <= 0):
            return found
        pause = min(2.0, max(0.02, (found.estimate_seconds or 0.1) / 4))
        yield Pause(pause if left is None else min(pause, left))


def result(caller: Caller, status: JobStatus, out: Path | None = None) -> Call[Response]:
    """Fetch the result of a job that has ended, into the file `out` if given.

    Raises:
        JobCancelled: it was cancelled.
        ApiError: it failed, or its result is no longer kept.
    """
    if status.state == "cancelled":
        raise JobCancelled(f"job {status.id} was cancelled")
    if status.error is not None:
        raise error_of_problem(status.error, int(status.error.get("status", 500)))
    return (yield from exchange(caller, Request("GET", f"/jobs/{status.id}/result", out=out)))


def page(caller: Caller, after: str | None) -> Call[tuple[tuple[JobStatus, ...], str | None]]:
    """A page of the caller's jobs, and what the next one comes after; None: there is none."""
    params = {"limit": "200"} if after is None else {"limit": "200", "after": after}
    found = page_in((yield from exchange(caller, Request("GET", "/jobs", params))))
    return found.jobs, found.next


def events_request(id: str, last_id: int | None) -> Request:
    """GET /jobs/{id}/events, after the event `last_id`."""
    headers = {"Accept": "text/event-stream"}
    if last_id is not None:
        headers["Last-Event-ID"] = str(last_id)
    return Request("GET", f"/jobs/{id}/events", headers=headers, timeout=60.0)  # heartbeats come every 15 s


def arguments(config: ClientConfig, request: Request, more: Mapping[str, str] | None = None) -> dict[str, Any]:
    """What httpx builds the request from; `more` are further headers."""
    return {
        "method": request.method,
        "url": config.base_url + request.path,
        "params": dict(request.params) or None,
        "headers": {**_headers(config), **request.headers, **(more or {})},
        "content": request.body,
        "timeout": httpx.Timeout(request.timeout or config.timeout, connect=config.connect_timeout),
    }


def failed(request: Request, error: httpx.TransportError) -> ConnectionFailed:
    """Return the error of a request that got no answer."""
    kind = TimedOut if isinstance(error, httpx.TimeoutException) else ConnectionFailed
    return kind(f"{request.method} {request.path}: {type(error).__name__}: {error}".removesuffix(": "))


def headers_in(headers: httpx.Headers) -> dict[str, str]:
    """The headers of an answer, names in lower case."""
    return {name.lower(): value for name, value in headers.items()}


def shown(name: str, status: JobStatus) -> str:
    """What a job looks like to a person."""
    step = "" if status.step is None else f", step {status.step} of {status.steps}"
    return f"<{name} {status.id} {status.operation} {status.state}{step}>"


def file_of(out: str | Path | None) -> Path | None:
    """The file that a result goes to."""
    return None if out is None else Path(out)


def _headers(config: ClientConfig) -> dict[str, str]:
    known = {"User-Agent": config.user_agent}
    if config.api_key is not None:
        known["Authorization"] = f"Bearer {config.api_key}"
    return known


def is_final(error: ApiError) -> bool:
    """Whether asking again is pointless."""
    return error.status not in RETRIED


def _work_request(path: str, body: Body, content_type: str, values: Mapping[str, object], out: Path | None) -> Request:
    if not isinstance(body, bytes):
        values, body = {**values, "source": body.address}, b""
    headers = {"Content-Type": content_type}
    if (seconds := values.get("deadline_s")) is not None:
        headers["X-Deadline-Ms"] = str(max(1, round(1000 * float(str(seconds)))))
    params = {k: str(v) for k, v in values.items() if v is not None and k not in ("deadline_s", "first_frame")}
    return Request("POST", path, params, headers, body, out=out)
