"""Processes that die at every point of the road: before, while and after preparing, while delivering, while submitting.

A death is a store that answers no more, just before or just after one of its calls has taken effect: whatever a killed
process would have done next never happens.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from service.jobs.attempts import Attempts
from service.jobs.blobs import RedisBlobs
from service.jobs.connection import connect
from service.jobs.limits import JobLimits
from service.jobs.memory import MemoryStore
from service.jobs.records import Job, JobRecord
from service.jobs.redis import RedisStore
from service.jobs.service import Jobs
from service.work import Progress
from tests.service.jobs.conftest import Clock, FakeExecutor, jobs_of, work_of
from tests.service.jobs.test_redis import Silent

pytestmark = pytest.mark.anyio
CALLS = ("read", "commit", "beat", "keep", "fetch", "drop", "deliver", "place", "events")
LIMITS = JobLimits()
AnyStore = MemoryStore | RedisStore


class Mortal:
    """A store, and its blobs, that a process loses for ever at the `last`-th call, before or after its effect."""

    def __init__(self, store: Any, last: int, *, after: bool) -> None:
        self._inner, self._last, self._after = store, last, after
        self.calls = 0
        self.dead = asyncio.Event()
        self.blobs = store if not hasattr(store, "blobs") else _Part(self, store.blobs)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        return self.mortal(found) if name in CALLS else found

    def mortal(self, call: Callable[..., Any]) -> Callable[..., Any]:
        async def called(*arguments: Any, **named: Any) -> Any:
            self.calls += 1
            fatal = self.calls == self._last
            if self.dead.is_set() or (fatal and not self._after):
                await self._die()
            result = await call(*arguments, **named)
            if fatal:
                await self._die()
            return result

        return called

    async def _die(self) -> None:
        self.dead.set()
        await asyncio.Event().wait()


class _Part:
    def __init__(self, whole: Mortal, inner: Any) -> None:
        self._whole, self._inner = whole, inner

    def __getattr__(self, name: str) -> Any:
        return self._whole.mortal(getattr(self._inner, name))


async def until_death(store: Mortal, work: Any) -> bool:
    """Let a process work until it dies or is through; True when it died."""
    task = asyncio.create_task(work)
    dying = asyncio.create_task(store.dead.wait())
    async with asyncio.timeout(10):
        await asyncio.wait({task, dying}, return_when=asyncio.FIRST_COMPLETED)
    died = store.dead.is_set()
    store.dead.set()  # what is cancelled now must not do anything either
    for one in (task, dying):
        one.cancel()
    await asyncio.gather(task, dying, return_exceptions=True)
    return died


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.redis)])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[AnyStore]:
    if request.param == "memory":
        yield MemoryStore(LIMITS, Clock())
        return
    async with connect(request.getfixturevalue("redis_url")) as redis:
        await redis.flushdb()
        yield RedisStore(redis, Silent(""), RedisBlobs(redis))


async def submitted(store: AnyStore, executor: FakeExecutor, body: bytes) -> tuple[Jobs, Job, str]:
    jobs = jobs_of(store, executor, LIMITS)
    job = await jobs.submit(work_of(body, preview=True), "ann")
    record = (await store.read(f"job:{job.id}")).get(f"job:{job.id}", JobRecord)
    assert record is not None
    return jobs, job, record.execution


@pytest.mark.parametrize("after", [False, True])
async def test_a_worker_that_dies_at_any_point_loses_and_doubles_nothing(store: AnyStore, after: bool) -> None:
    last, died = 0, True
    while died:
        last += 1
        executor = FakeExecutor()
        executor.preview = b"a preview"
        jobs, job, name = await submitted(store, executor, f"body {last} {after}".encode())
        mortal = Mortal(store, last, after=after)
        died = await until_death(mortal, Attempts(mortal, executor, LIMITS).execute(name))  # type: ignore[arg-type]
        await Attempts(store, executor, LIMITS).execute(name)  # delivered again
        assert (await jobs.get(job.id, "ann")).state == "succeeded", last
        assert (await jobs.result(job.id, "ann")).data == f"body {last} {after}".encode()[::-1]
        events = [event async for event in jobs.events(job.id, "ann")]
        assert [e.id for e in events] == list(range(1, len(events) + 1))
        told = [e.data.state if isinstance(e.data, Job) else e.data.step for e in events if e.type != "preview"]
        assert told == ["queued", "running", 1, 2, 3, "succeeded"], last
        previews = [e.data.step for e in events if e.type == "preview" and isinstance(e.data, Progress)]
        assert previews == [1, 2, 3]
        assert len(executor.started) <= 2
    assert last > 12  # there were so many points to die at


@pytest.mark.parametrize("after", [False, True])
async def test_a_submission_that_dies_at_any_point_is_whole_or_not_there(store: AnyStore, after: bool) -> None:
    last, died = 0, True
    while died:
        last += 1
        executor, body = FakeExecutor(), f"body {last} {after}".encode()
        mortal = Mortal(store, last, after=after)
        submission = jobs_of(mortal, executor, LIMITS).submit(work_of(body), "ann", f"key {last}")  # type: ignore[arg-type]
        died = await until_death(mortal, submission)
        if isinstance(store, RedisStore):  # in memory the store dies with the process
            for name in await store.overdue(0):
                await Attempts(store, executor, LIMITS).execute(name)
        again = await jobs_of(store, executor, LIMITS).submit(work_of(body), "ann", f"key {last}")
        if isinstance(store, RedisStore):
            for name in await store.overdue(0):
                await Attempts(store, executor, LIMITS).execute(name)
            assert (await jobs_of(store, executor, LIMITS).get(again.id, "ann")).state == "succeeded"
            assert executor.started == [body]
    assert last > 4
