"""The events of one job, in memory: numbered, kept for a reader that comes back, bounded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Literal, Self

from service.jobs.records import Event, Job, Step

MAX_PREVIEW_BYTES = 8 << 20  # of one job; older previews go first, their events say so by having none


class Journal:
    """Append-only. Readers may come, go and come back at any event."""

    def __init__(self, charge: Callable[[int], None] = lambda _: None) -> None:
        """`charge` is told of every change of `bytes`, which previews take."""
        self.bytes = 0
        self._charge = charge
        self._events: list[Event] = []
        self._closed = False
        self._changed = asyncio.Event()

    @classmethod
    def closed(cls) -> Self:
        """One without events, to which none will come."""
        journal = cls()
        journal.close()
        return journal

    def add(self, type: Literal["state", "progress", "preview"], data: Job | Step) -> None:
        """Append an event and wake the readers. Previews beyond MAX_PREVIEW_BYTES lose their pictures, oldest first."""
        self._events.append(Event(len(self._events) + 1, type, data))
        if isinstance(data, Step) and data.preview is not None:
            self._grow(len(data.preview))
            self._shed()
        self._wake()

    def close(self) -> None:
        """No more events: readers end after the last one."""
        self._closed = True
        self._wake()

    async def changed(self) -> None:
        """Wait for the next event or the end."""
        if not self._closed:
            await self._changed.wait()

    async def follow(self, after: int) -> AsyncIterator[Event]:
        """Yield the events with ids above `after`, waiting for new ones until the journal is closed."""
        position = max(0, after)
        while True:
            while position < len(self._events):
                yield self._events[position]
                position += 1
            if self._closed:
                return
            await self._changed.wait()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _grow(self, size: int) -> None:
        self.bytes += size
        self._charge(size)

    def _shed(self) -> None:
        for index, event in enumerate(self._events):
            if self.bytes <= MAX_PREVIEW_BYTES:
                return
            if isinstance(event.data, Step) and event.data.preview is not None:
                self._grow(-len(event.data.preview))
                bare = Step(event.data.step, event.data.steps)
                self._events[index] = Event(event.id, event.type, bare)
