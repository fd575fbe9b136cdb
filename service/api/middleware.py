"""The outermost layer: request ids, headers, the access log and the metrics of every request."""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.logs import request_id
from service.metrics import Metrics
from service.tracing import annotate, exemplar

_access = logging.getLogger("service.access")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
QUIET_ROUTES = frozenset({"/livez", "/readyz", "/metrics"})  # asked every few seconds
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

        # FastAPI's span has them: sources, links and ids of jobs are secrets. The route is in http.route.
        annotate(url__path="REDACTED", url__query="REDACTED", cdc__request_id=current)
        try:
            await self.app(scope, receive, send_marked)
        finally:
            self._record(scope, status, sent, time.perf_counter() - start)
            request_id.reset(token)

    def _record(self, scope: Scope, status: int, sent: int, seconds: float) -> None:
        route = route_of(scope)
        self._metrics.requests.labels(route, str(status)).inc()
        self._metrics.duration.labels(route, "total").observe(seconds, exemplar())
        level = logging.DEBUG if route in QUIET_ROUTES and status < 400 else logging.INFO
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
