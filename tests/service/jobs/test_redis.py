"""What only jobs in Redis do."""

from __future__ import annotations

import asyncio

import pytest

from service.jobs.attempt import Attempts
from service.jobs.blobs import RedisBlobs
from service.jobs.connection import connect
from service.jobs.notifications import Notifications
from service.jobs.port import JobLimits
from service.jobs.records import Answer, Failure, Step, Work
from service.jobs.store import KEEP_S, MAX_DEATHS, JobStore
from tests.service.jobs.conftest import Clock, FakeExecutor, redis_backend

pytestmark = [pytest.mark.anyio, pytest.mark.redis]
WORK = Work("decode", b"abc", {"steps": 3})
ANSWER = Answer(b"cba", "image/png", "digest", {}, {})


async def test_everything_expires_after_the_end(redis_url: str, executor: FakeExecutor, clock: Clock) -> None:
    limits = JobLimits(result_ttl_s=2, gone_ttl_s=1)
    async with redis_backend(redis_url, executor, limits, clock) as backend, connect(redis_url) as redis:
        for owner in ("ann", "ann", "bob"):  # the later ones join what has ended
            job = await backend.submit(WORK, owner, key="key")
            await backend.wait(job.id, owner, 5)
        cancelled = await backend.submit(Work("decode", b"other", {}), "eve")
        await backend.cancel(cancelled.id, "eve")
        left = {key: await redis.ttl(key) async for key in redis.scan_iter("cdc:*")}
        kinds = (b"cdc:job:", b"cdc:exec:", b"cdc:idem:", b"cdc:share:", b"cdc:blob:result")
        assert {kind for kind in kinds if any(key.startswith(kind) for key in left)} == set(kinds)
        assert all(0 <= ttl <= 4 for key, ttl in left.items() if key.startswith(kinds)), left
        await asyncio.sleep(4.1)
        assert [key async for key in redis.scan_iter("cdc:*") if key.startswith((*kinds, b"cdc:blob"))] == []


async def test_a_stale_attempt_changes_nothing(redis_url: str) -> None:
    async with connect(redis_url) as redis:
        await redis.flushdb()
        store = JobStore(redis, JobLimits())
        await store.submit("job", "execution", WORK, "ann", None, 1.0, 60)
        first, second = await store.begin("execution"), await store.begin("execution")
        assert first is not None
        assert second is not None
        assert second.fence == first.fence + 1
        assert not await store.heartbeat("execution", first.fence)
        assert not await store.progress("execution", first.fence, 1, 3)
        assert not await store.finish("execution", first.fence, "succeeded", answer=ANSWER)
        assert (await store.view("job", "ann")).job.state == "running"
        assert await store.heartbeat("execution", second.fence)
        assert await store.finish("execution", second.fence, "succeeded", answer=ANSWER)
        assert not await store.finish("execution", second.fence, "failed", Failure("Busy", "late"))
        assert await store.begin("execution") is None


async def test_what_is_sent_twice_counts_once(redis_url: str) -> None:
    """An answer may be lost with its connection; the command then goes out again."""
    async with connect(redis_url) as redis:
        await redis.flushdb()
        store = JobStore(redis, JobLimits())
        submitted = [await store.submit("job", "execution", WORK, "ann", "key", 1.0, 60) for _ in range(2)]
        assert submitted == [("job", "execution", True)] * 2
        assert await store.queued_seconds() == 1.0
        joined = [await store.submit("other", "unused", WORK, "bob", None, 1.0, 60) for _ in range(2)]
        assert joined == [("other", "execution", False)] * 2
        started = await store.begin("execution")
        assert started is not None
        assert await store.finish("execution", started.fence, "succeeded", answer=ANSWER)
        assert await store.finish("execution", started.fence, "succeeded", answer=ANSWER)
        assert (await store.counts())["succeeded"] == 2


async def test_connections_cut_while_idle_are_not_noticed(redis_url: str) -> None:
    async with connect(redis_url) as redis, connect(redis_url) as other:
        store = JobStore(redis, JobLimits())
        await asyncio.gather(*(store.counts() for _ in range(8)))
        await other.client_kill_filter(_type="normal", skipme=True)
        for counts in await asyncio.gather(*(store.counts() for _ in range(8))):
            assert counts["queued"] == 0


async def test_steps_told_again_by_a_second_attempt_are_not_repeated(redis_url: str) -> None:
    async with connect(redis_url) as redis:
        await redis.flushdb()
        store = JobStore(redis, JobLimits())
        await store.submit("job", "execution", WORK, "ann", None, 1.0, 60)
        for reached in (2, 3):
            started = await store.begin("execution")
            assert started is not None
            for step in range(1, reached + 1):
                await store.progress("execution", started.fence, step, 3)
        assert [e["n"] for e in await store.events("execution", 0) if "n" in e] == [1, 2, 3]


async def test_attempts_that_were_released_are_no_deaths(redis_url: str) -> None:
    async with connect(redis_url) as redis:
        await redis.flushdb()
        store = JobStore(redis, JobLimits())
        await store.submit("job", "execution", WORK, "ann", None, 1.0, 60)
        for number in range(1, MAX_DEATHS + 3):
            started = await store.begin("execution")
            assert started is not None
            assert (started.fence, started.exhausted) == (number, False)
            await store.release("execution", started.fence)


async def test_beginning_twice_for_one_call_is_one_attempt(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer was lost with its connection, and redis-py sent the script again."""
    monkeypatch.setattr("service.jobs.store.secrets.token_hex", lambda _: "one call")
    async with connect(redis_url) as redis:
        await redis.flushdb()
        store = JobStore(redis, JobLimits())
        await store.submit("job", "execution", WORK, "ann", None, 1.0, 60)
        first, again = await store.begin("execution"), await store.begin("execution")
        assert first == again


async def test_seconds_of_the_queue_never_drift(redis_url: str) -> None:
    """Whatever the order in which executions leave the queue, and also when a record has outlived its time."""
    async with connect(redis_url) as redis:
        await redis.flushdb()
        store = JobStore(redis, JobLimits())
        for number in range(30):
            work = Work("decode", bytes([number]))
            await store.submit(f"job{number}", f"e{number}", work, "ann", None, 0.1 * number, 60)
        assert await store.queued_seconds() == pytest.approx(43.5)
        for number in range(0, 30, 3):
            await store.begin(f"e{number}")
        for number in range(1, 30, 3):
            await store.cancel(f"job{number}")
        await redis.delete("cdc:exec:e2")
        assert "e2" in await store.overdue(0)
        for number in range(2, 30, 3):
            await store.begin(f"e{number}")
        assert await store.queued_seconds() == 0
        assert await redis.zcard("cdc:queue") == 0


async def test_leases_do_not_follow_the_clocks_of_machines(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with connect(redis_url) as redis:
        await redis.flushdb()
        store = JobStore(redis, JobLimits())
        await store.submit("job", "execution", WORK, "ann", None, 1.0, 60)
        monkeypatch.setattr("time.time", lambda: 0.0)  # a machine that has just lost its battery
        started = await store.begin("execution")
        assert started is not None
        assert await store.overdue(5) == []
        assert await store.finish("execution", started.fence, "succeeded", answer=ANSWER)
        job = (await store.view("job", "ann")).job
        assert job.started_at is not None
        assert job.created_at <= job.started_at <= job.created_at + 5


async def test_the_request_id_crosses_the_queue(redis_url: str) -> None:
    async with connect(redis_url) as redis:
        await redis.flushdb()
        store = JobStore(redis, JobLimits())
        await store.submit("job", "execution", Work("decode", b"x", request_id="abc"), "ann", None, 1.0, 60)
        started = await store.begin("execution")
        assert started is not None
        assert started.work["request_id"] == "abc"


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
    executor.preview = b"a picture"
    async with redis_backend(redis_url, executor, JobLimits(), None) as backend:
        job = await backend.submit(Work("decode", b"abc", previews=True), "ann")
        async with asyncio.timeout(10):
            events = [event async for event in backend.events(job.id, "ann")]
        assert (await backend.result(job.id, "ann")).data == b"cba"
        assert [e.data.step for e in events if e.type == "progress" and isinstance(e.data, Step)] == [1, 2, 3]
        previews = [e.data.preview for e in events if e.type == "preview" and isinstance(e.data, Step)]
        assert previews == ([None] * 3 if reads else [])


async def test_a_job_that_kills_its_workers_fails_in_the_end(redis_url: str, executor: FakeExecutor) -> None:
    async with connect(redis_url) as redis:
        await redis.flushdb()
        store, blobs = JobStore(redis, JobLimits()), RedisBlobs(redis)
        await blobs.put("body/execution", b"abc", KEEP_S)
        await store.submit("job", "execution", WORK, "ann", None, 1.0, 60)
        for _ in range(MAX_DEATHS):
            assert await store.begin("execution") is not None  # and the worker dies
        await Attempts(store, blobs, Notifications(redis), executor).execute("execution")
        job = (await store.view("job", "ann")).job
        assert job.state == "failed"
        assert job.failure is not None
        assert job.failure.error == "WorkerFailed"
        assert executor.started == []


async def test_what_stands_still_is_found(redis_url: str, clock: Clock) -> None:
    async with connect(redis_url) as redis:
        await redis.flushdb()
        store = JobStore(redis, JobLimits(), clock)
        await store.submit("one", "waiting", WORK, "ann", None, 1.0, 60)
        await store.submit("two", "running", Work("decode", b"x", {}), "ann", None, 1.0, 60)
        started = await store.begin("running")
        assert started is not None
        clock.now += 5
        assert await store.overdue(6) == []
        await store.heartbeat("running", started.fence)
        clock.now += 2
        assert await store.overdue(6) == ["waiting"]
        clock.now += 5
        assert await store.overdue(6) == ["waiting", "running"]
