"""The worker's side of a job: attempts at an execution, each fenced against all others.

What an attempt writes counts only while it is the present one: its number, the fence, is compared with every change.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

from opentelemetry.trace import SpanKind

from service.errors import Busy, Draining, JobExpired, NotReady, QueueUnavailable, ServiceError, WorkerFailed
from service.jobs.limits import JobLimits
from service.jobs.records import Entry, Execution, Failure, ResultInfo, ShareRecord
from service.jobs.store import KEEP_S, Change, Nack, Puts, Store, unshared
from service.logs import request_id
from service.tracing import fail, past, span
from service.work import DecodeOptions, Options, Progress, Result, Work, WorkState

T = TypeVar("T")
log = logging.getLogger(__name__)
RETRY_S = 0.5  # while the store cannot be reached
WATCH_S = 1.0  # between signs of life, when no notification comes
MAX_PENDING_STEPS = 64  # that wait to be published; older ones are then passed over
MAX_PREVIEW_BYTES = 8 << 20  # of one execution; older previews go first, their events say so by having none
MAX_BUSY_WAIT_S = 5.0
MAX_REFINING = 2  # encodes with effort, here: one is refined at a time, and the others would hold all places for hours
MAX_DEATHS = 20  # of workers that had it: many, for whoever kills a worker kills all that it had


class Executes(Protocol):
    """What does the work: `Executor`, or a test's."""

    async def admit(self, body: bytes, options: Options) -> Work:
        """Make the work of an upload again, in another process than took it."""

    async def run(self, work: Work, on_progress: Callable[[Progress], None] | None = None) -> Result:
        """Do it. Cancelling the awaiting task cancels it within one denoising step."""


@dataclass(frozen=True)
class Attempt:
    """One try at an execution, as it was when it began."""

    execution: str
    fence: int
    found: Execution


class Attempts:
    """Runs executions that the queue delivers. Nothing is acknowledged before its result is kept."""

    def __init__(self, store: Store, executor: Executes, limits: JobLimits) -> None:
        self._store = store
        self._executor = executor
        self._limits = limits
        self._releasing: set[asyncio.Task[None]] = set()
        self._refining = 0

    async def close(self) -> None:
        """Wait until all attempts that were cancelled are released."""
        await asyncio.gather(*self._releasing)

    async def execute(self, execution: str) -> None:
        """Make one attempt. Cancelled, it leaves the execution to another worker, and says so where it can.

        Raises:
            Nack: the engine of this worker takes no work now, or no such work.
        """
        refines = await _until_reached(lambda: self._refines(execution))
        if refines and self._refining >= MAX_REFINING:
            raise Nack("enough encodes with effort are in work here")
        self._refining += refines
        try:
            await self._attempt(execution)
        finally:
            self._refining -= refines

    async def _refines(self, execution: str) -> bool:
        """True for a job with effort; who waits for the answer itself is let through."""
        found = (await self._store.read(f"exec:{execution}")).get(f"exec:{execution}", Execution)
        return found is not None and not found.direct and found.options.operation == "encode" and found.steps > 0

    async def _attempt(self, execution: str) -> None:
        attempt = await _until_reached(lambda: self.begin(execution))
        if attempt is None:
            return  # cancelled or done
        if attempt.found.deaths >= MAX_DEATHS:
            await self._fail(attempt, WorkerFailed(f"{MAX_DEATHS} workers died on this job"))
            return
        request_id.set(attempt.found.request_id)  # of this delivery's own task
        operation, number = attempt.found.options.operation, attempt.fence
        with span("attempt", attempt.found.trace, kind=SpanKind.CONSUMER, operation=operation, attempt=number):
            await self._execute(attempt)

    async def _execute(self, attempt: Attempt) -> None:
        try:
            result = await self._run(attempt)
        except (Draining, NotReady) as error:
            if self._store.in_process:  # there is no other worker
                await self._fail(attempt, error)
                return
            await self._release(attempt)
            raise Nack(str(error)) from error
        except asyncio.CancelledError:
            releasing = asyncio.create_task(self._release(attempt))  # this task may wait for nothing more
            self._releasing.add(releasing)
            releasing.add_done_callback(self._releasing.discard)
            raise
        except Exception as error:
            await self._fail(attempt, error)
            return
        if result is not None:
            await self._deliver(attempt, result)

    # What an attempt tells the store ------------------------------------------------------------------------------

    async def begin(self, execution: str) -> Attempt | None:
        """Start an attempt; None where nobody wants it any more or it has ended.

        One that neither ended nor was released before the next one began died with its worker.
        """
        while True:
            seen = await self._store.read(f"exec:{execution}")
            found = seen.get(f"exec:{execution}", Execution)
            if found is None or found.state.ended:
                return None
            first = found.state is WorkState.QUEUED
            after = replace(
                found,
                state=WorkState.RUNNING,
                fence=found.fence + 1,
                deaths=found.deaths + (not first and not found.released),
                released=False,
                started_at=seen.now if first else found.started_at,
                attempted_at=seen.now,
                events=found.events + first,
            )
            events = (Entry(WorkState.RUNNING),) if first else ()
            if await self._store.commit(seen, Change(execution, {f"exec:{execution}": (after, KEEP_S)}, events=events)):
                if first:
                    past("queue", found.queued_at, seen.now, found.trace)
                elif after.deaths > found.deaths:  # nobody else can say so
                    began = found.attempted_at or seen.now
                    past("attempt", began, seen.now, found.trace, error="its worker died", attempt=found.fence)
                return Attempt(execution, after.fence, after)

    async def beat(self, attempt: Attempt) -> bool:
        """Give a sign of life; False where the attempt is over: cancelled, or overtaken by another."""
        seen = await self._store.read(f"exec:{attempt.execution}")
        found = seen.get(f"exec:{attempt.execution}", Execution)
        if found is None or found.state is not WorkState.RUNNING or found.fence != attempt.fence:
            return False
        await self._store.beat(attempt.execution, seen.now)
        return True

    async def step(self, attempt: Attempt, progress: Progress, preview: str = "") -> bool:
        """Publish a step, once however many attempts come to it; False where the attempt is over."""

        def change(found: Execution) -> tuple[Execution, tuple[Entry, ...]]:
            if progress.step <= (found.step or 0):
                return found, ()
            entries: tuple[Entry, ...] = (Entry(None, progress.step, progress.steps),)
            if preview:
                entries += (Entry(None, progress.step, progress.steps, preview),)
            events = found.events + len(entries)
            return replace(found, step=progress.step, step_of=progress.steps, events=events), entries

        return await self._change(attempt, change)

    async def release(self, attempt: Attempt) -> None:
        """End an attempt without blame: its worker takes no work now, or was told to stop."""
        await self._change(attempt, lambda found: (replace(found, released=True), ()))

    async def _change(
        self, attempt: Attempt, change: Callable[[Execution], tuple[Execution, tuple[Entry, ...]]]
    ) -> bool:
        key = f"exec:{attempt.execution}"
        while True:
            seen = await self._store.read(key)
            found = seen.get(key, Execution)
            if found is None or found.state is not WorkState.RUNNING or found.fence != attempt.fence:
                return False
            after, events = change(found)
            if after is found or await self._store.commit(
                seen, Change(attempt.execution, {key: (after, KEEP_S)}, events=events)
            ):
                return True

    async def finish(self, attempt: Attempt, state: WorkState, **outcome: Any) -> bool:
        """End an execution; False where the attempt was over already. The bytes of a result are kept before.

        `outcome` is its `failure` or its `result`.
        """
        name, share = attempt.execution, attempt.found.share
        while True:
            keys = (f"exec:{name}", f"share:{share}") if share else (f"exec:{name}",)
            seen = await self._store.read(*keys)
            found = seen.get(f"exec:{name}", Execution)
            if found is None or found.fence != attempt.fence or found.state is not WorkState.RUNNING:
                return found is not None and found.fence == attempt.fence and found.state is state
            expires, life = seen.now + found.ttl_s, found.ttl_s + self._limits.gone_ttl_s
            after = replace(
                found, state=state, finished_at=seen.now, expires_at=expires, events=found.events + 1, **outcome
            )
            puts: Puts = {f"exec:{name}": (after, life)}
            if state is not WorkState.SUCCEEDED:
                puts |= await unshared(self._store, seen, name, share)
            keep = {f"job:{job}": life for job in found.jobs} | {f"key:{k}": life for k in found.jobs.values() if k}
            shared = seen.get(f"share:{share}", ShareRecord)
            if state is WorkState.SUCCEEDED and shared is not None and shared.execution == name:
                keep[f"share:{share}"] = found.ttl_s
            ended = tuple((job, state, expires) for job in found.jobs)
            notify = tuple(job for job in found.hooks if job in found.jobs)
            if await self._store.commit(seen, Change(name, puts, keep, (Entry(state),), ended, notify)):
                return True

    # The work -----------------------------------------------------------------------------------------------------

    async def _run(self, attempt: Attempt) -> Result | None:
        """Do the work; None when the attempt came to count no more, and was cancelled."""
        steps: asyncio.Queue[Progress | None] = asyncio.Queue()

        def on_progress(progress: Progress) -> None:
            if steps.qsize() >= MAX_PENDING_STEPS:
                steps.get_nowait()
            steps.put_nowait(progress)

        running = asyncio.create_task(self._until_done(attempt, on_progress))
        others: list[asyncio.Task[Any]] = [asyncio.create_task(self._watch(attempt, running))]
        if attempt.found.steps:  # a plain encode has none
            others.append(asyncio.create_task(self._publish(attempt, steps)))
        try:
            await asyncio.wait({running})
            if running.cancelled():
                return None
            steps.put_nowait(None)
            await asyncio.gather(*others[1:])
            return running.result()
        finally:
            for task in (running, *others):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await task

    async def _until_done(self, attempt: Attempt, on_progress: Callable[[Progress], None]) -> Result:
        """Run the work, coming back when the engine is full: a job has been promised, a request has not."""
        work = await _until_reached(lambda: self._store.fetch(attempt.execution))
        if work is None:
            raise JobExpired("the upload is no longer kept")
        if isinstance(work, bytes):
            options = attempt.found.options
            if isinstance(options, DecodeOptions):
                options = replace(options, steps=attempt.found.steps)
            work = await self._executor.admit(work, options)
        while True:
            try:
                return await self._executor.run(work, on_progress)
            except Busy as busy:
                if self._store.in_process and await self._is_direct(attempt):
                    raise
                await asyncio.sleep(min(busy.retry_after, MAX_BUSY_WAIT_S))

    async def _is_direct(self, attempt: Attempt) -> bool:
        """True while no job wants it; one may have joined since."""
        found = (await self._store.read(f"exec:{attempt.execution}")).get(f"exec:{attempt.execution}", Execution)
        return found is None or found.direct

    async def _watch(self, attempt: Attempt, running: asyncio.Task[Result]) -> None:
        """Give signs of life; when the attempt no longer counts, cancel what runs."""
        with self._store.watch(attempt.execution) as changed:
            while True:
                with contextlib.suppress(QueueUnavailable):
                    if not await self.beat(attempt):
                        running.cancel()
                        return
                await changed.wait(WATCH_S)

    async def _publish(self, attempt: Attempt, steps: asyncio.Queue[Progress | None]) -> None:
        """Write steps and previews as they come; what cannot be written is not worth waiting for."""
        kept: deque[tuple[str, int]] = deque()  # previews
        while (progress := await steps.get()) is not None:
            with contextlib.suppress(QueueUnavailable):
                name = "" if progress.preview is None else await self._keep_preview(attempt, progress, kept)
                await self.step(attempt, progress, name)

    async def _keep_preview(self, attempt: Attempt, progress: Progress, kept: deque[tuple[str, int]]) -> str:
        """Write a preview and return its name, "" where that fails; the oldest make room."""
        name, data = f"preview/{attempt.execution}/{attempt.fence}-{progress.step}", progress.preview or b""
        try:
            await self._store.blobs.put(name, data, attempt.found.ttl_s)
            kept.append((name, len(data)))
            while sum(size for _, size in kept) > MAX_PREVIEW_BYTES:
                await self._store.blobs.delete(kept.popleft()[0])
        except Exception as error:  # stores have errors of their own kinds; the step is published without it
            log.warning("a preview could not be written", extra={"error": type(error).__name__})
            return ""
        return name

    async def _deliver(self, attempt: Attempt, result: Result) -> None:
        """Result first, record second: a finished job always has its result."""
        name = f"result/{attempt.execution}/{attempt.fence}"
        info = ResultInfo(result.media_type, result.digest, len(result.data), result.metadata, dict(result.seconds))
        await _until_reached(lambda: self._put(name, result.data, attempt))
        if await _until_reached(lambda: self.finish(attempt, WorkState.SUCCEEDED, result=info)):
            await self._drop(attempt)
        else:
            await self._store.blobs.delete(name)

    async def _put(self, name: str, data: bytes, attempt: Attempt) -> None:
        """Keep a result for as long as all who want it were promised: a job that joined may want it longer."""
        seen = await self._store.read(f"exec:{attempt.execution}")
        found = seen.get(f"exec:{attempt.execution}", Execution) or attempt.found
        try:
            await self._store.blobs.put(name, data, found.ttl_s)
        except ServiceError:
            raise
        except Exception as error:
            raise QueueUnavailable(f"the blob store cannot be used now ({type(error).__name__})") from error

    async def _fail(self, attempt: Attempt, error: Exception) -> None:
        failure = Failure.of(error)
        defect = failure.error == ServiceError.__name__
        fail(failure.error)
        log.log(logging.ERROR if defect else logging.INFO, "a job failed", exc_info=error if defect else None,
                extra={"error": type(error).__name__, "execution": attempt.execution})  # fmt: skip
        if await _until_reached(lambda: self.finish(attempt, WorkState.FAILED, failure=failure)):
            await self._drop(attempt)

    async def _drop(self, attempt: Attempt) -> None:
        with contextlib.suppress(Exception):  # it expires by itself
            await self._store.drop(attempt.execution)

    async def _release(self, attempt: Attempt) -> None:
        with contextlib.suppress(QueueUnavailable):  # then it counts as a death: no more than one
            await self.release(attempt)


async def _until_reached(call: Callable[[], Awaitable[T]]) -> T:
    """Try until the store can be reached; meanwhile the lease may pass to another worker."""
    while True:
        try:
            return await call()
        except QueueUnavailable:
            await asyncio.sleep(RETRY_S)
