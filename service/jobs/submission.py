"""How work is taken: by a key that is known, by joining identical work, or with an execution of its own."""

from __future__ import annotations

import contextlib
from dataclasses import replace

from service.errors import Busy, KeyReused
from service.jobs.limits import JobLimits
from service.jobs.records import Execution, HookRecord, JobRecord, KeyRecord, ShareRecord, new_id
from service.jobs.store import KEEP_S, Change, Puts, Snapshot, Store, left
from service.tracing import link, traceparent
from service.work import Work, WorkState

DIRECT_TTL_S = 60.0  # results of direct requests are kept for a repeated request, no longer
MAX_JOINED = 256  # jobs of one execution: its record names them all


class _Overtaken(Exception):
    """Somebody else was quicker: look again."""


class Submission:
    """One call of `Jobs.submit`."""

    def __init__(
        self,
        store: Store,
        limits: JobLimits,
        work: Work,
        owner: str,
        *,
        key: str,
        share: str,
        seconds: float,
        direct: bool,
        callback: str = "",
    ) -> None:
        """Nothing is stored yet.

        Args:
            key, share: hashes of the idempotency key, and of what identical work is; "" for none.
            seconds: estimated device time of the work.
            direct: its caller waits for it and will cancel it.
            callback: where a webhook tells its end; "" for none.
        """
        self.id, self.key, self.share = new_id(), key, share
        self._store = store
        self._limits = limits
        self._work = work
        self._owner = owner
        self._callback = callback
        self._fingerprint = f"{work.fingerprint()} {callback}".rstrip()
        self._seconds = seconds
        self._direct = direct
        self._ttl_s = DIRECT_TTL_S if direct else limits.result_ttl_s
        self._fresh: str | None = None  # the execution that this made

    async def settle(self) -> str:
        """Record the job and return its id.

        Raises:
            KeyReused, Busy, QueueUnavailable: see `Jobs.submit`.
        """
        keys = [f"{kind}:{value}" for kind, value in (("key", self.key), ("share", self.share)) if value]
        while True:
            seen = await self._store.read(*keys)
            with contextlib.suppress(_Overtaken):
                return self._known(seen) or await self._join(seen) or await self._begin(seen)

    async def deliver(self) -> None:
        """Hand the execution to the workers, if it is new. Raises QueueUnavailable."""
        if self._fresh is not None:
            await self._store.deliver(self._fresh, at_once=self._direct)

    def _known(self, seen: Snapshot) -> str | None:
        """The job that this idempotency key has made before. Raises KeyReused."""
        known = seen.get(f"key:{self.key}", KeyRecord)
        if known is None:
            return None
        if known.fingerprint != self._fingerprint:
            raise KeyReused("this Idempotency-Key came with another request before")
        return known.job

    async def _join(self, seen: Snapshot) -> str | None:
        """A job of the execution that identical work has already; a result must last half of its time yet."""
        shared = seen.get(f"share:{self.share}", ShareRecord)
        if shared is None:
            return None
        name = shared.execution
        found = (await self._store.read(f"exec:{name}", into=seen)).get(f"exec:{name}", Execution)
        if found is None or len(found.jobs) >= MAX_JOINED:
            return None
        if self._direct and self._store.in_process and found.state is WorkState.QUEUED and not found.direct:
            return None  # a job that waits for its turn, where a direct request starts at once
        over = found.state.ended
        if over and (found.state is not WorkState.SUCCEEDED or left(found, seen) <= self._ttl_s / 2):
            return None
        if not self._direct:
            self._store.check_room(0)
        execution = replace(
            found,
            jobs={**found.jobs, self.id: self.key},
            hooks=(*found.hooks, self.id) if self._callback else found.hooks,
            direct=found.direct and self._direct,
            ttl_s=found.ttl_s if over else max(found.ttl_s, self._ttl_s),
        )
        told = 1 if found.state is WorkState.QUEUED else 2
        record = self._record(name, seen, found.events - over, told)
        life = left(found, seen) + self._limits.gone_ttl_s if over else KEEP_S
        ended = ((self.id, found.state, found.expires_at or 0.0),) if over else ()
        notify = (self.id,) if over and self._callback else ()
        puts = self._puts(execution, record, life)
        change = Change(name, puts, ended=ended, notify=notify, listed=self._listed())
        if not await self._store.commit(seen, change):
            raise _Overtaken
        link(found.trace)
        return self.id

    async def _begin(self, seen: Snapshot) -> str:
        """A job with an execution of its own. Raises Busy, QueueUnavailable."""
        store, name, work = self._store, new_id(), self._work
        if not self._direct:
            store.check_room(len(work.body))
        if not (self._direct and store.in_process):
            place = await store.place(name)
            if place.waiting >= self._limits.max_queued:
                raise Busy(f"{place.waiting} jobs are waiting", retry_after=max(1.0, place.seconds))
        execution = Execution(
            options=work.options,
            steps=work.steps,
            seconds=self._seconds,
            request_id=work.request_id,
            share=self.share,
            direct=self._direct,
            ttl_s=self._ttl_s,
            queued_at=seen.now,
            jobs={self.id: self.key},
            hooks=(self.id,) if self._callback else (),
            trace=traceparent(),
        )
        puts = self._puts(execution, self._record(name, seen, joined=0, told=1), KEEP_S)
        if self.share:
            puts[f"share:{self.share}"] = ShareRecord(name), KEEP_S
        await store.keep(name, work)
        taken = True  # also where it is not known whether the store took it: then the upload may be needed
        try:
            taken = await store.commit(seen, Change(name, puts, listed=self._listed()))
        finally:
            if not taken:
                await store.drop(name)
        if not taken:
            raise _Overtaken
        self._fresh = name
        return self.id

    def _record(self, execution: str, seen: Snapshot, joined: int, told: int) -> JobRecord:
        return JobRecord(self._owner, self._work.options.operation, execution, seen.now, joined, told)

    def _listed(self) -> tuple[str, str] | None:
        """A request that is waited for is in no list."""
        return None if self._direct else (self._owner, self.id)

    def _puts(self, execution: Execution, record: JobRecord, life: float) -> Puts:
        puts: Puts = {f"exec:{record.execution}": (execution, life), f"job:{self.id}": (record, life)}
        if self._callback:
            puts[f"hook:{self.id}"] = HookRecord(self._owner, self._callback, trace=traceparent()), KEEP_S
        if self.key:
            puts[f"key:{self.key}"] = KeyRecord(self.id, self._fingerprint), life
        return puts
