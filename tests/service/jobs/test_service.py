"""What the job road does, on every store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from model.errors import CorruptStream
from service.errors import Busy, Draining, JobCancelled, JobExpired, JobNotFinished, KeyReused, UnknownJob
from service.jobs.records import Event, Job
from service.jobs.service import Jobs
from service.work import Progress
from tests.polling import eventually
from tests.service.jobs.conftest import SAID, Clock, FakeExecutor, MakeJobs, work_of

pytestmark = pytest.mark.anyio


async def all_of(events: AsyncIterator[Event]) -> list[Event]:
    return [event async for event in events]


async def running(jobs: Jobs, job: Job) -> None:
    """Wait until it runs, as its events tell."""
    async with asyncio.timeout(5):
        async for event in jobs.events(job.id, job.owner):
            if isinstance(event.data, Job) and event.data.state == "running":
                return


def told(events: list[Event]) -> list[object]:
    """State names and step numbers."""
    return [e.data.state if isinstance(e.data, Job) else e.data.step for e in events]


async def test_a_job_runs_and_keeps_its_result(jobs: Jobs, clock: Clock) -> None:
    job = await jobs.submit(work_of(), "ann")
    assert (job.owner, job.operation) == ("ann", "decode")
    job = await jobs.wait(job.id, "ann", 5)
    assert (job.state, job.step, job.steps) == ("succeeded", 3, 3)
    assert job.result is not None
    assert (job.result.media_type, job.result.size) == ("image/png", 3)
    assert job.expires_at == clock.now + 3600
    answer = await jobs.result(job.id, "ann")
    assert (answer.data, answer.metadata, answer.seconds) == (b"cba", SAID, {"denoise": 0.5})
    assert job.result.digest == answer.digest
    # Redis is asked every two seconds.
    await eventually(lambda: {state: n for state, n in jobs.counts().items() if n} == {"succeeded": 1})


async def test_nobody_else_sees_a_job(jobs: Jobs) -> None:
    job = await jobs.submit(work_of(), "ann")
    for call in (jobs.get, jobs.cancel, jobs.result):
        with pytest.raises(UnknownJob):
            await call(job.id, "bob")
    with pytest.raises(UnknownJob):
        await jobs.wait(job.id, "bob", 0)
    with pytest.raises(UnknownJob):
        await all_of(jobs.events(job.id, "bob"))
    with pytest.raises(UnknownJob):
        await jobs.get("no-such-job", "ann")


async def test_a_failure_keeps_its_kind_and_words(jobs: Jobs, executor: FakeExecutor) -> None:
    executor.error = CorruptStream("symbols make no sense")
    job = await jobs.submit(work_of(), "ann")
    job = await jobs.wait(job.id, "ann", 5)
    assert job.state == "failed"
    with pytest.raises(CorruptStream, match="make no sense"):
        await jobs.result(job.id, "ann")
    assert (await jobs.submit(work_of(), "ann")).id != job.id


async def test_an_unforeseen_error_is_not_shown(jobs: Jobs, executor: FakeExecutor) -> None:
    executor.error = RuntimeError("secret path /srv")
    job = await jobs.submit(work_of(), "ann")
    job = await jobs.wait(job.id, "ann", 5)
    assert job.failure is not None
    assert "secret" not in job.failure.detail


async def test_wait_returns_the_job_as_it_stands(jobs: Jobs, executor: FakeExecutor) -> None:
    executor.gate.clear()
    job = await jobs.submit(work_of(), "ann")
    job = await jobs.wait(job.id, "ann", 0.05)
    assert job.state == "running"
    with pytest.raises(JobNotFinished):
        await jobs.result(job.id, "ann")


async def test_queued_jobs_know_their_place(make_jobs: MakeJobs, executor: FakeExecutor) -> None:
    road = await make_jobs(max_running=1)
    executor.gate.clear()
    mine = [await road.submit(work_of(bytes([n])), "ann") for n in range(3)]
    await running(road, mine[0])
    seen = [await road.get(job.id, "ann") for job in mine]
    assert [job.state for job in seen] == ["running", "queued", "queued"]
    assert [job.position for job in seen] == [None, 0, 1]
    estimates = [job.estimate_seconds or 0 for job in seen]
    assert 0 < estimates[0] < estimates[1] < estimates[2]
    executor.gate.set()
    for job in mine:
        assert (await road.wait(job.id, "ann", 5)).state == "succeeded"
    assert executor.started == [b"\0", b"\1", b"\2"]


async def test_cancel_ends_the_work(jobs: Jobs, executor: FakeExecutor) -> None:
    executor.gate.clear()
    job = await jobs.submit(work_of(), "ann")
    await executor.until(lambda: executor.started)
    assert (await jobs.cancel(job.id, "ann")).state == "cancelled"
    await executor.until(lambda: executor.cancelled)
    with pytest.raises(JobCancelled):
        await jobs.result(job.id, "ann")
    assert (await jobs.cancel(job.id, "ann")).state == "cancelled"
    events = await all_of(jobs.events(job.id, "ann"))
    assert await all_of(jobs.events(job.id, "ann", after=events[-1].id)) == []


async def test_cancel_of_a_queued_job_never_starts_it(make_jobs: MakeJobs, executor: FakeExecutor) -> None:
    jobs = await make_jobs(max_running=1)
    executor.gate.clear()
    first, second = [await jobs.submit(work_of(bytes([n])), "ann") for n in range(2)]
    await jobs.cancel(second.id, "ann")
    executor.gate.set()
    await jobs.wait(first.id, "ann", 5)
    third = await jobs.submit(work_of(b"\2"), "ann")
    await jobs.wait(third.id, "ann", 5)
    assert executor.started == [b"\0", b"\2"]


async def test_cancel_after_the_end_changes_nothing(jobs: Jobs) -> None:
    job = await jobs.submit(work_of(), "ann")
    await jobs.wait(job.id, "ann", 5)
    assert (await jobs.cancel(job.id, "ann")).state == "succeeded"
    assert (await jobs.result(job.id, "ann")).data == b"cba"


async def test_identical_work_runs_once_and_has_a_record_each(jobs: Jobs, executor: FakeExecutor) -> None:
    executor.gate.clear()
    one = await jobs.submit(work_of(steps=4), "ann")
    other = await jobs.submit(work_of(steps=4), "bob")
    assert one.id != other.id
    executor.gate.set()
    for job, owner in ((one, "ann"), (other, "bob")):
        assert (await jobs.wait(job.id, owner, 5)).state == "succeeded"
        assert (await jobs.result(job.id, owner)).data == b"cba"
    assert len(executor.started) == 1
    later = await jobs.submit(work_of(steps=4), "eve")
    assert (await jobs.wait(later.id, "eve", 5)).state == "succeeded"
    assert len(executor.started) == 1
    await jobs.wait((await jobs.submit(work_of(steps=5), "eve")).id, "eve", 5)
    assert len(executor.started) == 2


async def test_answers_of_other_models_are_not_given_again(jobs: Jobs, executor: FakeExecutor) -> None:
    for models in ("one", "one", "two"):
        executor.models = models
        job = await jobs.submit(work_of(), "ann")
        await jobs.wait(job.id, "ann", 5)
    assert len(executor.started) == 2


async def test_cancelling_one_of_two_leaves_the_other(jobs: Jobs, executor: FakeExecutor) -> None:
    executor.gate.clear()
    one, other = [await jobs.submit(work_of(), owner) for owner in ("ann", "bob")]
    await jobs.cancel(one.id, "ann")
    executor.gate.set()
    assert (await jobs.wait(other.id, "bob", 5)).state == "succeeded"
    assert (await jobs.get(one.id, "ann")).state == "cancelled"
    assert not executor.cancelled


async def test_work_whose_answer_depends_on_the_load_is_not_shared(jobs: Jobs, executor: FakeExecutor) -> None:
    for _ in range(2):
        job = await jobs.submit(work_of(steps="auto"), "ann")
        await jobs.wait(job.id, "ann", 5)
    assert len(executor.started) == 2


async def test_an_idempotency_key_gives_the_same_job(jobs: Jobs) -> None:
    one = await jobs.submit(work_of(), "ann", "key")
    assert (await jobs.submit(work_of(), "ann", "key")).id == one.id
    assert (await jobs.submit(work_of(), "bob", "key")).id != one.id
    with pytest.raises(KeyReused):
        await jobs.submit(work_of(b"other"), "ann", "key")


async def test_results_expire(make_jobs: MakeJobs, clock: Clock) -> None:
    jobs = await make_jobs(result_ttl_s=100, gone_ttl_s=1000)
    job = await jobs.submit(work_of(), "ann")
    await jobs.wait(job.id, "ann", 5)
    clock.now += 99
    assert (await jobs.result(job.id, "ann")).data == b"cba"
    clock.now += 2
    for call in (jobs.get, jobs.result):
        with pytest.raises(JobExpired):
            await call(job.id, "ann")


async def test_events_tell_all_in_order(jobs: Jobs) -> None:
    job = await jobs.submit(work_of(), "ann")
    events = await all_of(jobs.events(job.id, "ann"))
    assert [e.id for e in events] == list(range(1, len(events) + 1))
    assert told(events) == ["queued", "running", 1, 2, 3, "succeeded"]


async def test_a_reader_that_comes_back_loses_and_repeats_nothing(jobs: Jobs, executor: FakeExecutor) -> None:
    executor.gate.clear()
    job = await jobs.submit(work_of(), "ann")
    stream = jobs.events(job.id, "ann")
    first = [await anext(stream), await anext(stream)]
    await stream.aclose()  # type: ignore[attr-defined]
    executor.gate.set()
    rest = await all_of(jobs.events(job.id, "ann", after=first[-1].id))
    assert told([*first, *rest]) == ["queued", "running", 1, 2, 3, "succeeded"]
    assert [e.id for e in [*first, *rest]] == list(range(1, 7))
    assert await all_of(jobs.events(job.id, "ann", after=rest[-1].id)) == []


async def test_previews_come_where_they_were_asked_for(jobs: Jobs, executor: FakeExecutor) -> None:
    executor.preview = b"webp"
    job = await jobs.submit(work_of(preview=True), "ann")
    events = await all_of(jobs.events(job.id, "ann"))
    previews = [e.data for e in events if e.type == "preview"]
    assert [(p.step, p.preview) for p in previews if isinstance(p, Progress)] == [(n, b"webp") for n in (1, 2, 3)]
    plain = await jobs.submit(work_of(b"other"), "ann")
    assert "preview" not in {e.type for e in await all_of(jobs.events(plain.id, "ann"))}


async def test_a_job_waits_where_a_request_would_be_turned_away(jobs: Jobs, executor: FakeExecutor) -> None:
    executor.busy = 2
    job = await jobs.submit(work_of(), "ann")
    assert (await jobs.wait(job.id, "ann", 5)).state == "succeeded"
    assert len(executor.started) == 3


async def test_a_full_queue_says_when_to_come_back(make_jobs: MakeJobs, executor: FakeExecutor) -> None:
    jobs = await make_jobs(max_running=1, max_queued=1)
    executor.gate.clear()
    first = await jobs.submit(work_of(b"\0"), "ann")
    await running(jobs, first)
    await jobs.submit(work_of(b"\1"), "ann")
    with pytest.raises(Busy) as caught:
        await jobs.submit(work_of(b"\2"), "ann")
    assert caught.value.retry_after >= 1


async def test_a_stopped_jobs_takes_nothing(jobs: Jobs) -> None:
    await jobs.stop(0)
    with pytest.raises(Draining):
        await jobs.submit(work_of(b"late"), "ann")


async def test_a_direct_request_is_done_and_leaves_nothing(jobs: Jobs, executor: FakeExecutor) -> None:
    assert (await jobs.run(work_of(), "ann")).data == b"cba"
    executor.error = CorruptStream("no sense")
    with pytest.raises(CorruptStream):
        await jobs.run(work_of(b"other"), "ann")


async def test_a_direct_request_is_cancelled_with_its_caller(jobs: Jobs, executor: FakeExecutor) -> None:
    executor.gate.clear()
    running = asyncio.create_task(jobs.run(work_of(), "ann"))
    await executor.until(lambda: executor.started)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await executor.until(lambda: executor.cancelled)


async def test_a_caller_that_is_lost_does_not_take_a_job_with_it(jobs: Jobs, executor: FakeExecutor) -> None:
    """Identical work: a direct request began it, a job joined."""
    executor.gate.clear()
    running = asyncio.create_task(jobs.run(work_of(), "ann"))
    await executor.until(lambda: executor.started)
    job = await jobs.submit(work_of(), "bob")
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    executor.gate.set()
    assert (await jobs.wait(job.id, "bob", 5)).state == "succeeded"
    assert executor.started == [b"abc"]


async def test_with_a_key_a_request_outlives_its_caller(jobs: Jobs, executor: FakeExecutor) -> None:
    executor.gate.clear()
    running = asyncio.create_task(jobs.run(work_of(), "ann", "key"))
    await executor.until(lambda: executor.started)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    executor.gate.set()
    assert (await jobs.run(work_of(), "ann", "key")).data == b"cba"
    assert executor.started == [b"abc"]


async def test_a_crowd_of_identical_work_is_done_once(jobs: Jobs, executor: FakeExecutor) -> None:
    found = await asyncio.gather(*(jobs.submit(work_of(), f"owner {n}") for n in range(40)))
    assert len({job.id for job in found}) == 40
    for number, job in enumerate(found):
        assert (await jobs.wait(job.id, f"owner {number}", 5)).state == "succeeded"
    assert executor.started == [b"abc"]
