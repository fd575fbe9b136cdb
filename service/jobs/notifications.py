"""One subscription for a whole process: whoever waits for something in Redis is woken when it may have happened."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from redis.asyncio import Redis
from redis.exceptions import RedisError

from service.jobs.store import CHANNEL

log = logging.getLogger(__name__)
RETRY_S = 0.5


class Signal:
    """Set by every notification since the last wait, so that none is missed between looking and waiting."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def set(self) -> None:
        """Something happened."""
        self._event.set()

    async def wait(self, seconds: float) -> bool:
        """Return at a notification since the last call, or after `seconds`; True for a notification."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._event.wait()
        notified = self._event.is_set()
        self._event.clear()
        return notified


class Notifications:
    """Listens to the channel of executions and wakes those who wait for one. Comes back by itself after a cut."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._signals: dict[str, set[Signal]] = defaultdict(set)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to listen."""
        self._task = asyncio.create_task(self._listen_for_ever())

    async def stop(self) -> None:
        """Listen no more."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    @contextmanager
    def of(self, execution: str) -> Iterator[Signal]:
        """A signal that is set whenever something happens to the execution."""
        signal = Signal()
        self._signals[execution].add(signal)
        try:
            yield signal
        finally:
            self._signals[execution].discard(signal)
            if not self._signals[execution]:
                del self._signals[execution]

    async def _listen_for_ever(self) -> None:
        while True:
            try:
                async with self._redis.pubsub(ignore_subscribe_messages=True) as channel:
                    await channel.subscribe(CHANNEL)
                    self._wake_all()  # what came while nobody listened
                    async for message in channel.listen():
                        for signal in self._signals.get(message["data"].decode(), ()):
                            signal.set()
            except (RedisError, OSError) as error:
                log.warning("the channel of notifications is cut, trying again", extra={"error": type(error).__name__})
            await asyncio.sleep(RETRY_S)

    def _wake_all(self) -> None:
        for signals in self._signals.values():
            for signal in signals:
                signal.set()
