"""Batches: many requests in one file, done as jobs while nobody else waits.

A batch is taken a slice of lines at a time, by whichever process finds it due. What a slice gave is written under a
name that says which lines they were, and then the record moves on by compare and swap; each line's job has an
idempotency key. So a slice that dies is done again, and changes nothing that is there.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

from model.errors import CodecError
from service.errors import Busy, Draining, NotReady, QueueUnavailable, ServiceError, UnknownBatch
from service.jobs.hooks import BATCH
from service.jobs.records import BatchRecord, Failure, Job, new_id
from service.jobs.service import Jobs
from service.jobs.store import KEEP_S, Change, Store
from service.tracing import fail, span, traceparent
from service.work import Result, Work

log = logging.getLogger(__name__)
SLICE = 4  # lines under way at the same time
YIELD_S = 1.0  # while others wait
TRIES = 60  # of a line that finds the service full, a second apart at least

Line = dict[str, Any]


@dataclass(frozen=True)
class Services:
    """What a line needs.

    Attributes:
        work: a line -> its work; fetches the source. Raises ServiceError, CodecError.
        deliver: a line and its result, put where the line wants it.
        describe: a job as JSON.
        kind: an error -> status and stable type.
    """

    work: Callable[[Line], Awaitable[Work]]
    deliver: Callable[[Line, Result], Awaitable[None]]
    describe: Callable[[Job], dict[str, Any]]
    kind: Callable[[Exception], tuple[int, str]]


class Batches:
    """Keeps batches and works them off. A batch is visible to its owner alone."""

    def __init__(self, store: Store, jobs: Jobs, services: Services) -> None:
        self._store = store
        self._jobs = jobs
        self._services = services
        self._split: tuple[str, list[bytes]] | None = None

    async def submit(self, data: bytes, total: int, owner: str) -> tuple[str, BatchRecord]:
        """Take a batch of `total` lines. Raises Busy, QueueUnavailable."""
        self._store.check_room(len(data))
        id = new_id()
        await self._put(f"batch/{id}/input", data)
        seen = await self._store.read(f"batch:{id}")
        record = BatchRecord(owner, total, seen.now, trace=traceparent())
        change = Change(id, {f"batch:{id}": (record, KEEP_S)}, notify=(BATCH + id,))
        await self._store.commit(seen, change)
        return id, record

    async def get(self, id: str, owner: str) -> BatchRecord:
        """Return a batch as it stands. Raises UnknownBatch."""
        found = (await self._store.read(f"batch:{id}")).get(f"batch:{id}", BatchRecord)
        if found is None or found.owner != owner:
            raise UnknownBatch("there is no such batch")
        return found

    async def cancel(self, id: str, owner: str) -> BatchRecord:
        """Begin no further lines; those under way end. Raises UnknownBatch."""
        while True:
            await self.get(id, owner)
            seen = await self._store.read(f"batch:{id}")
            found = seen.get(f"batch:{id}", BatchRecord)
            assert found is not None
            if found.state != "in_progress":
                return found
            after = replace(found, state="cancelled", finished_at=seen.now)
            if await self._store.commit(seen, Change(id, {f"batch:{id}": (after, KEEP_S)})):
                await self._join(id, after)
                await self._tidy(id, after)
                return after

    async def output(self, id: str, owner: str, *, errors: bool) -> bytes:
        """The lines that succeeded, or those that failed, as far as they are there. Raises UnknownBatch."""
        name = f"batch/{id}/{'errors' if errors else 'output'}"
        while True:
            found = await self.get(id, owner)
            ended = found.state != "in_progress"
            if ended and (whole := await self._store.blobs.get(name)) is not None:
                return whole
            parts = (await self._parts(id, found))[errors]
            if ended:  # a cancelled one is put together behind its record: parts may have been gone if it is there now
                whole = await self._store.blobs.get(name)
                return parts if whole is None else whole
            if (await self.get(id, owner)).state == "in_progress":
                return parts  # else it has ended meanwhile, and parts may have been gone

    async def advance(self, id: str) -> float | None:
        """Do a slice; return the seconds until the next one, None after the last."""
        seen = await self._store.read(f"batch:{id}")
        found = seen.get(f"batch:{id}", BatchRecord)
        if found is None or found.state != "in_progress":
            return None
        if (await self._store.place("")).waiting:  # a job waits, of somebody who does
            return YIELD_S
        whole = await self._lines(id)
        if whole is None:
            lines, after = [], replace(found, state="expired", finished_at=seen.now)
        else:
            lines = whole[found.next : found.next + SLICE]
            numbers = range(found.next, found.next + len(lines))
            made = await asyncio.gather(
                *(self._line(id, n, line, found) for n, line in zip(numbers, lines, strict=True))
            )
            text = json.dumps(made).encode()
            await self._put(f"batch/{id}/part/{found.next}", text)
            failed = sum(line["error"] is not None for line in made)
            after = replace(
                found,
                next=found.next + len(lines),
                completed=found.completed + len(made) - failed,
                failed=found.failed + failed,
            )
            if after.next >= found.total:
                after = replace(after, state="completed", finished_at=seen.now)
                await self._join(id, after)
        if not await self._store.commit(seen, Change(id, {f"batch:{id}": (after, KEEP_S)})):
            return 0.0  # somebody else was quicker, or it was cancelled
        if after.state == "in_progress":
            return 0.0
        await self._tidy(id, after)
        return None

    async def _lines(self, id: str) -> list[bytes] | None:
        """The lines of a batch, None where its input has expired; those of the last one are kept."""
        if self._split is None or self._split[0] != id:
            data = await self._store.blobs.get(f"batch/{id}/input")
            if data is None:
                return None
            self._split = id, [line for line in data.splitlines() if line.strip()]
        return self._split[1]

    async def _line(self, id: str, number: int, text: bytes, batch: BatchRecord) -> Line:
        with span("batch line", link=batch.trace, line=number):  # a trace of its own: a batch has thousands
            return await self._answer(id, number, text, batch.owner)

    async def _answer(self, id: str, number: int, text: bytes, owner: str) -> Line:
        line: Line = json.loads(text)
        answer: Line = {"id": f"{id}-{number}", "custom_id": line["custom_id"], "response": None, "error": None}
        try:
            job, result = await self._done(line, owner, f"batch:{id}:{number}")
            await self._services.deliver(line, result)
            answer["response"] = {"status_code": 200, "body": self._services.describe(job)}
        except (ServiceError, CodecError) as error:
            if isinstance(error, QueueUnavailable | Draining):
                raise  # of this process, not of the line
            status, kind = self._services.kind(error)
            fail(kind)
            answer["error"] = {"status": status, "type": kind, "detail": Failure.of(error).detail}
        return answer

    async def _done(self, line: Line, owner: str, key: str) -> tuple[Job, Result]:
        """The job of a line, and its result; where the service is full, the line waits."""
        for tried in range(TRIES):
            try:
                work = await self._services.work(line)
                job = await self._jobs.submit(work, owner, key)
                break
            except (Busy, NotReady) as error:
                if tried == TRIES - 1:
                    raise
                await asyncio.sleep(getattr(error, "retry_after", YIELD_S))
        job = await self._jobs.wait(job.id, owner)
        return job, await self._jobs.result(job.id, owner)

    async def _join(self, id: str, record: BatchRecord) -> None:
        """Write output and errors as a file each; the parts vanish by themselves."""
        output, errors = await self._parts(id, record)
        await self._put(f"batch/{id}/output", output)
        await self._put(f"batch/{id}/errors", errors)

    async def _tidy(self, id: str, record: BatchRecord) -> None:
        """Remove what output and errors were made of; what stays expires."""
        with contextlib.suppress(Exception):  # stores have errors of their own kinds
            for name in ("input", *(f"part/{start}" for start in range(0, record.next, SLICE))):
                await self._store.blobs.delete(f"batch/{id}/{name}")

    async def _parts(self, id: str, record: BatchRecord) -> tuple[bytes, bytes]:
        lines: tuple[list[str], list[str]] = ([], [])
        for start in range(0, record.next, SLICE):
            part = await self._store.blobs.get(f"batch/{id}/part/{start}")
            for line in json.loads(part or b"[]"):
                lines[line["error"] is not None].append(json.dumps(line))
        output, errors = ("".join(f"{line}\n" for line in found).encode() for found in lines)
        return output, errors

    async def _put(self, name: str, data: bytes) -> None:
        try:
            await self._store.blobs.put(name, data, KEEP_S)
        except ServiceError:
            raise
        except Exception as error:  # stores have errors of their own kinds
            raise QueueUnavailable(f"the blob store cannot be used now ({type(error).__name__})") from error
