"""What only jobs in process do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from service.errors import Busy, Draining, UnknownJob
from service.jobs import attempts
from service.jobs.limits import JobLimits
from service.jobs.memory import RECORD_BYTES, MemoryStore
from service.jobs.service import Jobs
from service.logs import request_id
from service.work import EncodeOptions, Progress, Result, Work
from tests.service.jobs.conftest import Clock, FakeExecutor, jobs_of, memory_store, work_of

pytestmark = pytest.mark.anyio


def made(executor: FakeExecutor, clock: Callable[[], float] = Clock(), **limits: float) -> tuple[Jobs, MemoryStore]:  # noqa: B008
    known = JobLimits(**limits)  # type: ignore[arg-type]
    store = memory_store(executor, known, clock)
    return jobs_of(store, executor, known), store


async def test_jobs_are_forgotten_a_while_after_they_expire(executor: FakeExecutor, clock: Clock) -> None:
    jobs, store = made(executor, clock, result_ttl_s=100, gone_ttl_s=1000)
    job = await jobs.submit(work_of(), "ann", "key")
    await jobs.wait(job.id, "ann", 5)
    clock.now += 1101
    await store.sweep()
    with pytest.raises(UnknownJob):
        await jobs.get(job.id, "ann")
    assert (await jobs.submit(work_of(), "ann", "key")).id != job.id
    assert jobs.counts() == {"queued": 1}


async def test_bytes_are_bounded(executor: FakeExecutor) -> None:
    jobs, _ = made(executor, max_bytes=2 * RECORD_BYTES + 1500)
    job = await jobs.submit(work_of(bytes(1000)), "ann")
    await jobs.wait(job.id, "ann", 5)
    with pytest.raises(Busy):
        await jobs.submit(work_of(b"\1" * 1000), "ann")
    assert (await jobs.run(work_of(b"\1" * 1000), "ann")).data == b"\1" * 1000  # keeps nothing


async def test_uploads_are_let_go_with_the_end(executor: FakeExecutor, clock: Clock) -> None:
    jobs, store = made(executor, clock, result_ttl_s=10, gone_ttl_s=0)
    executor.gate.clear()
    kept, dropped = [await jobs.submit(work_of(bytes([k]) * 1000), "ann") for k in range(2)]
    assert store.held == 2 * (RECORD_BYTES + 1000)
    await jobs.cancel(dropped.id, "ann")  # before its task ever ran
    executor.gate.set()
    await jobs.wait(kept.id, "ann", 5)
    assert store.held == 2 * RECORD_BYTES + 1000  # the result of one
    executor.error = ValueError("a defect")
    failed = await jobs.submit(work_of(b"\2" * 1000), "ann")
    await jobs.wait(failed.id, "ann", 5)
    assert store.held == 3 * RECORD_BYTES + 1000
    clock.now += 11
    await store.sweep()
    assert store.held == 0


async def test_a_direct_request_leaves_nothing_behind(executor: FakeExecutor) -> None:
    jobs, store = made(executor)
    await jobs.run(work_of(bytes(1000)), "ann")
    executor.error = ValueError("a defect")
    with pytest.raises(Exception, match="unexpected"):
        await jobs.run(work_of(bytes(1000)), "ann")
    assert store.held == 0
    assert store._records == {}


async def test_a_direct_request_does_not_wait_behind_jobs(executor: FakeExecutor) -> None:
    jobs, _ = made(executor, max_running=1, max_queued=1)
    executor.gate.clear()
    for body in (b"1", b"2"):
        await jobs.submit(work_of(body), "ann")
        await executor.until(lambda: executor.started)
    direct = asyncio.create_task(jobs.run(work_of(b"direct"), "ann"))
    await executor.until(lambda: b"direct" in executor.started)
    executor.gate.set()
    assert (await direct).data == b"tcerid"


async def test_a_direct_request_does_not_wait_with_an_identical_job(executor: FakeExecutor) -> None:
    jobs, _ = made(executor, max_running=1)
    executor.gate.clear()
    first, second = [await jobs.submit(work_of(body), "ann") for body in (b"1", b"2")]
    direct = asyncio.create_task(jobs.run(work_of(b"2"), "ann"))
    await executor.until(lambda: b"2" in executor.started)
    executor.gate.set()
    assert (await direct).data == b"2"
    for job in (first, second):
        assert (await jobs.wait(job.id, "ann", 5)).state == "succeeded"


async def test_jobs_with_effort_do_not_hold_every_place(
    executor: FakeExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.jobs.memory.RETRY_S", 0.01)
    jobs, _ = made(executor, max_running=4)
    executor.gate.clear()

    def refined(body: bytes) -> Work:
        return replace(work_of(body), options=EncodeOptions(effort=5), steps=48)

    efforts = [await jobs.submit(refined(bytes([k])), "ann") for k in range(5)]
    await executor.until(lambda: len(executor.started) == 2)
    other = await jobs.submit(work_of(b"quick"), "bob")
    await executor.until(lambda: b"quick" in executor.started)
    assert len(executor.started) == 3
    direct = asyncio.create_task(jobs.run(refined(b"direct"), "eve"))  # somebody waits for it
    await executor.until(lambda: b"direct" in executor.started)
    executor.gate.set()
    await direct
    for job, owner in ((other, "bob"), *((job, "ann") for job in efforts)):
        assert (await jobs.wait(job.id, owner, 5)).state == "succeeded"


async def test_a_direct_request_is_told_when_the_engine_is_full(executor: FakeExecutor) -> None:
    executor.busy = 1
    jobs, _ = made(executor)
    with pytest.raises(Busy):
        await jobs.run(work_of(), "ann")


async def test_joining_identical_work_needs_room_too(executor: FakeExecutor) -> None:
    jobs, _ = made(executor, max_bytes=3 * RECORD_BYTES + 100)
    first = await jobs.submit(work_of(), "ann")
    await jobs.submit(work_of(), "bob")
    await jobs.wait(first.id, "ann", 5)
    await jobs.submit(work_of(), "eve")  # of what has ended
    with pytest.raises(Busy, match="bytes"):
        await jobs.submit(work_of(), "dan")
    assert executor.started == [b"abc"]


async def test_lines_of_the_log_carry_the_id_of_the_request(executor: FakeExecutor) -> None:
    seen: list[str | None] = []
    run = executor.run

    async def watched(work: Work, on_progress: Callable[[Progress], None] | None = None) -> Result:
        seen.append(request_id.get())
        return await run(work, on_progress)

    executor.run = watched  # type: ignore[method-assign]
    jobs, _ = made(executor, max_running=1)
    submitted = [await jobs.submit(work_of(bytes([k]), request_id=f"id-{k}"), "ann") for k in range(3)]
    for job in submitted:
        await jobs.wait(job.id, "ann", 5)
    assert seen == ["id-0", "id-1", "id-2"]


async def test_stop_gives_running_jobs_a_while_and_then_cancels_them(executor: FakeExecutor) -> None:
    jobs, _ = made(executor)
    executor.gate.clear()
    await jobs.submit(work_of(), "ann")
    await executor.until(lambda: executor.started)
    stopping = asyncio.create_task(jobs.stop(0.2))
    await asyncio.sleep(0)
    with pytest.raises(Draining):
        await jobs.submit(work_of(b"late"), "ann")
    assert not executor.cancelled
    await stopping
    assert executor.cancelled == [b"abc"]


async def test_old_previews_lose_their_pictures_and_keep_their_numbers(
    executor: FakeExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "MAX_PREVIEW_BYTES", 3000)
    executor.preview, executor.steps = bytes(1000), 5
    jobs, _ = made(executor)
    job = await jobs.submit(work_of(preview=True), "ann")
    await jobs.wait(job.id, "ann", 5)
    previews = [e.data async for e in jobs.events(job.id, "ann") if e.type == "preview"]
    assert [(p.step, p.preview is not None) for p in previews if isinstance(p, Progress)] == [
        (1, False),
        (2, False),
        (3, True),
        (4, True),
        (5, True),
    ]
