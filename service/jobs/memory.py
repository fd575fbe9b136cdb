"""Jobs in the API process: no Redis needed, and nothing survives a restart."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from service.errors import Busy, Draining, JobCancelled, JobExpired, JobNotFinished, KeyReused, UnknownJob
from service.jobs.journal import Journal
from service.jobs.port import Executor, JobLimits
from service.jobs.records import Answer, Event, Failure, Job, State, Step, Work, new_id, share_key
from service.logs import request_id

SWEEP_S = 5.0
RECORD_BYTES = 4096  # that a record and its events take, previews apart
MAX_BUSY_WAIT_S = 10.0  # before an execution that the engine turned away tries again


@dataclass(eq=False)
class _Execution:
    """Work under way or done, and the jobs that want it. Once it has ended its upload is let go."""

    work: Work | None
    share: str
    seconds: float
    records: list[_Record] = field(default_factory=list)
    task: asyncio.Task[Answer] | None = None
    last_step: Step | None = None
    answer: Answer | None = None
    ended_at: float = 0.0


@dataclass(eq=False)
class _Record:
    job: Job
    execution: _Execution | None
    journal: Journal


class MemoryBackend:
    """See `JobBackend`. Executions start in the order they came, `max_running` at a time."""

    def __init__(
        self, executor: Executor, limits: JobLimits | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self._executor = executor
        self._limits = limits or JobLimits()
        self._clock = clock
        self._records: dict[str, _Record] = {}
        self._held = 0  # bytes of records, uploads, results and previews
        self._keys: dict[tuple[str, str], tuple[str, str]] = {}  # (owner, key) -> job id, fingerprint
        self._shared: dict[str, _Execution] = {}
        self._queue: deque[_Execution] = deque()
        self._running: set[_Execution] = set()
        self._draining = False
        self._sweeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """See `JobBackend.start`."""
        self._sweeper = asyncio.create_task(self._sweep_for_ever())

    async def stop(self, grace: float) -> None:
        """See `JobBackend.stop`; what is not done by then is cancelled."""
        self._draining = True
        tasks = [e.task for e in self._running if e.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=grace)
        ends: list[asyncio.Task[Any]] = [*tasks, *([self._sweeper] if self._sweeper else [])]
        for task in ends:
            task.cancel()
        if ends:
            await asyncio.wait(ends)

    async def submit(self, work: Work, owner: str, key: str | None = None) -> Job:
        """See `JobBackend.submit`."""
        if self._draining:
            raise Draining("the service is shutting down")
        fingerprint = work.fingerprint()
        if key is not None and (known := self._keys.get((owner, key))) is not None:
            if known[1] != fingerprint:
                raise KeyReused("this Idempotency-Key came with another request before")
            return await self.get(known[0], owner)
        share = share_key(fingerprint, self._executor.generation())
        execution = self._shared.get(share) if work.repeatable and not work.previews else None
        if execution is not None and execution.answer is not None and not self._worth_joining(execution):
            execution = None
        self._check_room(len(work.body) if execution is None else 0)
        if execution is None:
            if len(self._queue) >= self._limits.max_queued:
                raise Busy(f"{len(self._queue)} jobs are waiting", retry_after=max(1.0, self._queue[0].seconds))
            execution = _Execution(work, share, self._executor.seconds_of(work))
            self._charge(len(work.body))
            self._queue.append(execution)
            if work.repeatable and not work.previews:
                self._shared[share] = execution
        job = Job(new_id(), owner, work.operation, "queued", self._clock())
        record = _Record(job, execution, Journal(self._charge))
        execution.records.append(record)
        self._records[job.id] = record
        self._charge(RECORD_BYTES)
        if key is not None:
            self._keys[owner, key] = job.id, fingerprint
        self._publish(record, "queued")
        if execution.answer is not None:
            self._finish(record, "succeeded", answer=execution.answer)
        elif execution.task is not None:
            self._publish(record, "running")
        self._fill()
        return self._seen(record)

    async def get(self, id: str, owner: str | None) -> Job:
        """See `JobBackend.get`."""
        return self._seen(self._find(id, owner))

    async def wait(self, id: str, owner: str, seconds: float) -> Job:
        """See `JobBackend.wait`."""
        record = self._find(id, owner)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not record.job.ended:
                    await record.journal.changed()
        return self._seen(record)

    async def cancel(self, id: str, owner: str) -> Job:
        """See `JobBackend.cancel`."""
        record = self._find(id, owner)
        if not record.job.ended:
            self._finish(record, "cancelled")
            execution = self._detach(record)
            if execution is not None and not execution.records:
                self._abandon(execution)
        return self._seen(record)

    async def result(self, id: str, owner: str | None) -> Answer:
        """See `JobBackend.result`."""
        record = self._find(id, owner)
        job = record.job
        if job.state == "failed" and job.failure is not None:
            raise job.failure.exception()
        if job.state == "cancelled":
            raise JobCancelled("the job was cancelled")
        if job.state != "succeeded" or record.execution is None or record.execution.answer is None:
            raise JobNotFinished(f"the job is {job.state}")
        return record.execution.answer

    async def events(self, id: str, owner: str, after: int = 0) -> AsyncIterator[Event]:
        """See `JobBackend.events`."""
        record = self._find(id, owner)
        async for event in record.journal.follow(after):
            yield event

    def counts(self) -> dict[str, int]:
        """See `JobBackend.counts`."""
        return dict(Counter(record.job.state for record in list(self._records.values())))  # also from other threads

    # Executions ---------------------------------------------------------------------------------------------------

    def _fill(self) -> None:
        while self._queue and len(self._running) < self._limits.max_running:
            execution = self._queue.popleft()
            self._running.add(execution)
            execution.task = asyncio.create_task(self._execute(execution))
            execution.task.add_done_callback(partial(self._ended, execution))
            for record in execution.records:
                self._publish(record, "running")

    async def _execute(self, execution: _Execution) -> Answer:
        """Run the work, coming back when the engine is full: a job has been promised, a request has not."""
        work = execution.work
        assert work is not None
        request_id.set(work.request_id)  # of this task alone
        while True:
            try:
                return await self._executor.run(work, lambda step: self._stepped(execution, step))
            except Busy as busy:
                await asyncio.sleep(min(busy.retry_after, MAX_BUSY_WAIT_S))

    def _ended(self, execution: _Execution, task: asyncio.Task[Answer]) -> None:
        """Callback of the task, for it ends also where it was cancelled before it began."""
        self._running.discard(execution)
        if task.cancelled():
            self._end(execution, "cancelled")
        elif (error := task.exception()) is not None:
            self._end(execution, "failed", Failure.of(error))
        else:
            execution.answer, execution.ended_at = task.result(), self._clock()
            self._charge(len(execution.answer.data))
            self._end(execution, "succeeded")
        if not self._draining:
            self._fill()

    def _stepped(self, execution: _Execution, step: Step) -> None:
        execution.last_step = step
        for record in execution.records:
            record.job = replace(record.job, step=step.step, steps=step.steps)
            record.journal.add("progress", replace(step, preview=None))
            if step.preview is not None:
                record.journal.add("preview", step)

    def _end(self, execution: _Execution, state: State, failure: Failure | None = None) -> None:
        self._drop_upload(execution)
        if execution.answer is None and self._shared.get(execution.share) is execution:
            del self._shared[execution.share]  # only answers are kept
        for record in list(execution.records):
            self._finish(record, state, failure, execution.answer)
        self._drop_result(execution)

    def _abandon(self, execution: _Execution) -> None:
        """Nobody wants it any more."""
        if self._shared.get(execution.share) is execution:
            del self._shared[execution.share]
        if execution.task is not None:
            execution.task.cancel()
        elif execution in self._queue:
            self._queue.remove(execution)
            self._drop_upload(execution)

    def _drop_upload(self, execution: _Execution) -> None:
        if execution.work is not None:
            self._charge(-len(execution.work.body))
            execution.work = None

    def _drop_result(self, execution: _Execution) -> None:
        """Let the result go when no job has it any more."""
        if execution.answer is not None and not execution.records:
            self._charge(-len(execution.answer.data))
            execution.answer = None
            if self._shared.get(execution.share) is execution:
                del self._shared[execution.share]

    # Records ------------------------------------------------------------------------------------------------------

    def _publish(self, record: _Record, state: State) -> None:
        job = record.job
        started = self._clock() if state == "running" else job.started_at
        record.job = replace(job, state=state, started_at=started)
        record.journal.add("state", self._seen(record))

    def _finish(
        self, record: _Record, state: State, failure: Failure | None = None, answer: Answer | None = None
    ) -> None:
        execution = record.execution
        joined = execution is not None and execution.answer is not None
        now = execution.ended_at if execution is not None and joined else self._clock()
        record.job = replace(
            record.job,
            state=state,
            finished_at=now,
            expires_at=now + self._limits.result_ttl_s,
            failure=failure,
            media_type=answer.media_type if answer else None,
            size=len(answer.data) if answer else None,
            digest=answer.digest if answer else None,
        )
        record.journal.add("state", record.job)
        record.journal.close()

    def _find(self, id: str, owner: str | None) -> _Record:
        record = self._records.get(id)
        if record is None or owner not in (None, record.job.owner):
            raise UnknownJob("there is no such job")
        if record.job.expires_at is not None and record.job.expires_at <= self._clock():
            self._expire(record)
        if record.job.state == "expired":
            raise JobExpired("the job has ended and its result is no longer kept")
        return record

    def _seen(self, record: _Record) -> Job:
        """The job with its place in the queue and an estimate."""
        job, execution = record.job, record.execution
        if job.ended or execution is None:
            return job
        ahead = 0.0
        position = None
        if execution in self._queue:
            position = self._queue.index(execution)
            ahead = sum(e.seconds for e in [*self._running, *list(self._queue)[:position]])
        step = execution.last_step
        left = 1 - step.step / step.steps if step else 1.0
        return replace(job, position=position, estimate_seconds=round(ahead + left * execution.seconds, 3))

    # Room ---------------------------------------------------------------------------------------------------------

    def _charge(self, size: int) -> None:
        self._held += size

    def _worth_joining(self, execution: _Execution) -> bool:
        """False where the result would be gone before half of the time that results are kept."""
        return self._clock() - execution.ended_at < self._limits.result_ttl_s / 2

    def _check_room(self, size: int) -> None:
        if self._held + RECORD_BYTES + size > self._limits.max_bytes:
            raise Busy("too many bytes of jobs and results are kept", retry_after=60.0)

    def _detach(self, record: _Record) -> _Execution | None:
        execution, record.execution = record.execution, None
        if execution is not None:
            execution.records.remove(record)
        return execution

    def _expire(self, record: _Record) -> None:
        record.job = replace(record.job, state="expired", media_type=None, size=None, digest=None)
        self._charge(-record.journal.bytes)
        record.journal = Journal.closed()
        if (execution := self._detach(record)) is not None:
            self._drop_result(execution)

    async def _sweep_for_ever(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            self.sweep()

    def sweep(self) -> None:
        """Drop results whose time is over, and the memory of jobs long gone."""
        now = self._clock()
        for id, record in list(self._records.items()):
            until = record.job.expires_at
            if until is None:
                continue
            if until <= now and record.job.state != "expired":
                self._expire(record)
            if until + self._limits.gone_ttl_s <= now:
                del self._records[id]
                self._charge(-RECORD_BYTES)
        self._keys = {k: v for k, v in self._keys.items() if v[0] in self._records}
