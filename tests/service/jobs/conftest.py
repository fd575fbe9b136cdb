"""A fake executor, and every job backend around it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from service.errors import Busy
from service.jobs.attempt import Attempts
from service.jobs.blobs import RedisBlobs
from service.jobs.connection import connect
from service.jobs.memory import MemoryBackend
from service.jobs.notifications import Notifications
from service.jobs.port import JobBackend, JobLimits, OnStep
from service.jobs.queue import Consumer
from service.jobs.records import Answer, Step, Work
from service.jobs.redis import RedisBackend
from service.jobs.store import JobStore

MakeBackend = Callable[..., Awaitable[JobBackend]]


class FakeExecutor:
    """Answers with the body reversed, after `steps` steps of which each waits for `gate`.

    Attributes:
        started, cancelled: bodies of the work that was.
        busy: how often it first says that it is busy.
        error: what it fails with instead of answering.
    """

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.steps = 3
        self.started: list[bytes] = []
        self.cancelled: list[bytes] = []
        self.busy = 0
        self.error: Exception | None = None
        self.preview: bytes | None = None
        self.models = "one"

    async def run(self, work: Work, on_step: OnStep | None = None) -> Answer:
        self.started.append(work.body)
        if self.busy:
            self.busy -= 1
            raise Busy("full", retry_after=0.01)
        try:
            for step in range(1, self.steps + 1):
                await self.gate.wait()
                await asyncio.sleep(0)
                if on_step is not None:
                    on_step(Step(step, self.steps, self.preview if work.previews else None))
        except asyncio.CancelledError:
            self.cancelled.append(work.body)
            raise
        if self.error is not None:
            raise self.error
        data = work.body[::-1]
        return Answer(data, "image/png", hashlib.sha256(data).hexdigest(), {"steps": str(self.steps)}, {"denoise": 0.5})

    def seconds_of(self, work: Work) -> float | None:
        return 2.0

    def generation(self) -> str:
        return self.models


class Clock:
    """Seconds that a test moves."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def executor() -> FakeExecutor:
    return FakeExecutor()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@asynccontextmanager
async def redis_backend(
    url: str, executor: FakeExecutor, limits: JobLimits, clock: Callable[[], float] | None
) -> AsyncIterator[RedisBackend]:
    """A backend on an empty Redis, and a worker beside it in this process."""
    async with connect(url) as client:
        await client.flushdb()
        blobs = RedisBlobs(client)
        backend = RedisBackend(client, url, blobs, limits, executor.seconds_of, executor.generation, clock)
        notifications = Notifications(client)
        notifications.start()
        attempts = Attempts(JobStore(client, limits, clock), blobs, notifications, executor)
        consumer = Consumer(url, attempts.execute, limits.max_running, grace_s=0, lease_s=2)
        consuming = asyncio.create_task(consumer.run())
        await backend.start()
        try:
            yield backend
        finally:
            consumer.stop()
            await consuming
            await attempts.close()
            await backend.stop(0)
            await notifications.stop()


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.redis)])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def make_backend(
    executor: FakeExecutor, clock: Clock, kind: str, request: pytest.FixtureRequest
) -> AsyncIterator[MakeBackend]:
    """A function that returns a started backend with the given limits."""
    async with AsyncExitStack() as stack:

        async def make(**values: Any) -> JobBackend:
            limits = JobLimits(**values)
            if kind == "redis":
                url: str = request.getfixturevalue("redis_url")
                return await stack.enter_async_context(redis_backend(url, executor, limits, clock))
            backend = MemoryBackend(executor, limits, clock)
            await backend.start()
            stack.push_async_callback(backend.stop, 0.0)
            return backend

        yield make


@pytest.fixture
async def backend(make_backend: MakeBackend) -> JobBackend:
    return await make_backend()
