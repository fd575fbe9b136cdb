"""Errors as RFC 9457 problems: the only table from an error to its status, type and title."""

from __future__ import annotations

import http
import json
import logging
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import Match

from model import errors as codec_errors
from service import errors as service_errors
from service.api import refusals
from service.logs import request_id

MEDIA_TYPE = "application/problem+json"
_METHODS = ("DELETE", "GET", "PATCH", "POST", "PUT")
RETRY_SECONDS = 5  # while the worker loads or another instance takes over

_log = logging.getLogger("service.api")


@dataclass(frozen=True)
class Kind:
    """A kind of problem: HTTP status, stable name (the last part of `type`), title; `retry` adds Retry-After."""

    status: int
    name: str
    title: str
    retry: bool = False

    @property
    def type(self) -> str:
        """The `type` of the problem, a URI reference that never changes."""
        return f"/problems/{self.name}"


INVALID_PARAMETER = Kind(422, "invalid-parameter", "A parameter is not valid")
INTERNAL = Kind(500, "internal-error", "The service failed")
NOT_FOUND = Kind(404, "not-found", "There is nothing at this address")
METHOD_NOT_ALLOWED = Kind(405, "method-not-allowed", "This address does not take that method")
BAD_REQUEST = Kind(400, "malformed-request", "The request cannot be understood")

# Looked up along the error's method resolution order, so a new subclass is never without an answer.
TABLE: Mapping[type[Exception], Kind] = {
    refusals.RequestError: BAD_REQUEST,
    refusals.EmptyBody: Kind(400, "empty-body", "The request has no body"),
    refusals.SlowBody: Kind(408, "slow-body", "The body did not arrive in time"),
    refusals.UnsupportedMediaType: Kind(415, "unsupported-media-type", "The content type is not accepted"),
    refusals.NotAcceptable: Kind(406, "not-acceptable", "No acceptable format can be made"),
    service_errors.BodyTooLarge: Kind(413, "body-too-large", "The body is too large"),
    service_errors.TooManyPixels: Kind(422, "too-many-pixels", "The image has too many pixels"),
    service_errors.TooMuchWork: Kind(413, "too-much-work", "The decode costs too much"),
    service_errors.TooLarge: Kind(413, "too-large", "The request is too large"),
    service_errors.UnsupportedImage: Kind(415, "unsupported-image", "The body is not an image that is accepted"),
    service_errors.BrokenImage: Kind(422, "broken-image", "The image is damaged"),
    service_errors.AnimatedImage: Kind(422, "animated-image", "The image has several frames"),
    service_errors.LosslessIsSmaller: Kind(422, "lossless-is-smaller", "The image is smaller without loss"),
    service_errors.ImageError: Kind(422, "unusable-image", "The image cannot be used"),
    service_errors.Busy: Kind(429, "busy", "Too much work is waiting", retry=True),
    service_errors.RateLimited: Kind(429, "rate-limited", "The API key has been used too often", retry=True),
    service_errors.AccessError: Kind(403, "not-allowed", "The API key does not allow this"),
    service_errors.NotAuthenticated: Kind(401, "not-authenticated", "A valid API key is needed"),
    service_errors.NotAllowed: Kind(403, "not-allowed", "The API key does not allow this"),
    service_errors.LinkInvalid: Kind(403, "link-invalid", "The link was not made by this service"),
    service_errors.LinkExpired: Kind(410, "link-expired", "The link has expired"),
    service_errors.LinksOff: Kind(403, "links-off", "The service gives no links"),
    service_errors.AddressNotAllowed: Kind(422, "address-not-allowed", "The address is not one to connect to"),
    service_errors.OutsideFailed: Kind(422, "source-failed", "What lies at the address cannot be had"),
    service_errors.KeysUnavailable: Kind(503, "keys-unavailable", "API keys cannot be checked", retry=True),
    service_errors.Draining: Kind(503, "draining", "The service is shutting down", retry=True),
    service_errors.Overloaded: Kind(503, "overloaded", "Too many requests are in flight", retry=True),
    service_errors.NotReady: Kind(503, "not-ready", "The service is not ready yet", retry=True),
    service_errors.WorkerFailed: Kind(503, "worker-failed", "The worker failed on this request", retry=True),
    service_errors.Cancelled: Kind(499, "cancelled", "The caller went away"),
    service_errors.DeadlineExceeded: Kind(504, "deadline-exceeded", "The deadline of the request passed"),
    service_errors.QueueUnavailable: Kind(503, "queue-unavailable", "The job queue cannot be reached", retry=True),
    service_errors.JobError: Kind(409, "job-error", "The job cannot give that"),
    service_errors.UnknownJob: Kind(404, "unknown-job", "There is no such job"),
    service_errors.UnknownBatch: Kind(404, "unknown-batch", "There is no such batch"),
    service_errors.JobExpired: Kind(410, "job-expired", "The result is no longer kept"),
    service_errors.JobNotFinished: Kind(409, "job-not-finished", "The job has no result yet"),
    service_errors.JobCancelled: Kind(409, "job-cancelled", "The job was cancelled"),
    service_errors.KeyReused: Kind(422, "idempotency-key-reused", "The key came with another request before"),
    service_errors.ServiceError: INTERNAL,
    codec_errors.NotACdcFile: Kind(415, "not-a-cdc-file", "The body is not a .cdc file"),
    codec_errors.TruncatedFile: Kind(422, "truncated-file", "The file is cut short"),
    codec_errors.ChecksumMismatch: Kind(422, "checksum-mismatch", "The file is damaged"),
    codec_errors.MalformedFile: Kind(422, "malformed-file", "The file breaks the rules of its format"),
    codec_errors.UnsupportedVersion: Kind(422, "unsupported-version", "The file needs a later decoder"),
    codec_errors.CorruptStream: Kind(422, "corrupt-stream", "The coded data of the file makes no sense"),
    codec_errors.FileError: Kind(422, "unusable-file", "The file cannot be decoded"),
    codec_errors.LimitExceeded: Kind(422, "too-many-pixels", "The image has too many pixels"),
    codec_errors.UnknownCodec: Kind(422, "unknown-codec", "No installed model decodes this file"),
    codec_errors.UnknownModel: Kind(422, "unknown-model", "There is no such model for this request"),
    codec_errors.TargetUnreachable: Kind(422, "target-unreachable", "The asked size cannot be reached"),
    codec_errors.InvalidParameter: INVALID_PARAMETER,
    codec_errors.WeightsError: Kind(503, "not-ready", "The service is not ready yet", retry=True),
    codec_errors.CodecError: INTERNAL,
}


def kind_of(error: Exception) -> Kind:
    """Return the kind of problem of an error; `INTERNAL` for one that is in no table."""
    return next((TABLE[c] for c in type(error).__mro__ if c in TABLE), INTERNAL)


def kind_of_status(status: int) -> Kind:
    """Return the kind of problem of a status that the framework itself answers with."""
    known = {404: NOT_FOUND, 405: METHOD_NOT_ALLOWED, 400: BAD_REQUEST, 422: INVALID_PARAMETER, 500: INTERNAL}
    if status in known:
        return known[status]
    phrase = http.HTTPStatus(status).phrase if status in {s.value for s in http.HTTPStatus} else "Error"
    return Kind(status, phrase.lower().replace(" ", "-").replace("'", ""), phrase)


def problem(kind: Kind, detail: str, headers: Mapping[str, str] | None = None, **members: Any) -> Response:
    """Return a problem (RFC 9457): type, title, status, detail, instance (the request id) and further members."""
    body = {
        "type": kind.type,
        "title": kind.title,
        "status": kind.status,
        "detail": detail,
        "instance": request_id.get(),
        **members,
    }
    extra = {"Cache-Control": "no-store", **(headers or {})}
    return Response(json.dumps(body).encode(), kind.status, extra, MEDIA_TYPE)


def problem_of(error: Exception) -> Response:
    """Return the problem of any error. What an unforeseen one says is logged, never shown."""
    kind = kind_of(error)
    if kind is INTERNAL:
        _log.error("unhandled error", exc_info=error)
        return problem(kind, "an unexpected error; the log has more under this request's id")
    if kind.status == 503:
        _log.warning("unavailable", extra={"problem": kind.name, "detail": str(error)})
    headers: dict[str, str] = {}
    if kind.retry:
        seconds = error.retry_after if isinstance(error, service_errors.Busy) else RETRY_SECONDS
        headers["Retry-After"] = str(max(1, math.ceil(seconds)))
    if isinstance(error, service_errors.NotAuthenticated):
        headers["WWW-Authenticate"] = 'Bearer realm="cdc"'
    if isinstance(error, service_errors.BodyTooLarge | service_errors.Overloaded | refusals.SlowBody):
        headers["Connection"] = "close"  # the rest of the body is not read
    return problem(kind, str(error) or kind.title, headers)


def problem_of_validation(errors: Iterable[Mapping[str, Any]]) -> Response:
    """Return the problem of parameters that failed validation; member `errors` lists parameter and message."""
    faults = []
    for error in errors:
        parts = [str(p) for p in error["loc"]]
        message = str(error["msg"]).removeprefix("Value error, ")  # pydantic's words before ours
        faults.append({"in": parts[0], "parameter": ".".join(parts[1:]) or None, "message": message})
    detail = "; ".join(f"{f['parameter']}: {f['message']}" if f["parameter"] else str(f["message"]) for f in faults)
    return problem(INVALID_PARAMETER, detail, errors=faults)


def _methods(request: Request) -> list[str]:
    """The methods of an address over all its routes, for Allow (RFC 9110, 10.2.1); HEAD is answered as GET is."""
    found = [
        m
        for m in _METHODS
        if any(r.matches({**request.scope, "method": m})[0] is Match.FULL for r in request.app.routes)
    ]
    return [*found, "HEAD"] if "GET" in found else found


def install(app: FastAPI) -> None:
    """Make `app` answer every error as a problem."""

    async def typed(request: Request, error: Exception) -> Response:
        return problem_of(error)

    async def validation(request: Request, error: Exception) -> Response:
        return problem_of_validation(error.errors() if isinstance(error, RequestValidationError) else ())

    async def framework(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        headers = error.headers if isinstance(error, HTTPException) else None
        if status == 405:
            headers = {"Allow": ", ".join(_methods(request))}
        kind = kind_of_status(status)
        return problem(kind, kind.title, headers)

    async def gone(request: Request, error: Exception) -> Response:
        return problem_of(service_errors.Cancelled("the caller went away while sending its body"))

    app.add_exception_handler(service_errors.ServiceError, typed)
    app.add_exception_handler(codec_errors.CodecError, typed)
    app.add_exception_handler(RequestValidationError, validation)
    app.add_exception_handler(HTTPException, framework)
    app.add_exception_handler(ClientDisconnect, gone)
