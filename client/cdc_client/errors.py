"""What a call can fail with.

CdcError
|-- SourceFailed              an image that was given as URL cannot be fetched
|-- ConnectionFailed          no answer: the service cannot be reached, or the connection broke
|   `-- TimedOut              no byte of an answer within the timeout
|-- ApiError                  the service answered with a problem (RFC 9457)
|   |-- BadRequest            400, 405, 406, 408, 411: the request itself; a bug in the client or a proxy
|   |-- NotAuthenticated      401: no API key, or an invalid one
|   |-- NotAllowed            403: the key lacks the scope, or a link has expired
|   |-- NotFound              404: no such job, or none of this key
|   |-- Gone                  410: the job has ended and its result is no longer kept
|   |-- Conflict              409: the job has no result (yet)
|   |-- TooLarge              413: more bytes or work than the service takes
|   |-- Unusable              415, 422: the image, file or parameter cannot be used
|   |   |-- InvalidParameter  a parameter is out of range; `errors` says which
|   |   |-- UnknownCodec      no installed model decodes the file
|   |   `-- DamagedFile       checksum, truncation or malformed data
|   |-- Busy                  429: too much work waits, or the key's rate is used up
|   |-- Unavailable           503: loading, shutting down, or the queue cannot be reached
|   |-- DeadlineExceeded      504: not done within the deadline
|   `-- ServerFailed          any other 5xx
|-- UnreadableFile            a file cannot be decoded on this machine; `code` says why
|-- DecoderUnavailable        what decoding on this machine needs is not here
|-- JobCancelled              the job was cancelled, here or elsewhere
`-- WaitTimeout               the job was not done within the time given to `wait`; it goes on
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


class CdcError(Exception):
    """Base of all errors of the client."""


class ConnectionFailed(CdcError):
    """There was no answer."""


class TimedOut(ConnectionFailed):
    """There was no answer within the timeout."""


class SourceFailed(CdcError):
    """The image cannot be fetched from its address."""


class UnreadableFile(CdcError):
    """A `.cdc` file cannot be decoded. `code` is a name of FORMAT.md, such as "checksum-mismatch"."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(code, detail)
        self.code, self.detail = code, detail

    def __str__(self) -> str:
        return f"{self.detail} ({self.code})"


class DecoderUnavailable(CdcError):
    """The decoder's files, or the packages that it needs, are not on this machine."""


class JobCancelled(CdcError):
    """The job was cancelled."""


class WaitTimeout(CdcError):
    """The job is not done yet."""


class ApiError(CdcError):
    """The service refused or failed.

    Attributes:
        status: HTTP status.
        type: kind of problem, such as "/problems/checksum-mismatch"; stable. "about:blank" from a proxy.
        title: the kind in words.
        detail: what was wrong with this call.
        request_id: names the call in the logs of the service.
        retry_after: seconds until the service wants to be asked again; None if it did not say.
        errors: for invalid parameters, each fault with `in`, `parameter` and `message`.
    """

    def __init__(
        self,
        status: int,
        type: str,
        title: str,
        detail: str,
        request_id: str | None = None,
        retry_after: float | None = None,
        errors: tuple[Mapping[str, Any], ...] = (),
    ) -> None:
        super().__init__(status, type, title, detail, request_id, retry_after, errors)
        self.status, self.type, self.title, self.detail = status, type, title, detail
        self.request_id, self.retry_after, self.errors = request_id, retry_after, errors

    def __str__(self) -> str:
        known = f" [request {self.request_id}]" if self.request_id else ""
        return f"{self.detail} ({self.status} {self.type.removeprefix('/problems/')}){known}"


class BadRequest(ApiError):
    """The request cannot be understood."""


class NotAuthenticated(ApiError):
    """An API key is needed, or this one is not valid."""


class NotAllowed(ApiError):
    """The API key does not allow this."""


class NotFound(ApiError):
    """There is no such thing for this key."""


class Gone(ApiError):
    """The result is no longer kept."""


class Conflict(ApiError):
    """The job cannot give that now."""


class TooLarge(ApiError):
    """More than the service takes."""


class Unusable(ApiError):
    """The image, file or parameter cannot be used."""


class InvalidParameter(Unusable):
    """A parameter is out of range."""


class UnknownCodec(Unusable):
    """No installed model decodes this file."""


class DamagedFile(Unusable):
    """The file is damaged."""


class Busy(ApiError):
    """Too much work is waiting, or the rate of the key is used up."""


class Unavailable(ApiError):
    """The service takes no work now."""


class DeadlineExceeded(ApiError):
    """The work was not done within its deadline."""


class ServerFailed(ApiError):
    """The service failed."""


_BY_TYPE: Mapping[str, type[ApiError]] = {
    "invalid-parameter": InvalidParameter,
    "unknown-codec": UnknownCodec,
    "truncated-file": DamagedFile,
    "checksum-mismatch": DamagedFile,
    "malformed-file": DamagedFile,
    "corrupt-stream": DamagedFile,
    "broken-image": DamagedFile,
}
_BY_STATUS: Mapping[int, type[ApiError]] = {
    401: NotAuthenticated,
    403: NotAllowed,
    404: NotFound,
    409: Conflict,
    410: Gone,
    413: TooLarge,
    415: Unusable,
    422: Unusable,
    429: Busy,
    503: Unavailable,
    504: DeadlineExceeded,
}


def error_of(status: int, body: bytes, headers: Mapping[str, str]) -> ApiError:
    """Return the error of an answer; one that is no problem object, as a proxy may send, still gets a class."""
    try:
        values = json.loads(body)
    except ValueError:
        values = None
    if not isinstance(values, dict):
        values = {}
    return error_of_problem(values, status, headers.get("x-request-id"), _seconds(headers.get("retry-after")))


def error_of_problem(
    values: Mapping[str, Any], status: int, request_id: str | None = None, retry_after: float | None = None
) -> ApiError:
    """Return the error of a problem object."""
    type = str(values.get("type", "about:blank"))
    title = str(values.get("title", "the answer is not a problem object"))
    name = type.removeprefix("/problems/")
    fallback = ServerFailed if status >= 500 else BadRequest
    cls = _BY_TYPE.get(name) or _BY_STATUS.get(status, fallback)
    faults = tuple(fault for fault in values.get("errors") or () if isinstance(fault, dict))
    return cls(status, type, title, str(values.get("detail", title)), request_id, retry_after, faults)


def _seconds(header: str | None) -> float | None:
    return float(header) if header is not None and header.isdigit() else None
