"""Jobs in Redis: the API's side. Records by `JobStore`, bytes by `BlobStore`, delivery by streaq."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

from redis.asyncio import Redis

from service.errors import (
    Busy,
    Draining,
    JobCancelled,
    JobExpired,
    JobNotFinished,
    KeyReused,
    QueueUnavailable,
    ServiceError,
)
from service.jobs.blobs import BlobStore
from service.jobs.notifications import Notifications
from service.jobs.port import JobLimits
from service.jobs.queue import Enqueuer
from service.jobs.records import Answer, Event, Job, Step, Work, new_id
from service.jobs.store import KEEP_S, JobStore, View

log = logging.getLogger(__name__)
POLL_S = 1.0  # between looks at a job when no notification comes: a message lost with a connection delays, no more
COUNT_S = 2.0  # between counts of jobs for the metrics


class RedisBackend:
    """See `JobBackend`. Any number of API processes and workers share one Redis."""

    def __init__(
        self,
        redis: Redis,
        url: str,
        blobs: BlobStore,
        limits: JobLimits | None = None,
        seconds_of: Callable[[Work], float] = lambda _: 0.0,
        generation: Callable[[], str] = lambda: "",
        clock: Callable[[], float] | None = None,
    ) -> None:
        """`redis` and `url` lead to the same server; see `Executor` for `seconds_of` and `generation`.

        `clock` takes the place of Redis's own, for tests.
        """
        self._limits = limits or JobLimits()
        self._store = JobStore(redis, self._limits, clock)
        self._blobs = blobs
        self._seconds_of = seconds_of
        self._generation = generation
        self._notifications = Notifications(redis)
        self._queue = Enqueuer(url)
        self._counts: dict[str, int] = {}
        self._counting: asyncio.Task[None] | None = None
        self._draining = False

    async def start(self) -> None:
        """See `JobBackend.start`; does not wait for Redis."""
        self._notifications.start()
        self._counting = asyncio.create_task(self._count_for_ever())

    async def stop(self, grace: float) -> None:
        """See `JobBackend.stop`; jobs go on in their workers."""
        self._draining = True
        if self._counting is not None:
            self._counting.cancel()
        await self._notifications.stop()
        await self._queue.close()

    async def submit(self, work: Work, owner: str, key: str | None = None, ttl_s: float | None = None) -> Job:
        """See `JobBackend.submit`; `ttl_s` keeps the result for another time than the limits say.

        Raises:
            QueueUnavailable: Redis or the blob store; nothing is kept.
        """
        if self._draining:
            raise Draining("the service is shutting down")
        execution, seconds = new_id(), self._seconds_of(work)
        await self._put(f"body/{execution}", work.body, KEEP_S)
        ttl = self._limits.result_ttl_s if ttl_s is None else ttl_s
        fresh = True  # also where it is not known whether Redis took it: then the upload may be needed
        try:
            id, _, fresh = await self._store.submit(
                new_id(), execution, work, owner, key, seconds, ttl, self._generation()
            )
            if fresh:
                await self._enqueue(execution, id)
            return (await self._store.view(id, owner)).job
        except (Busy, KeyReused):
            fresh = False
            raise
        finally:
            if not fresh:
                with contextlib.suppress(Exception):
                    await self._blobs.delete(f"body/{execution}")

    async def _enqueue(self, execution: str, job: str) -> None:
        """Deliver an execution. Where that fails the job is taken back; if that fails too, a worker finds it later."""
        try:
            await self._queue.put(execution)
        except QueueUnavailable:
            with contextlib.suppress(ServiceError):
                await self._store.cancel(job)
            raise

    async def get(self, id: str, owner: str | None) -> Job:
        """See `JobBackend.get`."""
        return (await self._store.view(id, owner)).job

    async def wait(self, id: str, owner: str, seconds: float) -> Job:
        """See `JobBackend.wait`."""
        until = asyncio.get_running_loop().time() + seconds
        view = await self._store.view(id, owner)
        with self._notifications.of(view.execution) as changed:
            while not view.job.ended:
                view = await self._store.view(id, owner)
                left = until - asyncio.get_running_loop().time()
                if view.job.ended or left <= 0:
                    break
                await changed.wait(min(left, POLL_S))
        return view.job

    async def cancel(self, id: str, owner: str) -> Job:
        """See `JobBackend.cancel`."""
        await self._store.view(id, owner)
        await self._store.cancel(id)
        view = await self._store.view(id, owner)
        if view.fields["state"] == "cancelled":  # nobody else wants the execution
            with contextlib.suppress(Exception):  # it expires by itself
                await self._blobs.delete(f"body/{view.execution}")
        return view.job

    async def result(self, id: str, owner: str | None) -> Answer:
        """See `JobBackend.result`."""
        view = await self._store.view(id, owner)
        job = view.job
        if job.state == "failed" and job.failure is not None:
            raise job.failure.exception()
        if job.state == "cancelled":
            raise JobCancelled("the job was cancelled")
        if job.state != "succeeded":
            raise JobNotFinished(f"the job is {job.state}")
        fields = view.fields
        async with _blobs_reachable():
            data = await self._blobs.get(f"result/{view.execution}/{fields['fence']}")
        if data is None:
            raise JobExpired("the result is no longer kept")
        return Answer(
            data, fields["media_type"], fields["digest"], json.loads(fields["facts"]), json.loads(fields["timings"])
        )

    async def events(self, id: str, owner: str, after: int = 0) -> AsyncIterator[Event]:
        """See `JobBackend.events`."""
        view = await self._store.view(id, owner)
        last = max(0, after)
        with self._notifications.of(view.execution) as changed:
            while True:
                view = await self._store.view(id, owner)  # before the events: none it implies is missing from them
                events, over = await self._events_of(view, last)
                for event in events:
                    last = event.id
                    yield event
                if over:
                    return
                await changed.wait(POLL_S)

    def counts(self) -> dict[str, int]:
        """See `JobBackend.counts`; some seconds old."""
        return self._counts

    async def _events_of(self, view: View, last: int) -> tuple[list[Event], bool]:
        """The events of a job with ids above `last`, and whether they are all there will be.

        Ids follow from what is stored: 1 is "queued", `base` - 1 more was made up for a job that joined a running
        execution, then come the execution's events from the `join`-th on.
        """
        job, found = view.job, []
        if last < 1:
            found.append(Event(1, "state", _as(job, "queued")))
        if view.base == 2 and last < 2:
            found.append(Event(2, "state", _as(job, "running")))
        start = view.join + max(0, last - view.base)
        items = await self._store.events(view.execution, start)
        if view.cancel_at is not None:
            items = items[: max(0, view.cancel_at - start)]
        over = False
        for index, item in enumerate(items):
            id = view.base + 1 + start - view.join + index
            if "s" in item:
                if view.base == 2 and item["s"] == "running":
                    continue
                over = item["s"] != "running"
                if over and not job.ended:  # it ended since it was looked at
                    job = (await self._store.view(job.id, job.owner)).job
                found.append(Event(id, "state", job if over else _as(job, "running")))
            elif "blob" in item:
                found.append(Event(id, "preview", Step(item["n"], item["of"], await self._preview(item["blob"]))))
            else:
                found.append(Event(id, "progress", Step(item["n"], item["of"])))
        if view.cancel_at is not None:
            final = view.base + 1 + view.cancel_at - view.join
            if last < final:
                found.append(Event(final, "state", job))
            over = True
        return found, over or (job.ended and not items)

    async def _preview(self, name: str) -> bytes | None:
        """A preview; None where it cannot be read: its event says so by having none, and those after it come."""
        try:
            return await self._blobs.get(name)
        except Exception as error:  # stores have errors of their own kinds
            log.warning("a preview could not be read", extra={"error": type(error).__name__})
            return None

    async def _put(self, name: str, data: bytes, ttl_s: float) -> None:
        async with _blobs_reachable():
            await self._blobs.put(name, data, ttl_s)

    async def _count_for_ever(self) -> None:
        while True:
            with contextlib.suppress(ServiceError):
                self._counts = await self._store.counts()
            await asyncio.sleep(COUNT_S)


@contextlib.asynccontextmanager
async def _blobs_reachable() -> AsyncIterator[None]:
    """Turn what any blob store fails with into QueueUnavailable."""
    try:
        yield
    except (ServiceError, asyncio.CancelledError):
        raise
    except Exception as error:  # stores have errors of their own kinds
        raise QueueUnavailable(f"the blob store cannot be used now ({type(error).__name__})") from error


def _as(job: Job, state: Any) -> Job:
    """The job as it was when it came into an earlier state."""
    started = job.started_at if state == "running" else None
    return Job(job.id, job.owner, job.operation, state, job.created_at, started_at=started)
