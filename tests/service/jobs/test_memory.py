"""What only jobs in process do."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from service.errors import Busy, Draining, UnknownJob
from service.jobs.journal import MAX_PREVIEW_BYTES, Journal
from service.jobs.memory import RECORD_BYTES, MemoryBackend
from service.jobs.port import JobLimits
from service.jobs.records import Answer, Step, Work
from service.logs import request_id
from tests.service.jobs.conftest import Clock, FakeExecutor

pytestmark = pytest.mark.anyio


def work(body: bytes = b"abc") -> Work:
    return Work("decode", body)


async def test_jobs_are_forgotten_a_while_after_they_expire(executor: FakeExecutor, clock: Clock) -> None:
    backend = MemoryBackend(executor, JobLimits(result_ttl_s=100, gone_ttl_s=1000), clock)
    job = await backend.submit(work(), "ann", "key")
    await backend.wait(job.id, "ann", 5)
    clock.now += 1101
    backend.sweep()
    with pytest.raises(UnknownJob):
        await backend.get(job.id, "ann")
    assert (await backend.submit(work(), "ann", "key")).id != job.id
    assert backend.counts() == {"running": 1}


async def test_bytes_are_bounded(executor: FakeExecutor) -> None:
    backend = MemoryBackend(executor, JobLimits(max_bytes=2 * RECORD_BYTES + 1500))
    job = await backend.submit(work(bytes(1000)), "ann")
    await backend.wait(job.id, "ann", 5)
    with pytest.raises(Busy):
        await backend.submit(work(b"\1" * 1000), "ann")


async def test_uploads_are_let_go_with_the_end(executor: FakeExecutor, clock: Clock) -> None:
    backend = MemoryBackend(executor, JobLimits(result_ttl_s=10, gone_ttl_s=0), clock)
    executor.gate.clear()
    kept, dropped = [await backend.submit(work(bytes([k]) * 1000), "ann") for k in range(2)]
    assert backend._held == 2 * (RECORD_BYTES + 1000)
    await backend.cancel(dropped.id, "ann")  # before its task ever ran
    executor.gate.set()
    await backend.wait(kept.id, "ann", 5)
    assert backend._held == 2 * RECORD_BYTES + 1000  # the result of one
    executor.error = ValueError("a defect")
    failed = await backend.submit(work(b"\2" * 1000), "ann")
    await backend.wait(failed.id, "ann", 5)
    assert backend._held == 3 * RECORD_BYTES + 1000
    clock.now += 11
    backend.sweep()
    assert backend._held == 0
    assert not backend._running


async def test_joining_identical_work_needs_room_too(executor: FakeExecutor) -> None:
    backend = MemoryBackend(executor, JobLimits(max_bytes=3 * RECORD_BYTES + 100))
    first = await backend.submit(work(), "ann")
    await backend.submit(work(), "bob")
    await backend.wait(first.id, "ann", 5)
    await backend.submit(work(), "eve")  # of what has ended
    with pytest.raises(Busy, match="bytes"):
        await backend.submit(work(), "dan")
    assert executor.started == [b"abc"]


async def test_lines_of_the_log_carry_the_id_of_the_request(executor: FakeExecutor) -> None:
    seen: list[str | None] = []
    run = executor.run

    async def watched(*arguments: Any) -> Answer:
        seen.append(request_id.get())
        return await run(*arguments)

    executor.run = watched  # type: ignore[method-assign]
    backend = MemoryBackend(executor, JobLimits(max_running=1))
    jobs = [await backend.submit(Work("decode", bytes([k]), request_id=f"id-{k}"), "ann") for k in range(3)]
    for job in jobs:
        await backend.wait(job.id, "ann", 5)
    assert seen == ["id-0", "id-1", "id-2"]


async def test_stop_gives_running_jobs_a_while_and_then_cancels_them(executor: FakeExecutor) -> None:
    backend = MemoryBackend(executor)
    executor.gate.clear()
    await backend.submit(work(), "ann")
    await asyncio.sleep(0.01)
    stopping = asyncio.create_task(backend.stop(0.2))
    await asyncio.sleep(0.01)
    with pytest.raises(Draining):
        await backend.submit(work(b"late"), "ann")
    assert not executor.cancelled
    await stopping
    assert executor.cancelled == [b"abc"]


def test_old_previews_lose_their_pictures_and_keep_their_numbers() -> None:
    journal = Journal()
    size = MAX_PREVIEW_BYTES // 3
    for step in range(1, 6):
        journal.add("preview", Step(step, 5, bytes(size)))
    assert journal.bytes <= MAX_PREVIEW_BYTES
    kept = [e.id for e in journal._events if isinstance(e.data, Step) and e.data.preview is not None]
    assert kept == [3, 4, 5]
