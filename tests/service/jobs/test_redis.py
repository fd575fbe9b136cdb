"""What only jobs in Redis do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis.asyncio import Redis

from service.errors import QueueUnavailable
from service.jobs.attempts import MAX_DEATHS, Attempts
from service.jobs.blobs import RedisBlobs
from service.jobs.connection import connect
from service.jobs.limits import JobLimits
from service.jobs.queue import Enqueuer
from service.jobs.records import Execution, Failure, JobRecord, ResultInfo
from service.jobs.redis import RedisStore
from service.jobs.service import Jobs
from service.jobs.store import Change
from service.work import Progress, WorkState
from tests.service.jobs.conftest import SAID, Clock, FakeExecutor, jobs_in_redis, jobs_of, work_of

GONE = -2  # what Redis says of the time that a key has which is not there
pytestmark = [pytest.mark.anyio, pytest.mark.redis]
WORK = work_of(steps=3)
RESULT = ResultInfo("image/png", "digest", 3, SAID, {})


class Silent(Enqueuer):
    """Delivers nothing: the test plays the workers."""

    async def put(self, execution: str) -> None: ...


class Road:
    """Both sides of the road on an empty Redis, without a worker."""

    def __init__(self, redis: Redis, executor: FakeExecutor, clock: Callable[[], float] | None = None) -> None:
        self.redis = redis
        self.store = RedisStore(redis, Silent(""), RedisBlobs(redis), clock)
        self.jobs: Jobs = jobs_of(self.store, executor, JobLimits())
        self.attempts = Attempts(self.store, executor, JobLimits())

    async def submit(self, body: bytes = b"abc", owner: str = "ann", **options: Any) -> tuple[str, str]:
        """Return the ids of job and execution."""
        job = await self.jobs.submit(work_of(body, **options), owner)
        record = (await self.store.read(f"job:{job.id}")).get(f"job:{job.id}", JobRecord)
        assert record is not None
        return job.id, record.execution


@pytest.fixture
async def road(redis_url: str, executor: FakeExecutor) -> AsyncIterator[Road]:
    async with on_redis(redis_url, executor) as road:
        yield road


@asynccontextmanager
async def on_redis(url: str, executor: FakeExecutor, clock: Clock | None = None) -> AsyncIterator[Road]:
    async with connect(url) as redis:
        await redis.flushdb()
        yield Road(redis, executor, clock)


async def test_everything_expires_after_the_end(redis_url: str, executor: FakeExecutor, clock: Clock) -> None:
    limits = JobLimits(result_ttl_s=60, gone_ttl_s=30)
    async with jobs_in_redis(redis_url, executor, limits, clock) as jobs, connect(redis_url) as redis:
        for owner in ("ann", "ann", "bob"):  # the later ones join what has ended
            job = await jobs.submit(WORK, owner, key="key")
            await jobs.wait(job.id, owner, 5)
        cancelled = await jobs.submit(work_of(b"other"), "eve")
        await jobs.cancel(cancelled.id, "eve")
        found = {key: await redis.ttl(key) async for key in redis.scan_iter("cdc:*")}
        left = {key: ttl for key, ttl in found.items() if ttl != GONE}  # what was cancelled is still being removed
        kinds = (b"cdc:job:", b"cdc:exec:", b"cdc:events:", b"cdc:key:", b"cdc:share:", b"cdc:blob:result")
        assert {kind for kind in kinds if any(key.startswith(kind) for key in left)} == set(kinds)
        assert all(0 <= ttl <= 91 for key, ttl in left.items() if key.startswith(kinds)), left
        assert not any(key.startswith(b"cdc:blob:body") for key in left)


async def test_a_stale_attempt_changes_nothing(road: Road) -> None:
    job, name = await road.submit()
    first, second = await road.attempts.begin(name), await road.attempts.begin(name)
    assert first is not None
    assert second is not None
    assert second.fence == first.fence + 1
    assert not await road.attempts.beat(first)
    assert not await road.attempts.step(first, Progress(1, 3))
    assert not await road.attempts.finish(first, WorkState.SUCCEEDED, result=RESULT)
    assert (await road.jobs.get(job, "ann")).state == "running"
    assert await road.attempts.beat(second)
    assert await road.attempts.finish(second, WorkState.SUCCEEDED, result=RESULT)
    assert not await road.attempts.finish(second, WorkState.FAILED, failure=Failure("Busy", "late"))
    assert await road.attempts.begin(name) is None


async def test_what_is_sent_twice_counts_once(road: Road, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer may be lost with its connection; the command then goes out again."""
    commit = road.store._commit

    async def twice(*, keys: Any, args: Any) -> Any:
        first = await commit(keys=keys, args=args)
        assert await commit(keys=keys, args=args) == first
        return first

    monkeypatch.setattr(road.store, "_commit", twice)
    _, name = await road.submit()
    assert (await road.store.place(name)).seconds == 2.0
    assert (await road.submit(owner="bob"))[1] == name
    attempt = await road.attempts.begin(name)
    assert attempt is not None
    assert attempt.fence == 1
    assert await road.attempts.step(attempt, Progress(1, 3))
    assert await road.attempts.finish(attempt, WorkState.SUCCEEDED, result=RESULT)
    assert await road.attempts.finish(attempt, WorkState.SUCCEEDED, result=RESULT)
    assert [e.state or e.step for e in await road.store.events(name, 0)] == ["running", 1, "succeeded"]
    assert (await road.store._count())["succeeded"] == 2


async def test_nothing_is_changed_by_halves(road: Road) -> None:
    _, name = await road.submit()
    seen = await road.store.read(f"exec:{name}", "share:other")
    assert await road.attempts.begin(name) is not None  # somebody else is quicker
    execution = seen.get(f"exec:{name}", Execution)
    change = Change(name, {"share:other": (None, 0.0), f"exec:{name}": (execution, 60.0), "job:other": (None, 0.0)})
    before = {key async for key in road.redis.scan_iter("*")}
    assert not await road.store.commit(seen, change)
    assert {key async for key in road.redis.scan_iter("*")} == before


async def test_connections_cut_while_idle_are_not_noticed(redis_url: str, road: Road) -> None:
    async with connect(redis_url) as other:
        await asyncio.gather(*(road.store._count() for _ in range(8)))
        await other.client_kill_filter(_type="normal", skipme=True)
        for counts in await asyncio.gather(*(road.store._count() for _ in range(8))):
            assert counts["queued"] == 0


async def test_steps_told_again_by_a_second_attempt_are_not_repeated(road: Road) -> None:
    _, name = await road.submit()
    for reached in (2, 3):
        attempt = await road.attempts.begin(name)
        assert attempt is not None
        for step in range(1, reached + 1):
            await road.attempts.step(attempt, Progress(step, 3))
    assert [e.step for e in await road.store.events(name, 0) if e.state is None] == [1, 2, 3]


async def test_attempts_that_were_released_are_no_deaths(road: Road) -> None:
    _, name = await road.submit()
    for number in range(1, MAX_DEATHS + 3):
        attempt = await road.attempts.begin(name)
        assert attempt is not None
        assert (attempt.fence, attempt.found.deaths) == (number, 0)
        await road.attempts.release(attempt)


async def test_the_queue_holds_what_waits_and_nothing_else(road: Road) -> None:
    """Whatever the order in which executions leave it, and also when a record has outlived its time."""
    names = [await road.submit(bytes([number])) for number in range(30)]
    assert (await road.store.place("")).seconds == 60
    for _, name in names[::3]:
        await road.attempts.begin(name)
    for job, _ in names[1::3]:
        await road.jobs.cancel(job, "ann")
    await road.redis.delete(f"cdc:exec:{names[2][1]}")
    assert names[2][1] not in await road.store.overdue(0)
    assert (await road.store.place("")).waiting == 9
    for _, name in names[2::3]:
        await road.attempts.begin(name)
    assert (await road.store.place("")).seconds == 0
    assert await road.redis.zcard("cdc:queue") == 0


async def test_leases_do_not_follow_the_clocks_of_machines(road: Road, monkeypatch: pytest.MonkeyPatch) -> None:
    id, name = await road.submit()
    monkeypatch.setattr("time.time", lambda: 0.0)  # a machine that has just lost its battery
    attempt = await road.attempts.begin(name)
    assert attempt is not None
    assert await road.store.overdue(5) == []
    assert await road.attempts.finish(attempt, WorkState.SUCCEEDED, result=RESULT)
    job = await road.jobs.get(id, "ann")
    assert job.started_at is not None
    assert job.created_at <= job.started_at <= job.created_at + 5


async def test_the_request_id_crosses_the_queue(road: Road) -> None:
    job = await road.jobs.submit(work_of(request_id="abc"), "ann")
    record = (await road.store.read(f"job:{job.id}")).get(f"job:{job.id}", JobRecord)
    assert record is not None
    attempt = await road.attempts.begin(record.execution)
    assert attempt is not None
    assert attempt.found.request_id == "abc"


class BrokenBlobs(RedisBlobs):
    """Previews can neither be written nor, with `reads`, be read."""

    reads = False

    async def put(self, name: str, data: bytes, ttl_s: float) -> None:
        if name.startswith("preview/") and not self.reads:
            raise PermissionError(name)
        await super().put(name, data, ttl_s)

    async def get(self, name: str) -> bytes | None:
        if name.startswith("preview/"):
            raise PermissionError(name)
        return await super().get(name)


@pytest.mark.parametrize("reads", [False, True])
async def test_previews_that_are_lost_cost_nothing_else(
    redis_url: str, executor: FakeExecutor, monkeypatch: pytest.MonkeyPatch, reads: bool
) -> None:
    monkeypatch.setattr("tests.service.jobs.conftest.RedisBlobs", BrokenBlobs)
    monkeypatch.setattr(BrokenBlobs, "reads", reads)
    executor.preview = b"an image"
    async with jobs_in_redis(redis_url, executor, JobLimits(), None) as jobs:
        job = await jobs.submit(work_of(preview=True), "ann")
        async with asyncio.timeout(10):
            events = [event async for event in jobs.events(job.id, "ann")]
        assert (await jobs.result(job.id, "ann")).data == b"cba"
        assert [e.data.step for e in events if e.type == "progress" and isinstance(e.data, Progress)] == [1, 2, 3]
        previews = [e.data.preview for e in events if e.type == "preview" and isinstance(e.data, Progress)]
        assert previews == ([None] * 3 if reads else [])


async def test_a_job_that_kills_its_workers_fails_in_the_end(road: Road, executor: FakeExecutor) -> None:
    id, name = await road.submit()
    for _ in range(MAX_DEATHS):
        assert await road.attempts.begin(name) is not None  # and the worker dies
    await road.attempts.execute(name)
    job = await road.jobs.get(id, "ann")
    assert job.state == "failed"
    assert job.failure is not None
    assert job.failure.error == "WorkerFailed"
    assert executor.started == []


async def test_what_stands_still_is_found(redis_url: str, executor: FakeExecutor, clock: Clock) -> None:
    async with on_redis(redis_url, executor, clock) as road:
        _, waiting = await road.submit(b"one")
        _, running = await road.submit(b"two")
        attempt = await road.attempts.begin(running)
        assert attempt is not None
        clock.now += 5
        assert await road.store.overdue(6) == []
        await road.attempts.beat(attempt)
        clock.now += 2
        assert await road.store.overdue(6) == [waiting]
        clock.now += 5
        assert await road.store.overdue(6) == [waiting, running]


async def test_a_job_that_cannot_be_delivered_is_taken_back(road: Road, monkeypatch: pytest.MonkeyPatch) -> None:
    async def unreachable(*_: object) -> None:
        raise QueueUnavailable("gone")

    monkeypatch.setattr(Silent, "put", unreachable)
    with pytest.raises(QueueUnavailable):
        await road.submit()
    found = [json.loads(await road.redis.get(key)) async for key in road.redis.scan_iter("cdc:exec:*")]
    assert [execution["state"] for execution in found] == ["cancelled"]
    assert [key async for key in road.redis.scan_iter("cdc:blob:*")] == []
