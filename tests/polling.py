"""Waiting for what is not announced: asked again and again, up to a deadline. No other test sleeps to let time pass."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")
EVERY_S = 0.01


def wait_for(found: Callable[[], T | None], seconds: float = 10.0, every: float = EVERY_S) -> T:
    """Return the first result that counts as true. Raises AssertionError after so many seconds."""
    until = time.monotonic() + seconds
    while not (result := found()):
        assert time.monotonic() < until, f"it did not happen in {seconds} s; the last result was {result!r}"
        time.sleep(every)
    return result


async def eventually(
    found: Callable[[], T | Awaitable[T | None] | None], seconds: float = 10.0, every: float = EVERY_S
) -> T:
    """The same in an event loop, also of what must be awaited."""
    until = time.monotonic() + seconds
    while True:
        result = found()
        if inspect.isawaitable(result):
            result = await result
        if result:
            return result
        assert time.monotonic() < until, f"it did not happen in {seconds} s; the last result was {result!r}"
        await asyncio.sleep(every)
