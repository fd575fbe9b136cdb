"""The store in this process: no Redis needed, nothing survives a restart. Work goes to this process's own engine."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

from service.errors import Busy
from service.jobs.blobs import BlobStore
from service.jobs.limits import JobLimits
from service.jobs.records import Entry, Execution, JobRecord, Record
from service.jobs.store import RETRY_S, Change, Nack, Place, Signal, Snapshot, Watchers
from service.work import Work, WorkState

SWEEP_S = 5.0
RECORD_BYTES = 4096  # that a job's record and its events take, previews apart
Execute = Callable[[str], Awaitable[None]]


class MemoryBlobs:
    """Named bytes that vanish after a time; see `BlobStore`."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._blobs: dict[str, tuple[bytes, float]] = {}
        self.held = 0  # bytes

    async def put(self, name: str, data: bytes, ttl_s: float) -> None:
        """See `BlobStore.put`."""
        await self.delete(name)
        self._blobs[name] = data, self._clock() + ttl_s
        self.held += len(data)

    async def get(self, name: str) -> bytes | None:
        """See `BlobStore.get`."""
        data, until = self._blobs.get(name, (None, 0.0))
        return data if until > self._clock() else None

    async def delete(self, name: str) -> None:
        """See `BlobStore.delete`."""
        data, _ = self._blobs.pop(name, (b"", 0.0))
        self.held -= len(data)

    async def sweep(self) -> None:
        """See `BlobStore.sweep`."""
        now = self._clock()
        for name in [name for name, (_, until) in self._blobs.items() if until <= now]:
            await self.delete(name)


class MemoryStore:
    """See `Store`. Executions start in the order they came, `max_running` at a time; direct ones at once."""

    in_process = True

    def __init__(self, limits: JobLimits, clock: Callable[[], float] = time.time) -> None:
        self._bytes = MemoryBlobs(clock)
        self.blobs: BlobStore = self._bytes
        self._limits = limits
        self._clock = clock
        self._records: dict[str, tuple[Record, float]] = {}  # with the time they vanish at
        self._events: dict[str, list[Entry]] = {}
        self._works: dict[str, Work] = {}
        self._held = 0  # bytes of uploads and of records of jobs
        self._queued: dict[str, float] = {}  # executions that wait, in order, with their device seconds
        self._running: set[str] = set()
        self._watchers = Watchers()
        self._due: dict[str, float] = {}  # jobs with webhooks, by when
        self._pending: deque[str] = deque()
        self._tasks: dict[asyncio.Task[None], bool] = {}  # with whether it takes one of the places
        self._execute: Execute | None = None
        self._sweeper: asyncio.Task[None] | None = None

    def serve(self, execute: Execute) -> None:
        """Have executions that are delivered run by `execute`."""
        self._execute = execute

    async def start(self) -> None:
        """See `Store.start`."""
        self._sweeper = asyncio.create_task(self._sweep_for_ever())

    async def stop(self, grace: float) -> None:
        """See `Store.stop`."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        self._execute = None  # nothing more is started
        tasks = list(self._tasks)
        if tasks:
            await asyncio.wait(tasks, timeout=grace)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    # Records ------------------------------------------------------------------------------------------------------

    async def read(self, *keys: str, into: Snapshot | None = None) -> Snapshot:
        """See `Store.read`."""
        seen = into or Snapshot()
        seen.now = self._clock()
        for key in keys:
            record, until = self._records.get(key, (None, 0.0))
            seen.records[key] = record if until > seen.now else None
        return seen

    async def commit(self, seen: Snapshot, change: Change) -> bool:
        """See `Store.commit`. Records are compared by identity: they are never changed, only replaced."""
        now = self._clock()
        for key in change.puts:
            record, until = self._records.get(key, (None, 0.0))
            if (record if until > now else None) is not seen.records.get(key):
                return False
        for key, (new, life) in change.puts.items():
            if new is None:
                self._remove(key)
                continue
            self._held += RECORD_BYTES * (isinstance(new, JobRecord) and key not in self._records)
            self._records[key] = new, now + life
            if isinstance(new, Execution):
                self._place(change.execution, new)
        for key, life in change.keep.items():
            if key in self._records:
                self._records[key] = self._records[key][0], now + life
        self._due.update(dict.fromkeys(change.notify, now))
        if change.events:
            self._events.setdefault(change.execution, []).extend(change.events)
        self._watchers.wake(change.execution)
        return True

    def _place(self, id: str, execution: Execution) -> None:
        """Keep queue and running set as the state says."""
        if execution.state is WorkState.QUEUED:
            self._queued.setdefault(id, execution.seconds)
        else:
            self._queued.pop(id, None)
        (self._running.add if execution.state is WorkState.RUNNING else self._running.discard)(id)

    def _remove(self, key: str) -> None:
        record, _ = self._records.pop(key, (None, 0.0))
        self._held -= RECORD_BYTES * isinstance(record, JobRecord)
        if isinstance(record, Execution):
            id = key.removeprefix("exec:")
            self._queued.pop(id, None)
            self._running.discard(id)
            self._events.pop(id, None)
            self._drop(id)

    async def events(self, execution: str, start: int) -> list[Entry]:
        """See `Store.events`."""
        return self._events.get(execution, [])[start:]

    def watch(self, execution: str) -> AbstractContextManager[Signal]:
        """See `Store.watch`."""
        return self._watchers.of(execution)

    async def beat(self, execution: str, now: float) -> None:
        """See `Store.beat`: its worker lives as long as the store does."""

    async def overdue(self, age_s: float) -> list[str]:
        """See `Store.overdue`: nothing that was delivered is lost."""
        return []

    async def place(self, execution: str) -> Place:
        """See `Store.place`."""
        rank = list(self._queued).index(execution) if execution in self._queued else None
        return Place(rank, len(self._queued), len(self._running), sum(self._queued.values()))

    async def due(self, limit: int, lease_s: float) -> list[str]:
        """See `Store.due`."""
        now = self._clock()
        found = [job for job, at in self._due.items() if at <= now][:limit]
        self._due.update(dict.fromkeys(found, now + lease_s))
        return found

    async def schedule(self, job: str, seconds: float | None) -> None:
        """See `Store.schedule`."""
        self._due.pop(job, None)
        if seconds is not None:
            self._due[job] = self._clock() + seconds

    async def owned(self, owner: str, after: str | None, limit: int) -> list[str]:
        """See `Store.owned`."""
        own = sorted(
            (
                (record.created_at, key.removeprefix("job:"))
                for key, (record, _) in self._records.items()
                if isinstance(record, JobRecord) and record.owner == owner
            ),
            reverse=True,
        )
        ids = [id for _, id in own]
        start = 0 if after is None else ids.index(after) + 1 if after in ids else len(ids)
        return ids[start : start + limit]

    def counts(self) -> dict[str, int]:
        """See `Store.counts`; also from other threads."""
        found: Counter[str] = Counter()
        now = self._clock()
        for record, _ in list(self._records.values()):
            if isinstance(record, JobRecord):
                execution, _ = self._records.get(f"exec:{record.execution}", (None, 0.0))
                if record.cancelled_at is not None:
                    state, expires = WorkState.CANCELLED, record.expires_at
                elif isinstance(execution, Execution):
                    state, expires = execution.state, execution.expires_at
                else:
                    continue
                found[WorkState.EXPIRED if expires is not None and expires <= now else state] += 1
        return dict(found)

    # Bytes --------------------------------------------------------------------------------------------------------

    @property
    def held(self) -> int:
        """Bytes of records, uploads, results and previews."""
        return self._held + self._bytes.held

    def check_room(self, size: int) -> None:
        """See `Store.check_room`."""
        if self.held + RECORD_BYTES + size > self._limits.max_bytes:
            raise Busy("too many bytes of jobs and results are kept", retry_after=60.0)

    async def keep(self, execution: str, work: Work) -> None:
        """See `Store.keep`."""
        self._works[execution] = work
        self._held += len(work.body)

    async def fetch(self, execution: str) -> Work | None:
        """See `Store.fetch`."""
        return self._works.get(execution)

    async def drop(self, execution: str) -> None:
        """See `Store.drop`."""
        self._drop(execution)

    def _drop(self, execution: str) -> None:
        work = self._works.pop(execution, None)
        self._held -= len(work.body) if work is not None else 0

    async def sweep(self) -> None:
        """Remove what is past its time."""
        now = self._clock()
        for key in [key for key, (_, until) in self._records.items() if until <= now]:
            self._remove(key)
        await self.blobs.sweep()

    async def _sweep_for_ever(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            await self.sweep()

    # Delivery -----------------------------------------------------------------------------------------------------

    async def deliver(self, execution: str, *, at_once: bool) -> None:
        """See `Store.deliver`."""
        if at_once:
            self._start(execution, takes_place=False)
        else:
            self._pending.append(execution)
            self._fill()

    def _fill(self) -> None:
        while self._pending and self._execute and sum(self._tasks.values()) < self._limits.max_running:
            self._start(self._pending.popleft(), takes_place=True)

    def _start(self, execution: str, *, takes_place: bool) -> None:
        if self._execute is not None:
            task: asyncio.Task[Any] = asyncio.ensure_future(self._execute(execution))
            self._tasks[task] = takes_place
            task.add_done_callback(partial(self._ended, execution))

    def _ended(self, execution: str, task: asyncio.Task[None]) -> None:
        del self._tasks[task]
        try:
            task.result()
        except Nack:
            asyncio.get_running_loop().call_later(RETRY_S, self._again, execution)
        except asyncio.CancelledError:
            pass
        self._fill()

    def _again(self, execution: str) -> None:
        self._pending.append(execution)
        self._fill()
