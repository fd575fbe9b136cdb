"""Bodies on their way: how slow they may be, what they may hold, and which gives way when there are too many.

What has arrived of a body buys its upload time, at the least rate; the time it lacks is how far it is *behind*. A fast
upload is never behind, whatever its pauses were before; one that stalls, or trickles, falls behind by up to a second
each second. So one figure tells slow uploads from fast ones, as Apache's mod_reqtimeout does with MinRate.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.problems import problem_of
from service.api.refusals import MalformedRequest, SlowBody
from service.errors import BodyTooLarge, Busy

GRACE_S = 10.0  # that an upload may be behind: radio links pause for seconds
STALLED_S = 1.0  # behind by this, an upload gives way where there are too many
RETRY_SECONDS = 2.0
_DIGITS = re.compile(r"[0-9]{1,18}")


@dataclass(eq=False)
class Upload:
    """The body of one request.

    Attributes:
        client: address it comes from.
        paid_until: loop time until which the bytes so far keep the least rate.
        size: bytes that have arrived.
        timer: of the wait for the next bytes; None while nobody waits.
        displaced: it had to give way.
    """

    client: str
    paid_until: float
    size: int = 0
    timer: asyncio.Timeout | None = None
    displaced: bool = False


class Uploads:
    """All bodies of one process, from their first byte until their request is answered. Used on the event loop only.

    Args:
        max_bytes: of all bodies together; a single one is always let in.
        max_per_client: unfinished uploads of one address. Beyond it those that have stalled give way.
        min_rate: bytes a second.
        grace_s: seconds that an upload may be behind.
    """

    def __init__(self, max_bytes: int, max_per_client: int, min_rate: float, *, grace_s: float = GRACE_S) -> None:
        self._max_bytes = max_bytes
        self._max_per_client = max_per_client
        self._min_rate = min_rate
        self._grace_s = grace_s
        self._unfinished: dict[str, set[Upload]] = {}  # by client
        self.held = 0  # bytes

    @contextmanager
    def follow(self, client: str) -> Iterator[Upload]:
        """Follow the upload of a request until the request is answered; others of its client may have to give way."""
        upload = Upload(client, asyncio.get_running_loop().time())
        own = self._unfinished.setdefault(client, set())
        own.add(upload)
        if (surplus := len(own) - self._max_per_client) > 0:
            for other in self._stalled(own)[:surplus]:
                self._displace(other)
        try:
            yield upload
        finally:
            self._finish(upload)
            self.held -= upload.size

    async def receive(self, upload: Upload, receive: Receive, until: float) -> Message:
        """Return the next part of the body, which must come before the loop time `until`.

        Raises:
            SlowBody: it did not, the upload is too far behind, or it had to give way.
            Busy: all bodies together are too large, and none has stalled.
        """
        last = min(until, upload.paid_until + self._grace_s)
        try:
            if upload.displaced:
                raise TimeoutError
            async with asyncio.timeout_at(last) as upload.timer:
                message = await receive()
        except TimeoutError:
            raise SlowBody(self._reason(upload, last == until)) from None
        finally:
            upload.timer = None
        size = len(message.get("body", b""))
        self._make_room(upload, size)
        now = asyncio.get_running_loop().time()
        upload.size += size
        self.held += size
        upload.paid_until = min(now, upload.paid_until + size / self._min_rate)
        if not message.get("more_body", False):
            self._finish(upload)
        return message

    def _reason(self, upload: Upload, timed_out: bool) -> str:
        if upload.displaced:
            return "the body came to a standstill while others were waiting"
        if timed_out:
            return "the body took too long to arrive"
        return f"the body must arrive at {self._min_rate:g} bytes a second or faster"

    def _make_room(self, upload: Upload, size: int) -> None:
        others = self.held - upload.size
        if not others or self.held + size <= self._max_bytes:
            return
        for other in self._stalled(u for uploads in self._unfinished.values() for u in uploads if u is not upload):
            self._displace(other)
            if self.held + size <= self._max_bytes:
                return
        raise Busy("too many bytes of uploads are held; try again shortly", RETRY_SECONDS)

    def _stalled(self, uploads: Iterable[Upload]) -> list[Upload]:
        """Those that have stalled, the furthest behind first."""
        limit = asyncio.get_running_loop().time() - STALLED_S
        return sorted((u for u in uploads if u.paid_until < limit), key=lambda u: u.paid_until)

    def _displace(self, upload: Upload) -> None:
        """End an upload: whoever waits for its next bytes gets SlowBody."""
        upload.displaced = True
        self._finish(upload)
        self.held, upload.size = self.held - upload.size, 0
        if upload.timer is not None and not upload.timer.expired():
            upload.timer.reschedule(asyncio.get_running_loop().time())

    def _finish(self, upload: Upload) -> None:
        """Count it no longer among the unfinished."""
        own = self._unfinished.get(upload.client, set())
        own.discard(upload)
        if not own:
            self._unfinished.pop(upload.client, None)


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
