"""The workers of a Redis queue: how they report themselves every second, and what an API process has for an engine."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from pydantic import TypeAdapter, ValidationError
from redis.asyncio import Redis

from service.engine.port import EngineStatus, ModelInfo
from service.errors import ServiceError
from service.jobs.redis import PREFIX, reachable
from service.jobs.store import Place

log = logging.getLogger(__name__)
REPORT_S = 1.0
SILENT_S = 3.5  # without a report a worker counts as gone
LOOK_S = 2.0  # that Redis has for an answer before it counts as gone


@dataclass(frozen=True)
class WorkerReport:
    """What a worker says of itself: its models, its engine's state, and seconds per pixel and denoising step."""

    models: tuple[ModelInfo, ...]
    status: EngineStatus
    seconds_per_cost: float


_REPORT = TypeAdapter(
    WorkerReport
)  # fields that this version does not know are passed over, those it lacks have defaults


class Fleet:
    """Writes and reads reports. Workers of an older or a newer version may report too."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def report(self, worker: str, report: WorkerReport) -> None:
        """Say how a worker is; forgotten after SILENT_S. Raises QueueUnavailable."""
        async with reachable(), self._redis.pipeline(transaction=False) as pipe:
            pipe.sadd(f"{PREFIX}workers", worker)
            pipe.set(f"{PREFIX}worker:{worker}", _REPORT.dump_json(report), px=round(1000 * SILENT_S))
            await pipe.execute()

    async def leave(self, worker: str) -> None:
        """A worker goes. Raises QueueUnavailable."""
        async with reachable(), self._redis.pipeline(transaction=False) as pipe:
            pipe.srem(f"{PREFIX}workers", worker)
            pipe.delete(f"{PREFIX}worker:{worker}")
            await pipe.execute()

    async def workers(self) -> list[WorkerReport]:
        """Reports of all workers that live. Raises QueueUnavailable."""
        async with reachable():
            names = sorted(_string(name) for name in await self._redis.smembers(f"{PREFIX}workers"))
            if not names:
                return []
            raw = await self._redis.mget([f"{PREFIX}worker:{name}" for name in names])
            gone = [name for name, text in zip(names, raw, strict=True) if text is None]
            if gone:
                await self._redis.srem(f"{PREFIX}workers", *gone)
        return [report for text in raw if text is not None and (report := _read(text)) is not None]


def _read(text: bytes | str) -> WorkerReport | None:
    try:
        return _REPORT.validate_json(text)
    except ValidationError as error:
        log.warning("a worker's report cannot be read", extra={"fields": [e["loc"] for e in error.errors()][:5]})
        return None


def _string(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


class RemoteEngine:
    """An `EngineView` of the fleet, for a process without an engine: models, state and speed."""

    def __init__(self, fleet: Fleet, place: Callable[[str], Awaitable[Place]]) -> None:
        """`place` tells of the queue, as `Store.place` does."""
        self._fleet = fleet
        self._place = place
        self._reports: list[WorkerReport] = []
        self._models: tuple[ModelInfo, ...] = ()
        self._queued_seconds = 0.0
        self._reachable = False
        self._draining = False
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to follow the fleet."""
        self._task = asyncio.create_task(self._follow())

    async def stop(self, grace: float) -> None:
        """Take no more requests."""
        self._draining = True
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def models(self) -> tuple[ModelInfo, ...]:
        """Models that some worker has or had; a restart of all workers does not empty it."""
        return self._models

    def status(self) -> EngineStatus:
        """The fleet as one engine: ready while a worker is."""
        states = [report.status for report in self._reports]
        return EngineStatus(
            ready=self._reachable and any(s.ready and not s.draining for s in states),
            draining=self._draining,
            waiting=sum(s.waiting for s in states),
            running=sum(s.running for s in states),
            restarts=sum(s.restarts for s in states),
            backlog_seconds=self._queued_seconds + sum(s.backlog_seconds for s in states),
            reason="no worker takes work" if self._reachable else "Redis cannot be reached",
        )

    def fleet(self) -> tuple[bool, int]:
        """Whether Redis was reached last time, and how many workers take work; 0 while it is not reached."""
        ready = sum(report.status.ready and not report.status.draining for report in self._reports)
        return self._reachable, ready if self._reachable else 0

    def seconds_of(self, cost: float) -> float:
        """Seconds until work of that cost would be done: the queue shared by all workers, then the least busy one."""
        ready = [r for r in self._reports if r.status.ready]
        if not ready:
            return 0.0
        least = min(r.status.backlog_seconds for r in ready)
        return self._queued_seconds / len(ready) + least + cost * min(r.seconds_per_cost for r in ready)

    async def _follow(self) -> None:
        while True:
            try:
                async with asyncio.timeout(LOOK_S):
                    self._reports = await self._fleet.workers()
                    self._queued_seconds = (await self._place("")).seconds
                self._reachable = True
            except (ServiceError, TimeoutError):
                self._reachable = False
            models = {model.name: model for report in self._reports for model in report.models}
            if models:
                self._models = tuple(sorted(models.values(), key=lambda m: (not m.default, m.name)))
            await asyncio.sleep(REPORT_S)
