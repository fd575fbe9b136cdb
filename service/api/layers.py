"""Pure ASGI layers that know nothing of the routes: `Capacity` bounds requests in flight, `Head` answers HEAD."""

from __future__ import annotations

import anyio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.problems import problem_of
from service.errors import Overloaded

OPERATION = frozenset({"/livez", "/readyz", "/metrics"})  # answered whatever the load


class Capacity:
    """Answers 503 with Retry-After beyond `max_requests` requests in flight, but for those of `OPERATION`.

    A server's own limit answers a bare text and counts health checks, so that load looks like a dead process.
    """

    def __init__(self, app: ASGIApp, max_requests: int) -> None:
        self.app = app
        self._max = max_requests
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["path"].removeprefix(scope.get("root_path", "")) in OPERATION:
            await self.app(scope, receive, send)
            return
        if self._held >= self._max:
            await problem_of(Overloaded(f"{self._held} requests are in flight"))(scope, receive, send)
            return
        self._held += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self._held -= 1


class Head:
    """Answers HEAD wherever there is GET: the same status and headers, no body (RFC 9110, 9.3.2)."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self.app(scope, receive, send)
            return
        inner = {**scope, "method": "GET"}  # a copy: the server looks at its own method when it frames the answer
        with anyio.CancelScope() as stream:

            async def send_head(message: Message) -> None:
                if message["type"] == "http.response.start":
                    await send(message)
                    await send({"type": "http.response.body"})
                elif message.get("more_body"):
                    stream.cancel()  # an event stream might go on for hours

            try:
                await self.app(inner, receive, send_head)
            finally:
                if "route" in inner:
                    scope["route"] = inner["route"]  # what the access log and the metrics name
