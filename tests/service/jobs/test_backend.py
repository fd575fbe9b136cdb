"""What every job backend does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from model.errors import CorruptStream
from service.errors import Busy, Draining, JobCancelled, JobExpired, JobNotFinished, KeyReused, UnknownJob
from service.jobs.port import JobBackend
from service.jobs.records import Event, Job, Step, Work
from tests.service.jobs.conftest import Clock, FakeExecutor, MakeBackend

pytestmark = pytest.mark.anyio


def work(body: bytes = b"abc", **options: object) -> Work:
    return Work("decode", body, options)


async def all_of(events: AsyncIterator[Event]) -> list[Event]:
    return [event async for event in events]


async def running(backend: JobBackend, job: Job) -> None:
    async with asyncio.timeout(5):
        while (await backend.get(job.id, job.owner)).state != "running":
            await asyncio.sleep(0.005)


def told(events: list[Event]) -> list[object]:
    """State names and step numbers."""
    return [e.data.state if isinstance(e.data, Job) else e.data.step for e in events]


async def test_a_job_runs_and_keeps_its_result(backend: JobBackend, clock: Clock) -> None:
    job = await backend.submit(work(), "ann")
    assert (job.owner, job.operation) == ("ann", "decode")
    job = await backend.wait(job.id, "ann", 5)
    assert (job.state, job.step, job.steps) == ("succeeded", 3, 3)
    assert (job.media_type, job.size) == ("image/png", 3)
    assert job.expires_at == clock.now + 3600
    answer = await backend.result(job.id, "ann")
    assert (answer.data, answer.facts, answer.seconds) == (b"cba", {"steps": "3"}, {"denoise": 0.5})
    assert job.digest == answer.digest
    async with asyncio.timeout(5):  # Redis is asked every two seconds
        while {state: n for state, n in backend.counts().items() if n} != {"succeeded": 1}:
            await asyncio.sleep(0.01)


async def test_nobody_else_sees_a_job(backend: JobBackend) -> None:
    job = await backend.submit(work(), "ann")
    for call in (backend.get, backend.cancel, backend.result):
        with pytest.raises(UnknownJob):
            await call(job.id, "bob")
    with pytest.raises(UnknownJob):
        await backend.wait(job.id, "bob", 0)
    with pytest.raises(UnknownJob):
        await all_of(backend.events(job.id, "bob"))
    with pytest.raises(UnknownJob):
        await backend.get("no-such-job", "ann")


async def test_a_failure_keeps_its_kind_and_words(backend: JobBackend, executor: FakeExecutor) -> None:
    executor.error = CorruptStream("symbols make no sense")
    job = await backend.submit(work(), "ann")
    job = await backend.wait(job.id, "ann", 5)
    assert job.state == "failed"
    with pytest.raises(CorruptStream, match="make no sense"):
        await backend.result(job.id, "ann")
    assert (await backend.submit(work(), "ann")).id != job.id


async def test_an_unforeseen_error_is_not_shown(backend: JobBackend, executor: FakeExecutor) -> None:
    executor.error = RuntimeError("secret path /srv")
    job = await backend.submit(work(), "ann")
    job = await backend.wait(job.id, "ann", 5)
    assert job.failure is not None
    assert "secret" not in job.failure.detail


async def test_wait_returns_the_job_as_it_stands(backend: JobBackend, executor: FakeExecutor) -> None:
    executor.gate.clear()
    job = await backend.submit(work(), "ann")
    job = await backend.wait(job.id, "ann", 0.05)
    assert job.state == "running"
    with pytest.raises(JobNotFinished):
        await backend.result(job.id, "ann")


async def test_queued_jobs_know_their_place(make_backend: MakeBackend, executor: FakeExecutor) -> None:
    backend = await make_backend(max_running=1)
    executor.gate.clear()
    jobs = [await backend.submit(work(bytes([n])), "ann") for n in range(3)]
    await running(backend, jobs[0])
    seen = [await backend.get(job.id, "ann") for job in jobs]
    assert [job.state for job in seen] == ["running", "queued", "queued"]
    assert [job.position for job in seen] == [None, 0, 1]
    estimates = [job.estimate_seconds or 0 for job in seen]
    assert 0 < estimates[0] < estimates[1] < estimates[2]
    executor.gate.set()
    for job in jobs:
        assert (await backend.wait(job.id, "ann", 5)).state == "succeeded"
    assert executor.started == [b"\0", b"\1", b"\2"]


async def test_cancel_ends_the_work(backend: JobBackend, executor: FakeExecutor) -> None:
    executor.gate.clear()
    job = await backend.submit(work(), "ann")
    await asyncio.sleep(0.05)
    assert (await backend.cancel(job.id, "ann")).state == "cancelled"
    async with asyncio.timeout(2):
        while not executor.cancelled:
            await asyncio.sleep(0.01)
    with pytest.raises(JobCancelled):
        await backend.result(job.id, "ann")
    assert (await backend.cancel(job.id, "ann")).state == "cancelled"
    events = await all_of(backend.events(job.id, "ann"))
    assert await all_of(backend.events(job.id, "ann", after=events[-1].id)) == []


async def test_cancel_of_a_queued_job_never_starts_it(make_backend: MakeBackend, executor: FakeExecutor) -> None:
    backend = await make_backend(max_running=1)
    executor.gate.clear()
    first, second = [await backend.submit(work(bytes([n])), "ann") for n in range(2)]
    await backend.cancel(second.id, "ann")
    executor.gate.set()
    await backend.wait(first.id, "ann", 5)
    await asyncio.sleep(0.05)
    assert executor.started == [b"\0"]


async def test_cancel_after_the_end_changes_nothing(backend: JobBackend) -> None:
    job = await backend.submit(work(), "ann")
    await backend.wait(job.id, "ann", 5)
    assert (await backend.cancel(job.id, "ann")).state == "succeeded"
    assert (await backend.result(job.id, "ann")).data == b"cba"


async def test_identical_work_runs_once_and_has_a_record_each(backend: JobBackend, executor: FakeExecutor) -> None:
    executor.gate.clear()
    one = await backend.submit(work(steps=4), "ann")
    other = await backend.submit(work(steps=4), "bob")
    assert one.id != other.id
    executor.gate.set()
    for job, owner in ((one, "ann"), (other, "bob")):
        assert (await backend.wait(job.id, owner, 5)).state == "succeeded"
        assert (await backend.result(job.id, owner)).data == b"cba"
    assert len(executor.started) == 1
    later = await backend.submit(work(steps=4), "eve")
    assert (await backend.wait(later.id, "eve", 5)).state == "succeeded"
    assert len(executor.started) == 1
    await backend.wait((await backend.submit(work(steps=5), "eve")).id, "eve", 5)
    assert len(executor.started) == 2


async def test_answers_of_other_models_are_not_given_again(backend: JobBackend, executor: FakeExecutor) -> None:
    for models in ("one", "one", "two"):
        executor.models = models
        job = await backend.submit(work(), "ann")
        await backend.wait(job.id, "ann", 5)
    assert len(executor.started) == 2


async def test_cancelling_one_of_two_leaves_the_other(backend: JobBackend, executor: FakeExecutor) -> None:
    executor.gate.clear()
    one, other = [await backend.submit(work(), owner) for owner in ("ann", "bob")]
    await backend.cancel(one.id, "ann")
    executor.gate.set()
    assert (await backend.wait(other.id, "bob", 5)).state == "succeeded"
    assert (await backend.get(one.id, "ann")).state == "cancelled"
    assert not executor.cancelled


async def test_work_whose_answer_depends_on_the_load_is_not_shared(backend: JobBackend, executor: FakeExecutor) -> None:
    for _ in range(2):
        job = await backend.submit(work(steps="auto"), "ann")
        await backend.wait(job.id, "ann", 5)
    assert len(executor.started) == 2


async def test_an_idempotency_key_gives_the_same_job(backend: JobBackend) -> None:
    one = await backend.submit(work(), "ann", "key")
    assert (await backend.submit(work(), "ann", "key")).id == one.id
    assert (await backend.submit(work(), "bob", "key")).id != one.id
    with pytest.raises(KeyReused):
        await backend.submit(work(b"other"), "ann", "key")


async def test_a_key_does_not_depend_on_the_time_that_is_left(backend: JobBackend) -> None:
    one = await backend.submit(work(steps="auto", seconds_left=3.0), "ann", "key")
    assert (await backend.submit(work(steps="auto", seconds_left=2.5), "ann", "key")).id == one.id


async def test_results_expire(make_backend: MakeBackend, clock: Clock) -> None:
    backend = await make_backend(result_ttl_s=100, gone_ttl_s=1000)
    job = await backend.submit(work(), "ann")
    await backend.wait(job.id, "ann", 5)
    clock.now += 99
    assert (await backend.result(job.id, "ann")).data == b"cba"
    clock.now += 2
    for call in (backend.get, backend.result):
        with pytest.raises(JobExpired):
            await call(job.id, "ann")


async def test_events_tell_all_in_order(backend: JobBackend) -> None:
    job = await backend.submit(work(), "ann")
    events = await all_of(backend.events(job.id, "ann"))
    assert [e.id for e in events] == list(range(1, len(events) + 1))
    assert told(events) == ["queued", "running", 1, 2, 3, "succeeded"]


async def test_a_reader_that_comes_back_loses_and_repeats_nothing(backend: JobBackend, executor: FakeExecutor) -> None:
    executor.gate.clear()
    job = await backend.submit(work(), "ann")
    stream = backend.events(job.id, "ann")
    first = [await anext(stream), await anext(stream)]
    await stream.aclose()  # type: ignore[attr-defined]
    executor.gate.set()
    rest = await all_of(backend.events(job.id, "ann", after=first[-1].id))
    assert told([*first, *rest]) == ["queued", "running", 1, 2, 3, "succeeded"]
    assert [e.id for e in [*first, *rest]] == list(range(1, 7))
    assert await all_of(backend.events(job.id, "ann", after=rest[-1].id)) == []


async def test_previews_come_where_they_were_asked_for(backend: JobBackend, executor: FakeExecutor) -> None:
    executor.preview = b"webp"
    job = await backend.submit(Work("decode", b"abc", {}, previews=True), "ann")
    events = await all_of(backend.events(job.id, "ann"))
    previews = [e.data for e in events if e.type == "preview"]
    assert [(p.step, p.preview) for p in previews if isinstance(p, Step)] == [(n, b"webp") for n in (1, 2, 3)]
    plain = await backend.submit(work(b"other"), "ann")
    assert "preview" not in {e.type for e in await all_of(backend.events(plain.id, "ann"))}


async def test_a_job_waits_where_a_request_would_be_turned_away(backend: JobBackend, executor: FakeExecutor) -> None:
    executor.busy = 2
    job = await backend.submit(work(), "ann")
    assert (await backend.wait(job.id, "ann", 5)).state == "succeeded"
    assert len(executor.started) == 3


async def test_a_full_queue_says_when_to_come_back(make_backend: MakeBackend, executor: FakeExecutor) -> None:
    backend = await make_backend(max_running=1, max_queued=1)
    executor.gate.clear()
    first = await backend.submit(work(b"\0"), "ann")
    await running(backend, first)
    await backend.submit(work(b"\1"), "ann")
    with pytest.raises(Busy) as caught:
        await backend.submit(work(b"\2"), "ann")
    assert caught.value.retry_after >= 1


async def test_a_stopped_backend_takes_nothing(backend: JobBackend) -> None:
    await backend.stop(0)
    with pytest.raises(Draining):
        await backend.submit(work(b"late"), "ann")
