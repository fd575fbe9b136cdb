"""The worker's side of a job: one attempt at an execution, fenced against all others."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from service.errors import Busy, Draining, JobExpired, NotReady, QueueUnavailable, WorkerFailed
from service.jobs.blobs import BlobStore
from service.jobs.notifications import Notifications
from service.jobs.port import Executor
from service.jobs.queue import Nack
from service.jobs.records import Answer, Failure, State, Step, Work
from service.jobs.store import MAX_DEATHS, JobStore
from service.logs import request_id

T = TypeVar("T")
log = logging.getLogger(__name__)
RETRY_S = 0.5  # while Redis or the blob store cannot be reached
WATCH_S = 1.0  # between signs of life, when no notification comes
MAX_PENDING_STEPS = 64  # that wait to be told; older ones are then passed over
MAX_BUSY_WAIT_S = 5.0


class Attempts:
    """Runs executions that the queue delivers. Nothing is acknowledged before its result lies in the blob store."""

    def __init__(self, store: JobStore, blobs: BlobStore, notifications: Notifications, executor: Executor) -> None:
        self._store = store
        self._blobs = blobs
        self._notifications = notifications
        self._executor = executor
        self._releasing: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Wait until all attempts that were cancelled are released."""
        await asyncio.gather(*self._releasing)

    async def execute(self, execution: str) -> None:
        """Make one attempt. Cancelled, it leaves the execution to another worker, and says so where it can.

        Raises:
            Nack: the engine of this worker takes no work now.
        """
        started = await _retry(lambda: self._store.begin(execution))
        if started is None:
            return  # cancelled or done
        fence = started.fence
        if started.exhausted:
            failure = Failure.of(WorkerFailed(f"{MAX_DEATHS} workers died on this job"))
            await self._end(execution, fence, "failed", failure)
            return
        body = await _retry(lambda: _blob(self._blobs, f"body/{execution}"))
        if body is None:
            await self._end(execution, fence, "failed", Failure.of(JobExpired("the upload is no longer kept")))
            return
        todo = started.work
        work = Work(todo["operation"], body, todo["options"], todo["previews"], request_id=todo["request_id"])
        request_id.set(work.request_id)  # of this delivery's own task
        try:
            answer = await self._run(execution, fence, work)
        except (Draining, NotReady) as error:
            await self._release(execution, fence)
            raise Nack(str(error)) from error
        except asyncio.CancelledError:
            releasing = asyncio.create_task(self._release(execution, fence))  # this task may wait for nothing more
            self._releasing.add(releasing)
            releasing.add_done_callback(self._releasing.discard)
            raise
        except Exception as error:
            log.info("a job failed", extra={"error": type(error).__name__, "execution": execution})
            await self._end(execution, fence, "failed", Failure.of(error))
            return
        if answer is not None:
            await self._deliver(execution, fence, answer)

    async def _release(self, execution: str, fence: int) -> None:
        with contextlib.suppress(QueueUnavailable):  # then it counts as a death: no more than one
            await self._store.release(execution, fence)

    async def _run(self, execution: str, fence: int, work: Work) -> Answer | None:
        """Do the work; None when the attempt came to count no more, and was cancelled."""
        steps: asyncio.Queue[Step | None] = asyncio.Queue()

        def on_step(step: Step) -> None:
            if steps.qsize() >= MAX_PENDING_STEPS:
                steps.get_nowait()
            steps.put_nowait(step)

        running = asyncio.create_task(self._retry_while_busy(work, on_step))
        watching = asyncio.create_task(self._watch(execution, fence))
        telling = asyncio.create_task(self._publish(execution, fence, steps))
        try:
            await asyncio.wait({running, watching}, return_when=asyncio.FIRST_COMPLETED)
            if not running.done():
                return None
            steps.put_nowait(None)
            await telling
            return running.result()
        finally:
            for task in (running, watching, telling):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await task

    async def _retry_while_busy(self, work: Work, on_step: Callable[[Step], None]) -> Answer:
        """Run the work, coming back when the engine is full: a job has been promised, a request has not."""
        while True:
            try:
                return await self._executor.run(work, on_step)
            except Busy as busy:
                await asyncio.sleep(min(busy.retry_after, MAX_BUSY_WAIT_S))

    async def _watch(self, execution: str, fence: int) -> None:
        """Give signs of life; return when the attempt no longer counts."""
        with self._notifications.of(execution) as changed:
            while True:
                with contextlib.suppress(QueueUnavailable):
                    if not await self._store.heartbeat(execution, fence):
                        return
                await changed.wait(WATCH_S)

    async def _publish(self, execution: str, fence: int, steps: asyncio.Queue[Step | None]) -> None:
        """Write steps and previews as they come; what cannot be written is not worth waiting for."""
        while (step := await steps.get()) is not None:
            name = ""
            with contextlib.suppress(QueueUnavailable):
                if step.preview is not None:
                    preview = f"preview/{execution}/{fence}-{step.step}"
                    try:
                        await self._blobs.put(preview, step.preview, await self._store.ttl_of(execution))
                        name = preview
                    except Exception as error:  # stores have errors of their own kinds; the step is told without it
                        log.warning("a preview could not be written", extra={"error": type(error).__name__})
                await self._store.progress(execution, fence, step.step, step.steps, name)

    async def _deliver(self, execution: str, fence: int, answer: Answer) -> None:
        """Result first, record second: a finished job always has its result."""
        name = f"result/{execution}/{fence}"
        ttl = await _retry(lambda: self._store.ttl_of(execution))
        await _retry(lambda: self._put(name, answer.data, ttl))
        if not await self._end(execution, fence, "succeeded", answer=answer):
            await self._blobs.delete(name)

    async def _put(self, name: str, data: bytes, ttl: float) -> None:
        try:
            await self._blobs.put(name, data, ttl)
        except Exception as error:
            raise QueueUnavailable(f"the blob store cannot be used now ({type(error).__name__})") from error

    async def _end(
        self, execution: str, fence: int, state: State, failure: Failure | None = None, answer: Answer | None = None
    ) -> bool:
        ended = await _retry(lambda: self._store.finish(execution, fence, state, failure, answer))
        if ended:
            with contextlib.suppress(Exception):  # it expires by itself
                await self._blobs.delete(f"body/{execution}")
        return ended


async def _retry(call: Callable[[], Awaitable[T]]) -> T:
    """Try until the queue or the store can be reached; meanwhile the lease may pass to another worker."""
    while True:
        try:
            return await call()
        except QueueUnavailable:
            await asyncio.sleep(RETRY_S)


async def _blob(blobs: BlobStore, name: str) -> bytes | None:
    try:
        return await blobs.get(name)
    except Exception as error:
        raise QueueUnavailable(f"the blob store cannot be used now ({type(error).__name__})") from error
