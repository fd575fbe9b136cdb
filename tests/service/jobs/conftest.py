"""A fake executor, and the job road around it on each of its stores."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from service.errors import Busy
from service.jobs.attempts import Attempts, Executes
from service.jobs.blobs import RedisBlobs
from service.jobs.connection import connect
from service.jobs.limits import JobLimits
from service.jobs.memory import MemoryStore
from service.jobs.queue import Consumer, Enqueuer
from service.jobs.redis import RedisStore
from service.jobs.service import Jobs
from service.work import DecodeOptions, Metadata, Options, Progress, Result, Work
from tests.service.conftest import Clock

MakeJobs = Callable[..., Awaitable[Jobs]]
SAID = Metadata(1.5, 8, 8, "lite", "00", steps=3)
EVENT_S = 5.0  # longest wait for what happens at once


def work_of(body: bytes = b"abc", request_id: str | None = None, **options: Any) -> Work:
    return Work(DecodeOptions(**options), body, hashlib.sha256(body).hexdigest(), steps=3, request_id=request_id)


class FakeExecutor:
    """Answers with the body reversed, after `steps` steps of which each waits for `gate`.

    Attributes:
        started, cancelled: bodies of the work that was; `changed` is set with each of them.
        busy: how often it first says that it is busy.
        error: what it fails with instead of answering.
    """

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.steps = 3
        self.started: list[bytes] = []
        self.cancelled: list[bytes] = []
        self.changed = asyncio.Event()
        self.busy = 0
        self.error: Exception | None = None
        self.preview: bytes | None = None
        self.models = "one"

    async def admit(self, body: bytes, options: Options) -> Work:
        return Work(options, body, hashlib.sha256(body).hexdigest(), steps=3)

    async def run(self, work: Work, on_progress: Callable[[Progress], None] | None = None) -> Result:
        previews = isinstance(work.options, DecodeOptions) and work.options.preview
        self._note(self.started, work.body)
        if self.busy:
            self.busy -= 1
            raise Busy("full", retry_after=0.01)
        try:
            for step in range(1, self.steps + 1):
                await self.gate.wait()
                await asyncio.sleep(0)
                if on_progress is not None:
                    on_progress(Progress(step, self.steps, self.preview if previews else None))
        except asyncio.CancelledError:
            self._note(self.cancelled, work.body)
            raise
        if self.error is not None:
            raise self.error
        data = work.body[::-1]
        return Result(data, "image/png", hashlib.sha256(data).hexdigest(), SAID, {"denoise": 0.5})

    def seconds_of(self, work: Work) -> float:
        return 2.0

    def generation(self) -> str:
        return self.models

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait for something that is started or cancelled."""
        async with asyncio.timeout(EVENT_S):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    def _note(self, where: list[bytes], body: bytes) -> None:
        where.append(body)
        self.changed.set()


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def executor() -> FakeExecutor:
    return FakeExecutor()


def memory_store(executor: Executes, limits: JobLimits, clock: Callable[[], float]) -> MemoryStore:
    """A store whose executions `executor` does."""
    store = MemoryStore(limits, clock)
    store.serve(Attempts(store, executor, limits).execute)
    return store


def jobs_of(store: MemoryStore | RedisStore, executor: Any, limits: JobLimits) -> Jobs:
    return Jobs(store, limits, seconds_of=executor.seconds_of, generation=executor.generation)


@asynccontextmanager
async def jobs_in_memory(executor: Any, limits: JobLimits, clock: Callable[[], float]) -> AsyncIterator[Jobs]:
    jobs = jobs_of(memory_store(executor, limits, clock), executor, limits)
    await jobs.start()
    try:
        yield jobs
    finally:
        await jobs.stop(0)


@asynccontextmanager
async def jobs_in_redis(
    url: str, executor: Any, limits: JobLimits, clock: Callable[[], float] | None
) -> AsyncIterator[Jobs]:
    """The road on an empty Redis, and a worker beside it in this process."""
    async with connect(url) as client:
        await client.flushdb()
        blobs = RedisBlobs(client)
        theirs = RedisStore(client, Enqueuer(url), blobs, clock)
        attempts = Attempts(theirs, executor, limits)
        consumer = Consumer(url, attempts.execute, limits.max_running, grace_s=0, lease_s=2)
        consuming = asyncio.create_task(consumer.run())
        await theirs.start()
        jobs = jobs_of(RedisStore(client, Enqueuer(url), blobs, clock), executor, limits)
        await jobs.start()
        try:
            yield jobs
        finally:
            consumer.stop()
            await consuming
            await attempts.close()
            await jobs.stop(0)
            await theirs.stop(0)


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.redis)])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def make_jobs(
    executor: FakeExecutor, clock: Clock, kind: str, request: pytest.FixtureRequest
) -> AsyncIterator[MakeJobs]:
    """A function that returns the road with the given limits, started."""
    async with AsyncExitStack() as stack:

        async def make(**values: Any) -> Jobs:
            limits = JobLimits(**values)
            if kind == "redis":
                url: str = request.getfixturevalue("redis_url")
                return await stack.enter_async_context(jobs_in_redis(url, executor, limits, clock))
            return await stack.enter_async_context(jobs_in_memory(executor, limits, clock))

        yield make


@pytest.fixture
async def jobs(make_jobs: MakeJobs) -> Jobs:
    return await make_jobs()
