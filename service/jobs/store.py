"""Records of jobs and executions in Redis. Every change is one script, so that none is ever half made."""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import OutOfMemoryError, ReadOnlyError, RedisError, ResponseError

from service.errors import Busy, JobExpired, KeyReused, QueueUnavailable, UnknownJob
from service.jobs import scripts
from service.jobs.port import JobLimits
from service.jobs.records import Answer, Failure, Job, State, Work, share_key

PREFIX = "cdc:"
CHANNEL = PREFIX + "notifications"
CALL_S = 5.0  # longest time of a call; more means that Redis cannot be reached
KEEP_S = 7 * 86_400  # how long an unfinished job is kept
MAX_DEATHS = 20  # of workers that had it: many, for whoever kills a worker kills all that it had
ENDED = ("succeeded", "failed", "cancelled")
# Answers of a Redis that is full, starting, or has become a replica: they pass.
_OVER = (OutOfMemoryError, ReadOnlyError)
_PASSING = ("OOM", "LOADING", "READONLY", "MISCONF", "BUSY", "MASTERDOWN", "CLUSTERDOWN", "NOREPLICAS", "TRYAGAIN")


@dataclass(frozen=True)
class Started:
    """An attempt at an execution: its fence, what to do (the body is a blob), whether it was tried too often."""

    fence: int
    work: Mapping[str, Any]
    exhausted: bool


@dataclass(frozen=True)
class View:
    """A job and what its events are made from: the execution, how many of its events came before, their first id."""

    job: Job
    execution: str
    join: int
    base: int
    cancel_at: int | None
    fields: Mapping[str, str] = field(repr=False)


class JobStore:
    """Reads and writes the records. Every method raises QueueUnavailable when Redis cannot be reached or is full."""

    def __init__(self, redis: Redis, limits: JobLimits, clock: Callable[[], float] | None = None) -> None:
        """`redis` answers bytes. Time is that of Redis; a test gives a `clock` of its own."""
        self.redis = redis
        self._limits = limits
        self._clock = clock
        self._submit = redis.register_script(scripts.SUBMIT)
        self._begin = redis.register_script(scripts.BEGIN)
        self._release = redis.register_script(scripts.RELEASE)
        self._heartbeat = redis.register_script(scripts.HEARTBEAT)
        self._progress = redis.register_script(scripts.PROGRESS)
        self._finish = redis.register_script(scripts.FINISH)
        self._cancel = redis.register_script(scripts.CANCEL)

    # Jobs ---------------------------------------------------------------------------------------------------------

    async def submit(
        self,
        job: str,
        execution: str,
        work: Work,
        owner: str,
        key: str | None,
        seconds: float,
        ttl_s: float,
        generation: str = "",
    ) -> tuple[str, str, bool]:
        """Make a record; returns job id, execution, and whether the execution is new.

        Raises:
            KeyReused, Busy: see `JobBackend.submit`.
        """
        idem = hashlib.sha256(f"{owner}\n{key}".encode()).hexdigest() if key is not None else ""
        fingerprint = work.fingerprint()
        shareable = work.repeatable and not work.previews
        todo = {
            "operation": work.operation,
            "options": dict(work.options),
            "previews": work.previews,
            "request_id": work.request_id,
        }
        arguments: list[Any] = [
            PREFIX,
            job,
            owner,
            work.operation,
            self._given_time(),
            fingerprint,
            share_key(fingerprint, generation) if shareable else "",
        ]
        arguments += [execution, json.dumps(todo), round(1000 * seconds), f"{ttl_s:.3f}", idem]
        async with reachable():
            answer = await self._submit(args=[*arguments, self._limits.max_queued, KEEP_S])
        verdict, *rest = (part.decode() for part in answer)
        if verdict == "reused":
            raise KeyReused("this Idempotency-Key came with another request before")
        if verdict == "busy":
            raise Busy(f"{rest[0]} jobs are waiting", retry_after=max(1.0, await self.queued_seconds()))
        if verdict == "known":
            return rest[0], "", False
        return job, rest[0], rest[1] == "1"

    async def view(self, id: str, owner: str | None) -> View:
        """Return a job. Raises UnknownJob, JobExpired."""
        async with reachable():
            record = _text(await self.redis.hgetall(f"{PREFIX}job:{id}"))
            if not record or owner not in (None, record["owner"]):
                raise UnknownJob("there is no such job")
            execution = record["execution"]
            async with self.redis.pipeline(transaction=False) as pipe:
                pipe.hgetall(f"{PREFIX}exec:{execution}")
                pipe.zrank(f"{PREFIX}queue", execution)
                pipe.get(f"{PREFIX}queued_ms")
                pipe.zcard(f"{PREFIX}queue")
                pipe.zcard(f"{PREFIX}running")
                pipe.time()
                raw, rank, ms, waiting, running, time = await pipe.execute()
        fields = _text(raw)
        # What runs is taken to be like what waits.
        ahead = 0.0 if rank is None else (rank + running) * int(ms or 0) / 1000 / max(1, waiting)
        job = self._job(id, record, fields, rank, ahead)
        if job.expires_at is not None and job.expires_at <= self._now(time):
            raise JobExpired("the job has ended and its result is no longer kept")
        cancel_at = int(record["cancel_at"]) if "cancel_at" in record else None
        return View(job, execution, int(record["join"]), int(record["base"]), cancel_at, fields)

    async def cancel(self, id: str) -> None:
        """Cancel a job that has not ended."""
        async with reachable():
            await self._cancel(args=[PREFIX, id, self._given_time(), self._limits.gone_ttl_s])

    async def events(self, execution: str, start: int) -> list[dict[str, Any]]:
        """What happened to an execution, from the `start`-th on."""
        async with reachable():
            raw = await self.redis.lrange(f"{PREFIX}exec:{execution}:events", start, -1)
        return [json.loads(item) for item in raw]

    async def counts(self) -> dict[str, int]:
        """Jobs in each state."""
        async with reachable(), self.redis.pipeline(transaction=False) as pipe:
            now = self._now(await self.redis.time())
            pipe.zcard(f"{PREFIX}queue")
            pipe.zcard(f"{PREFIX}running")
            for state in ENDED:
                pipe.zremrangebyscore(f"{PREFIX}done:{state}", 0, now)
                pipe.zcard(f"{PREFIX}done:{state}")
            found = await pipe.execute()
        return dict(zip(("queued", "running", *ENDED), [found[0], found[1], *found[3::2]], strict=True))

    async def queued_seconds(self) -> float:
        """Estimated device seconds of all that waits."""
        async with reachable():
            return int(await self.redis.get(f"{PREFIX}queued_ms") or 0) / 1000

    # Executions ---------------------------------------------------------------------------------------------------

    async def begin(self, execution: str) -> Started | None:
        """Start an attempt; None where nobody wants it any more or it has ended."""
        async with reachable():
            call = secrets.token_hex(8)  # the same when it is sent twice
            answer = await self._begin(args=[PREFIX, execution, self._given_time(), call, MAX_DEATHS])
        if not answer:
            return None
        fence, work, exhausted = answer
        return Started(int(fence), json.loads(work), exhausted == b"1")

    async def release(self, execution: str, fence: int) -> None:
        """End an attempt without blame: its worker takes no work now, or was told to stop."""
        async with reachable():
            await self._release(args=[PREFIX, execution, fence])

    async def heartbeat(self, execution: str, fence: int) -> bool:
        """Give a sign of life of an attempt; False where it is over: cancelled, or overtaken by another."""
        async with reachable():
            return bool(await self._heartbeat(args=[PREFIX, execution, fence, self._given_time()]))

    async def progress(self, execution: str, fence: int, step: int, steps: int, preview: str = "") -> bool:
        """Tell of a step; False where the attempt is over: cancelled, or overtaken by another."""
        async with reachable():
            return bool(await self._progress(args=[PREFIX, execution, fence, step, steps, preview]))

    async def finish(
        self, execution: str, fence: int, state: State, failure: Failure | None = None, answer: Answer | None = None
    ) -> bool:
        """End an execution; False where the attempt was over already. The result's blob is written before."""
        fields: list[Any] = ["failure", json.dumps(vars(failure)) if failure else ""]
        if answer is not None:
            fields += ["media_type", answer.media_type, "digest", answer.digest, "size", len(answer.data)]
            fields += ["facts", json.dumps(dict(answer.facts)), "timings", json.dumps(dict(answer.seconds))]
        arguments: list[Any] = [PREFIX, execution, fence, state, self._given_time(), self._limits.gone_ttl_s]
        async with reachable():
            return bool(await self._finish(args=[*arguments, *fields]))

    async def overdue(self, age_s: float) -> list[str]:
        """Executions queued for longer than `age_s` seconds, and running ones without a sign of life for as long."""
        async with reachable():
            before = self._now(await self.redis.time()) - age_s
            async with self.redis.pipeline(transaction=False) as pipe:
                pipe.zrange(f"{PREFIX}queue", 0, -1)
                pipe.zrangebyscore(f"{PREFIX}running", 0, before)
                waiting, silent = await pipe.execute()
            async with self.redis.pipeline(transaction=False) as pipe:
                for execution in waiting:
                    pipe.hget(f"{PREFIX}exec:{execution.decode()}", "queued_at")
                times = await pipe.execute()
        # One without a record has outlived it; begun, it leaves the queue.
        late = [e for e, queued in zip(waiting, times, strict=True) if queued is None or float(queued) <= before]
        return [execution.decode() for execution in (*late, *silent)]

    async def ttl_of(self, execution: str) -> float:
        """Seconds that the result of an execution is to be kept."""
        async with reachable():
            return float(await self.redis.hget(f"{PREFIX}exec:{execution}", "ttl") or self._limits.result_ttl_s)

    def _given_time(self) -> str:
        """For scripts: the time of a test's clock, or nothing, and they take Redis's."""
        return "" if self._clock is None else f"{self._clock():.3f}"

    def _now(self, time: tuple[int, int]) -> float:
        """Seconds since 1970, from what Redis answers to TIME."""
        return time[0] + time[1] / 1e6 if self._clock is None else self._clock()

    def _job(
        self, id: str, record: Mapping[str, str], fields: Mapping[str, str], rank: int | None, ahead: float
    ) -> Job:
        cancelled = "cancelled_at" in record
        state: State = "cancelled" if cancelled else fields.get("state", "expired")  # type: ignore[assignment]
        ended = record if cancelled else fields
        step, steps = (int(fields[k]) if k in fields else None for k in ("step", "steps"))
        estimate = None
        if state in ("queued", "running"):
            left = 1 - (step or 0) / steps if steps else 1.0
            estimate = round(ahead + left * float(fields["seconds"]), 3)
        failure = None
        if state == "failed" and fields.get("failure"):
            failure = Failure(**json.loads(fields["failure"]))
        done = state == "succeeded"
        return Job(
            id=id,
            owner=record["owner"],
            operation=record["operation"],  # type: ignore[arg-type]
            state=state,
            created_at=float(record["created_at"]),
            started_at=_seconds(fields, "started_at"),
            finished_at=_seconds(record, "cancelled_at") if cancelled else _seconds(fields, "finished_at"),
            expires_at=_seconds(ended, "expires_at"),
            position=rank if state == "queued" else None,
            estimate_seconds=estimate,
            step=step,
            steps=steps,
            failure=failure,
            media_type=fields["media_type"] if done else None,
            size=int(fields["size"]) if done else None,
            digest=fields["digest"] if done else None,
        )


@asynccontextmanager
async def reachable() -> AsyncIterator[None]:
    """Turn what Redis fails with into QueueUnavailable, and bound the time of a call."""
    try:
        async with asyncio.timeout(CALL_S):
            yield
    except ResponseError as error:
        if not isinstance(error, _OVER) and not str(error).startswith(_PASSING):
            raise  # a mistake of ours, which trying again does not mend
        raise QueueUnavailable(f"the job queue cannot be used now ({str(error).split()[0]})") from error
    except (RedisError, OSError, TimeoutError) as error:
        raise QueueUnavailable(f"the job queue cannot be used now ({type(error).__name__})") from error


def _text(raw: Mapping[Any, Any]) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in raw.items()}


def _seconds(fields: Mapping[str, str], name: str) -> float | None:
    return float(fields[name]) if name in fields else None
