"""Pure ASGI layers around the application: `Observe` outermost, `Guard` innermost."""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from contextlib import ExitStack

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.problems import problem_of
from service.api.refusals import MalformedRequest
from service.api.uploads import Upload, Uploads
from service.errors import BodyTooLarge
from service.logs import request_id
from service.metrics import Metrics

_access = logging.getLogger("service.access")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_DIGITS = re.compile(r"[0-9]{1,18}")
_QUIET_ROUTES = frozenset({"/livez", "/readyz", "/metrics"})  # asked every few seconds
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class Observe:
    """Request id in and out, security headers, one line of access log and the metrics of every request.

    An incoming X-Request-Id is kept when it has 1 to 64 letters, digits, dots, dashes or underscores; otherwise a new
    one is made. `scope["state"]["started"]` is the loop time of the request's arrival, which deadlines count from.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        current = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        token = request_id.set(current)
        scope.setdefault("state", {})["started"] = asyncio.get_running_loop().time()
        start = time.perf_counter()
        status, sent = 499, 0  # no answer at all: the caller was gone

        async def send_marked(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = current
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            elif message["type"] == "http.response.body":
                sent += len(message.get("body", b""))
            await send(message)

        try:
            await self.app(scope, receive, send_marked)
        finally:
            self._record(scope, status, sent, time.perf_counter() - start)
            request_id.reset(token)

    def _record(self, scope: Scope, status: int, sent: int, seconds: float) -> None:
        route = route_of(scope)
        self._metrics.requests.labels(route, str(status)).inc()
        self._metrics.duration.labels(route, "total").observe(seconds)
        level = logging.DEBUG if route in _QUIET_ROUTES and status < 400 else logging.INFO
        fields = {
            "method": scope["method"],
            "route": route,
            "status": status,
            "bytes_out": sent,
            "bytes_in": scope["state"].get("received", 0),
            "seconds": round(seconds, 4),
            "client": (scope.get("client") or ("", 0))[0],
        }
        if (key := scope["state"].get("key")) is not None:
            fields["key"] = key
        _access.log(level, "request", extra=fields)


def route_of(scope: Scope) -> str:
    """Return the template of the matched route, "other" when none matched: raw paths would be endless labels."""
    path = getattr(scope.get("route"), "path", None)
    return path if isinstance(path, str) else "other"


class Guard:
    """Limits on the body while it arrives, and an answer to every error that nothing else has answered.

    Args:
        max_body_bytes: largest body; refused by Content-Length before a byte is read, then by what really comes.
        body_timeout_s: seconds from the start of the request to the last byte of its body.
        uploads: follows all bodies.
    """

    def __init__(self, app: ASGIApp, max_body_bytes: int, body_timeout_s: float, uploads: Uploads) -> None:
        self.app = app
        self._max_bytes = max_body_bytes
        self._timeout = body_timeout_s
        self._uploads = uploads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False

        async def send_marked(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            with ExitStack() as answered:
                await self.app(scope, self._limited(scope, receive, answered), send_marked)
        except Exception as error:
            if started:
                raise
            await problem_of(error)(scope, receive, send)

    def _check_length(self, headers: Headers) -> None:
        length = headers.get("content-length")
        if length is None:
            return
        if not _DIGITS.fullmatch(length):
            raise MalformedRequest("Content-Length is not a number")
        if int(length) > self._max_bytes:
            raise BodyTooLarge(f"the body has {length} bytes; the limit is {self._max_bytes}")

    def _limited(self, scope: Scope, receive: Receive, answered: ExitStack) -> Receive:
        state = scope["state"]
        until = state["started"] + self._timeout
        upload: Upload | None = None
        complete = False

        async def receive_limited() -> Message:
            nonlocal upload, complete
            if complete:
                return await receive()  # only a disconnect can follow, however late
            if upload is None:
                self._check_length(Headers(scope=scope))
                upload = answered.enter_context(self._uploads.follow((scope.get("client") or ("", 0))[0]))
            message = await self._uploads.receive(upload, receive, until)
            if message["type"] == "http.request":
                state["received"] = state.get("received", 0) + len(message.get("body", b""))
                complete = not message.get("more_body", False)
            if state.get("received", 0) > self._max_bytes:
                raise BodyTooLarge(f"the body has more than {self._max_bytes} bytes, which is the limit")
            return message

        return receive_limited
