"""The job road: every request and every job takes it. Sharing, idempotency, limits, results and events are here, once.

A job wants an execution; identical work of several jobs shares one. What is stored changes by compare and swap: read,
decide, commit, and again where others were quicker; so each rule is written once, for memory and Redis alike. A direct
request is a job of nobody's with a waiter, and is cancelled with its caller. How work is taken is in `submission`, what
becomes of it in a worker in `attempts`.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

from service.errors import (
    Busy,
    Draining,
    JobCancelled,
    JobExpired,
    JobNotFinished,
    QueueUnavailable,
    ServiceError,
    UnknownJob,
)
from service.jobs.limits import JobLimits
from service.jobs.records import Event, Execution, HookRecord, Job, JobRecord, new_id
from service.jobs.store import KEEP_S, Change, Puts, Snapshot, Store, left, unshared
from service.jobs.submission import Submission
from service.jobs.views import events_of, job_of
from service.work import Progress, Result, Work, WorkState

log = logging.getLogger(__name__)
POLL_S = 1.0  # between looks at a job when no notification comes: one lost with a connection delays, no more
TURNS = 64


class Jobs:
    """Keeps jobs and has them executed. A job is visible to its owner alone: to others it does not exist.

    Owner None stands for who came by a link and was found to have the right to it. Methods that take an id raise
    UnknownJob (never was, or somebody else's), JobExpired, and QueueUnavailable where the store cannot be reached.
    """

    def __init__(
        self,
        store: Store,
        limits: JobLimits,
        *,
        seconds_of: Callable[[Work], float],
        generation: Callable[[], str],
        backlog: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """Nothing is started yet.

        Args:
            seconds_of: estimates the device seconds of work alone.
            generation: what results depend on beside the work; those of another generation are not given again.
            backlog: seconds until the device with least to do could begin.
        """
        self._store = store
        self._limits = limits
        self._seconds_of = seconds_of
        self._generation = generation
        self._backlog = backlog
        self._draining = False
        self._nobody = f"request:{new_id()}"  # owner of direct requests
        self._turns = [asyncio.Lock() for _ in range(TURNS)]  # who would only disturb one another takes turns

    async def start(self) -> None:
        """Begin to take jobs; does not wait for the store."""
        await self._store.start()

    async def stop(self, grace: float) -> None:
        """Take no more jobs; those that run in this process have up to `grace` seconds."""
        self._draining = True
        await self._store.stop(grace)

    # Taking work --------------------------------------------------------------------------------------------------

    async def run(self, work: Work, owner: str, key: str | None = None) -> Result:
        """Do work for a caller that waits. With an idempotency key it goes on where the caller is lost, and is kept.

        Raises:
            Busy: more waits than may; a request is not kept waiting as a job is.
            KeyReused, Draining: see `submit`.
            JobCancelled, or the error of the work.
        """
        if (backlog := self._backlog()) > self._limits.max_backlog_s:
            raise Busy(f"{backlog:.0f} seconds of work are waiting", retry_after=max(1.0, backlog))
        direct = key is None
        owner = self._nobody if direct else owner
        id = await self._take(work, owner, key, direct=direct)
        try:
            return await self._result(id, *await self._until_ended(id, owner))
        except asyncio.CancelledError:
            if direct:
                with contextlib.suppress(ServiceError):
                    await asyncio.shield(self.cancel(id, owner))
            raise
        finally:
            if direct and self._store.in_process:
                await self._forget(id)

    async def submit(self, work: Work, owner: str, key: str | None = None, callback: str = "") -> Job:
        """Take a job. Identical repeatable work, in flight or kept, is executed once; each submission has its record.

        Args:
            work: what is to be done.
            owner: who submits it.
            key: idempotency key: the same key of the same owner gives the same job.
            callback: where a webhook tells its end; "" for none.

        Raises:
            KeyReused: the key came with other work before.
            Busy: too much is queued or kept.
            Draining: the service stops.
            QueueUnavailable: nothing is kept.
        """
        return await self.get(await self._take(work, owner, key, direct=False, callback=callback), owner)

    async def page(self, owner: str, after: str | None, limit: int) -> tuple[list[Job], str | None]:
        """Jobs of an owner, the newest first, behind the job `after`; and behind which one the next page begins."""
        found = await self._store.owned(owner, after, limit)
        jobs = []
        for id in found:
            with contextlib.suppress(UnknownJob, JobExpired):
                jobs.append(await self.get(id, owner))
        return jobs, found[-1] if len(found) == limit else None

    async def hook(self, id: str, owner: str) -> HookRecord:
        """The webhook of a job, for a week, also when the job has expired. Raises UnknownJob."""
        found = (await self._store.read(f"hook:{id}")).get(f"hook:{id}", HookRecord)
        if found is None or found.owner != owner:
            raise UnknownJob("there is no such job, or it has no callback")
        return found

    async def _take(self, work: Work, owner: str, key: str | None, *, direct: bool, callback: str = "") -> str:
        """Record and deliver a job; `direct`: its caller waits for it and will cancel it. Returns its id."""
        if self._draining:
            raise Draining("the service is shutting down")
        fingerprint = work.fingerprint()
        asked = Submission(
            self._store,
            self._limits,
            work,
            owner,
            key="" if key is None else _sha256(f"{owner}\n{key}"),
            share=_sha256(f"{fingerprint} {self._generation()}") if work.repeatable else "",
            seconds=self._seconds_of(work),
            direct=direct,
            callback=callback,
        )
        async with self._turns[hash(asked.key or asked.share or asked.id) % TURNS]:
            id = await asked.settle()
        try:
            await asked.deliver()
        except QueueUnavailable:  # take it back; where that fails too, a worker finds it later
            with contextlib.suppress(ServiceError):
                await self.cancel(id, owner)
            raise
        return id

    # Looking at jobs ----------------------------------------------------------------------------------------------

    async def get(self, id: str, owner: str | None) -> Job:
        """Return the job as it stands."""
        return await self._seen(id, *await self._read(id, owner))

    async def wait(self, id: str, owner: str, seconds: float = float("inf")) -> Job:
        """Return the job when it has ended, or as it stands after `seconds`."""
        return await self._seen(id, *await self._until_ended(id, owner, seconds))

    async def _until_ended(
        self, id: str, owner: str, seconds: float = float("inf")
    ) -> tuple[Snapshot, JobRecord, Execution]:
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        found = await self._read(id, owner)
        name = found[1].execution
        with self._store.watch(name) as changed:
            while True:
                found = await self._read(id, owner, name)  # again: it is watched from now on
                _, record, execution = found
                left = until - loop.time()
                if record.cancelled_at is not None or execution.state.ended or left <= 0:
                    return found
                await changed.wait(min(left, POLL_S))

    async def result(self, id: str, owner: str | None) -> Result:
        """Return the result.

        Raises:
            JobNotFinished: it is queued or running.
            JobCancelled: it was cancelled.
            The job's own error, if it failed.
        """
        return await self._result(id, *await self._read(id, owner))

    async def _result(self, id: str, seen: Snapshot, record: JobRecord, execution: Execution) -> Result:
        job = await self._seen(id, seen, record, execution)
        if job.failure is not None:
            raise job.failure.exception()
        if job.state is WorkState.CANCELLED:
            raise JobCancelled("the job was cancelled")
        if (info := job.result) is None:
            raise JobNotFinished(f"the job is {job.state}")
        data = await self._store.blobs.get(f"result/{record.execution}/{execution.fence}")
        if data is None:
            raise JobExpired("the result is no longer kept")
        return Result(data, info.media_type, info.digest, info.metadata, info.seconds)

    async def events(self, id: str, owner: str, after: int = 0) -> AsyncIterator[Event]:
        """Yield the events with ids above `after`, as they happen; ends after the job's last one."""
        _, record, _ = await self._read(id, owner)
        last, name = max(0, after), record.execution
        with self._store.watch(name) as changed:
            while True:
                seen, record, execution = await self._read(id, owner, name)
                job = await self._seen(id, seen, record, execution)
                entries = await self._store.events(record.execution, record.joined + max(0, last - record.told))
                found, over = events_of(job, record, execution, entries, last)
                for event, preview in found:
                    last = event.id
                    if isinstance(event.data, Progress) and preview:
                        event = replace(event, data=replace(event.data, preview=await self._preview(preview)))
                    yield event
                if over:
                    return
                await changed.wait(POLL_S)

    async def cancel(self, id: str, owner: str) -> Job:
        """Cancel the job if it has not ended; its execution ends where no other job needs it."""
        while True:
            seen, record, found = await self._read(id, owner)
            if record.cancelled_at is not None or found.state.ended:
                return await self._seen(id, seen, record, found)
            expires, life = seen.now + found.ttl_s, found.ttl_s + self._limits.gone_ttl_s
            record = replace(record, cancelled_at=seen.now, cancelled_events=found.events, expires_at=expires)
            others = {job: key for job, key in found.jobs.items() if job != id}
            execution = replace(found, jobs=others)
            puts: Puts = {f"job:{id}": (record, life)}
            if not others:
                execution = replace(execution, state=WorkState.CANCELLED, finished_at=seen.now, expires_at=expires)
                puts |= await unshared(self._store, seen, record.execution, found.share)
            puts[f"exec:{record.execution}"] = execution, KEEP_S if others else life
            keep = {f"key:{key}": life for key in (found.jobs.get(id),) if key}
            notify = (id,) if id in found.hooks else ()
            change = Change(record.execution, puts, keep, ended=((id, WorkState.CANCELLED, expires),), notify=notify)
            if await self._store.commit(seen, change):
                break
        if not others:
            await self._store.drop(record.execution)
        return await self._seen(id, seen, record, execution)

    def counts(self) -> dict[str, int]:
        """Return how many jobs there are in each state, as last known; never blocks."""
        return self._store.counts()

    # Parts --------------------------------------------------------------------------------------------------------

    async def _read(self, id: str, owner: str | None, name: str = "") -> tuple[Snapshot, JobRecord, Execution]:
        """Return a job's records; `name` is its execution's, where that is known. Raises UnknownJob, JobExpired."""
        seen = await self._store.read(f"job:{id}", *([f"exec:{name}"] if name else []))
        record = seen.get(f"job:{id}", JobRecord)
        if record is None or owner not in (None, record.owner):
            raise UnknownJob("there is no such job")
        if not name:
            name = record.execution
            await self._store.read(f"exec:{name}", into=seen)
        execution = seen.get(f"exec:{name}", Execution)
        expires = record.expires_at or (execution.expires_at if execution else 0.0)
        if execution is None or (expires is not None and expires <= seen.now):
            raise JobExpired("the job has ended and its result is no longer kept")
        return seen, record, execution

    async def _seen(self, id: str, seen: Snapshot, record: JobRecord, execution: Execution) -> Job:
        """The job as its owner sees it, with its place in the queue."""
        waits = execution.state is WorkState.QUEUED and not execution.direct
        place = await self._store.place(record.execution) if waits else None
        return job_of(id, record, execution, place)

    async def _forget(self, id: str) -> None:
        """Remove a direct request that is over, and its execution where nobody else wants it."""
        while True:
            seen = await self._store.read(f"job:{id}")
            record = seen.get(f"job:{id}", JobRecord)
            if record is None:
                return
            name = record.execution
            found = (await self._store.read(f"exec:{name}", into=seen)).get(f"exec:{name}", Execution)
            puts: Puts = {f"job:{id}": (None, 0.0)}
            others = {job: key for job, key in found.jobs.items() if job != id} if found else {}
            if found is not None:
                life = KEEP_S if not found.state.ended else left(found, seen) + self._limits.gone_ttl_s
                puts[f"exec:{name}"] = (replace(found, jobs=others), life) if others else (None, 0.0)
                if not others:
                    puts |= await unshared(self._store, seen, name, found.share)
            if await self._store.commit(seen, Change(name, puts)):
                break
        if found is not None and not others:
            await self._store.blobs.delete(f"result/{name}/{found.fence}")

    async def _preview(self, name: str) -> bytes | None:
        """A preview; None where it cannot be read: its event says so by having none, and those after it come."""
        try:
            return await self._store.blobs.get(name)
        except Exception as error:  # stores have errors of their own kinds
            log.warning("a preview could not be read", extra={"error": type(error).__name__})
            return None


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
