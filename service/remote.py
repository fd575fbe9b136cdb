"""What an API process without an engine has instead: the fleet's state, and requests that go through the queue."""

from __future__ import annotations

import asyncio
import contextlib
import math
from dataclasses import replace

from service.engine.job import (
    DecodeRequest,
    DecodeResult,
    EncodeRequest,
    EncodeResult,
    EngineStatus,
    ModelInfo,
    OnProgress,
)
from service.errors import Busy, NotReady, ServiceError
from service.executor import CodecExecutor
from service.jobs.fleet import REPORT_S, Fleet, WorkerReport
from service.jobs.port import OnStep
from service.jobs.records import Answer, Work, new_id
from service.jobs.redis import RedisBackend
from service.jobs.store import JobStore

SYNC_TTL_S = 60.0  # results of direct requests are kept for a repeated request, no longer
WAIT_S = 30.0
LOOK_S = 2.0  # that Redis has for an answer before it counts as gone


class RemoteEngine:
    """Implements `service.engine.job.Engine` but for the work itself: models, state and speed of the fleet."""

    def __init__(self, fleet: Fleet, store: JobStore) -> None:
        self._fleet = fleet
        self._store = store
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

    async def encode(self, request: EncodeRequest) -> EncodeResult:
        """Never called: requests go through the queue as files."""
        raise NotReady("this process has no engine")

    async def decode(self, request: DecodeRequest, on_progress: OnProgress | None = None) -> DecodeResult:
        """Never called: requests go through the queue as files."""
        raise NotReady("this process has no engine")

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
                    self._queued_seconds = await self._store.queued_seconds()
                self._reachable = True
            except (ServiceError, TimeoutError):
                self._reachable = False
            models = {model.name: model for report in self._reports for model in report.models}
            if models:
                self._models = tuple(sorted(models.values(), key=lambda m: (not m.default, m.name)))
            await asyncio.sleep(REPORT_S)


class RemoteExecutor:
    """Implements `RequestExecutor` for direct requests: a job of nobody's, waited for and cancelled with its caller."""

    def __init__(self, local: CodecExecutor, backend: RedisBackend, engine: RemoteEngine, max_backlog_s: float) -> None:
        """`local` tells costs; it never runs anything."""
        self._local = local
        self._backend = backend
        self._engine = engine
        self._max_backlog_s = max_backlog_s

    async def admit(self, work: Work) -> Work:
        """See `RequestExecutor.admit`."""
        return await self._local.admit(work)

    def cost_of(self, work: Work) -> int | None:
        """See `RequestExecutor.cost_of`."""
        return self._local.cost_of(work)

    async def run(self, work: Work, on_step: OnStep | None = None, seconds_left: float = math.inf) -> Answer:
        """See `RequestExecutor.run`.

        Raises:
            Busy: more waits than may; a request is not kept waiting as a job is.
            QueueUnavailable: see `RedisBackend.submit`.
        """
        backlog = self._engine.status().backlog_seconds
        if backlog > self._max_backlog_s:
            raise Busy(f"{backlog:.0f} seconds of work are waiting", retry_after=max(1.0, backlog))
        if not work.repeatable and math.isfinite(seconds_left):
            work = replace(work, options={**work.options, "seconds_left": max(0.0, seconds_left)})
        owner = f"request:{new_id()}"
        job = await self._backend.submit(work, owner, ttl_s=SYNC_TTL_S)
        try:
            while not job.ended:
                job = await self._backend.wait(job.id, owner, WAIT_S)
            return await self._backend.result(job.id, owner)
        except asyncio.CancelledError:
            with contextlib.suppress(ServiceError):
                await asyncio.shield(self._backend.cancel(job.id, owner))
            raise
