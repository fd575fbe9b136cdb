"""The event loop under many requests at once: their starts take turns, and how late the loop is is measured."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send

LAG_EVERY_S = 0.05


class TakeTurns:
    """Lets one POST request start in each turn of the event loop; requests without a body pass by.

    A start costs about half a millisecond, most of it before the first await: 300 at once would hold up /livez, and all
    that is running, for a fifth of a second and more.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._turn = asyncio.Lock()  # first come, first served

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "http" and scope["method"] == "POST":
            async with self._turn:
                await asyncio.sleep(0)
        await self.app(scope, receive, send)


async def measure_lag(observe: Callable[[float], None]) -> None:
    """Tell forever, for every twentieth of a second, how many seconds later than due the event loop came to it.

    When the loop stands still for a second, that is twenty figures of up to a second, not one: as many as would have
    been noticed by somebody who asks that often.
    """
    loop = asyncio.get_running_loop()
    due = loop.time() + LAG_EVERY_S
    while True:
        await asyncio.sleep(due - loop.time())
        now = loop.time()
        while due <= now:
            observe(now - due)
            due += LAG_EVERY_S
