"""The store in Redis: any number of API processes and workers share one. Delivery is `service.jobs.queue`'s."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from redis.asyncio import Redis
from redis.exceptions import OutOfMemoryError, ReadOnlyError, RedisError, ResponseError

from service.errors import QueueUnavailable, ServiceError
from service.jobs.blobs import BlobStore
from service.jobs.queue import Enqueuer
from service.jobs.records import BatchRecord, Entry, Execution, HookRecord, JobRecord, KeyRecord, Record, ShareRecord
from service.jobs.store import KEEP_S, Change, Place, Signal, Snapshot, Watchers
from service.work import Work, WorkState

log = logging.getLogger(__name__)
PREFIX = "cdc:"
CHANNEL = PREFIX + "notifications"
QUEUE, QUEUED, RUNNING, SEQUENCE = (PREFIX + name for name in ("queue", "queued", "running", "sequence"))
CALL_S = 5.0  # longest time of a call; more means that Redis cannot be reached
RETRY_S = 0.5
HOOKS = PREFIX + "hooks"
COUNT_S = 2.0  # between counts of jobs for the metrics
ENDED = (WorkState.SUCCEEDED, WorkState.FAILED, WorkState.CANCELLED)
# Answers of a Redis that is full, starting, or has become a replica: they pass.
_OVER = (OutOfMemoryError, ReadOnlyError)
_PASSING = ("OOM", "LOADING", "READONLY", "MISCONF", "BUSY", "MASTERDOWN", "CLUSTERDOWN", "NOREPLICAS", "TRYAGAIN")
_KINDS: dict[str, TypeAdapter[Any]] = {
    "exec": TypeAdapter(Execution),
    "job": TypeAdapter(JobRecord),
    "key": TypeAdapter(KeyRecord),
    "share": TypeAdapter(ShareRecord),
    "hook": TypeAdapter(HookRecord),
    "batch": TypeAdapter(BatchRecord),
}
_ENTRY = TypeAdapter(Entry)


DUE = """
local found = redis.call('ZRANGEBYSCORE', KEYS[1], 0, ARGV[1], 'LIMIT', 0, ARGV[2])
for _, job in ipairs(found) do redis.call('ZADD', KEYS[1], ARGV[3], job) end
return found
"""


class RedisStore:
    """See `Store`. A record is a string of JSON; beside them lie

    events:ID      list of the events of an execution, as JSON
    queue          sorted set of the executions that wait, by their number; queued: hash of their device seconds
    running        sorted set of the executions that run, by their last sign of life
    hooks          sorted set of the jobs with webhooks, by when these are due
    owner:NAME     sorted set of an owner's jobs, by when they were made
    done:STATE     sorted sets of the jobs that have ended, by when they expire
    notifications  channel: the id of an execution whenever something happened to it
    """

    in_process = False

    def __init__(
        self, redis: Redis, queue: Enqueuer, blobs: BlobStore, clock: Callable[[], float] | None = None
    ) -> None:
        """`redis` answers bytes. The clock is that of Redis, so that machines agree; a test gives its own."""
        self._redis = redis
        self._queue = queue
        self.blobs = blobs
        self._clock = clock
        self._commit = redis.register_script(Path(__file__).with_name("commit.lua").read_text())
        self._due = redis.register_script(DUE)
        self._watchers = Watchers()
        self._tasks: list[asyncio.Task[None]] = []
        self._counts: dict[str, int] = {}

    async def start(self) -> None:
        """See `Store.start`; does not wait for Redis."""
        self._tasks = [asyncio.create_task(self._listen_for_ever()), asyncio.create_task(self._count_for_ever())]

    async def stop(self, grace: float) -> None:
        """See `Store.stop`; jobs go on in their workers."""
        for task in self._tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await self._queue.close()

    # Records ------------------------------------------------------------------------------------------------------

    async def read(self, *keys: str, into: Snapshot | None = None) -> Snapshot:
        """See `Store.read`."""
        seen = into or Snapshot()
        async with reachable(), self._redis.pipeline(transaction=False) as pipe:
            pipe.time()
            if keys:
                pipe.mget([PREFIX + key for key in keys])
            time, *found = await pipe.execute()
        seen.now = self._now(time)
        for key, raw in zip(keys, found[0] if found else (), strict=True):
            seen.tokens[key] = raw or b""
            seen.records[key] = None if raw is None else _KINDS[key.split(":", 1)[0]].validate_json(raw)
        return seen

    async def commit(self, seen: Snapshot, change: Change) -> bool:
        """See `Store.commit`."""
        keys, arguments, commands = [PREFIX + key for key in change.puts], list[Any](), _Commands(len(change.puts))
        for key, (new, life_s) in change.puts.items():
            kind, id = key.split(":", 1)
            raw = b"" if new is None else _KINDS[kind].dump_json(new)
            arguments += [seen.tokens.get(key, b""), raw, _ms(life_s)]
            if kind == "exec":
                _place(commands, id, seen.get(key, Execution), new, seen.now)
                if change.events:
                    entries = [_ENTRY.dump_json(entry, exclude_defaults=True).decode() for entry in change.events]
                    commands.add("RPUSH", f"{PREFIX}events:{id}", *entries)
                commands.add("PEXPIRE", f"{PREFIX}events:{id}", _ms(life_s))
        for key, life_s in change.keep.items():
            commands.add("PEXPIRE", PREFIX + key, _ms(life_s))
        for job, state, expires in change.ended:
            commands.add("ZADD", f"{PREFIX}done:{state}", expires, job)
        for job in change.notify:
            commands.add("ZADD", HOOKS, seen.now, job)
        if change.listed is not None:
            owner, job = change.listed
            commands.add("ZADD", f"{PREFIX}owner:{owner}", seen.now, job)
            commands.add("ZREMRANGEBYSCORE", f"{PREFIX}owner:{owner}", 0, seen.now - KEEP_S)
            commands.add("PEXPIRE", f"{PREFIX}owner:{owner}", _ms(KEEP_S))
        arguments = [len(keys), *arguments, json.dumps(commands.listed), CHANNEL, change.execution]
        async with reachable():
            return bool(await self._commit(keys=[*keys, *commands.keys, SEQUENCE], args=arguments))

    async def events(self, execution: str, start: int) -> list[Entry]:
        """See `Store.events`."""
        async with reachable():
            raw = await self._redis.lrange(f"{PREFIX}events:{execution}", start, -1)
        return [_ENTRY.validate_json(item) for item in raw]

    def watch(self, execution: str) -> AbstractContextManager[Signal]:
        """See `Store.watch`: one subscription for the whole process."""
        return self._watchers.of(execution)

    async def beat(self, execution: str, now: float) -> None:
        """See `Store.beat`."""
        async with reachable():
            await self._redis.zadd(RUNNING, {execution: now}, xx=True)

    async def overdue(self, age_s: float) -> list[str]:
        """See `Store.overdue`."""
        async with reachable(), self._redis.pipeline(transaction=False) as pipe:
            before = self._now(await self._redis.time()) - age_s
            pipe.zrange(QUEUE, 0, -1)
            pipe.zrangebyscore(RUNNING, 0, before)
            waiting, silent = ([id.decode() for id in ids] for ids in await pipe.execute())
        seen = await self.read(*(f"exec:{id}" for id in waiting))
        found = {id: seen.get(f"exec:{id}", Execution) for id in waiting}
        if gone := [id for id, execution in found.items() if execution is None]:  # a record has outlived its time
            async with reachable(), self._redis.pipeline(transaction=False) as pipe:
                pipe.zrem(QUEUE, *gone)
                pipe.hdel(QUEUED, *gone)
                await pipe.execute()
        return [id for id, execution in found.items() if execution and execution.queued_at <= before] + silent

    async def place(self, execution: str) -> Place:
        """See `Store.place`."""
        async with reachable(), self._redis.pipeline(transaction=False) as pipe:
            pipe.zrank(QUEUE, execution)
            pipe.hvals(QUEUED)
            pipe.zcard(RUNNING)
            rank, seconds, running = await pipe.execute()
        return Place(rank, len(seconds), running, sum(map(float, seconds)))

    async def due(self, limit: int, lease_s: float) -> list[str]:
        """See `Store.due`: who takes one moves it, so that no other process takes it too."""
        async with reachable():
            now = self._now(await self._redis.time())
            found = await self._due(keys=[HOOKS], args=[now, limit, now + lease_s])
        return [job.decode() for job in found]

    async def schedule(self, job: str, seconds: float | None) -> None:
        """See `Store.schedule`."""
        async with reachable():
            if seconds is None:
                await self._redis.zrem(HOOKS, job)
            else:
                await self._redis.zadd(HOOKS, {job: self._now(await self._redis.time()) + seconds})

    async def owned(self, owner: str, after: str | None, limit: int) -> list[str]:
        """See `Store.owned`."""
        key = f"{PREFIX}owner:{owner}"
        async with reachable():
            rank: Any = -1 if after is None else await self._redis.zrevrank(key, after)
            found: Any = [] if rank is None else await self._redis.zrevrange(key, rank + 1, rank + limit)
        return [job.decode() for job in found]

    def counts(self) -> dict[str, int]:
        """See `Store.counts`; some seconds old."""
        return self._counts

    # Bytes and delivery -------------------------------------------------------------------------------------------

    def check_room(self, size: int) -> None:
        """See `Store.check_room`: Redis says so itself, when something is written."""

    async def keep(self, execution: str, work: Work) -> None:
        """See `Store.keep`."""
        async with blobs_reachable():
            await self.blobs.put(f"body/{execution}", work.body, KEEP_S)

    async def fetch(self, execution: str) -> bytes | None:
        """See `Store.fetch`."""
        async with blobs_reachable():
            return await self.blobs.get(f"body/{execution}")

    async def drop(self, execution: str) -> None:
        """See `Store.drop`."""
        with contextlib.suppress(Exception):  # it expires by itself
            await self.blobs.delete(f"body/{execution}")

    async def deliver(self, execution: str, *, at_once: bool) -> None:
        """See `Store.deliver`."""
        await self._queue.put(execution)

    def _now(self, time: tuple[int, int]) -> float:
        """Seconds since 1970, from what Redis answers to TIME."""
        return time[0] + time[1] / 1e6 if self._clock is None else self._clock()

    async def _listen_for_ever(self) -> None:
        """Wake those who wait for an execution. Comes back by itself after a cut."""
        while True:
            try:
                async with self._redis.pubsub(ignore_subscribe_messages=True) as channel:
                    await channel.subscribe(CHANNEL)
                    self._watchers.wake_all()  # what came while nobody listened
                    async for message in channel.listen():
                        self._watchers.wake(message["data"].decode())
            except (RedisError, OSError) as error:
                log.warning("the channel of notifications is cut, trying again", extra={"error": type(error).__name__})
            await asyncio.sleep(RETRY_S)

    async def _count_for_ever(self) -> None:
        while True:
            with contextlib.suppress(ServiceError):
                self._counts = await self._count()
            await asyncio.sleep(COUNT_S)

    async def _count(self) -> dict[str, int]:
        async with reachable(), self._redis.pipeline(transaction=False) as pipe:
            now = self._now(await self._redis.time())
            pipe.zcard(QUEUE)
            pipe.zcard(RUNNING)
            for state in ENDED:
                pipe.zremrangebyscore(f"{PREFIX}done:{state}", 0, now)
                pipe.zcard(f"{PREFIX}done:{state}")
            found = await pipe.execute()
        return dict(zip(("queued", "running", *ENDED), [found[0], found[1], *found[3::2]], strict=True))


class _Commands:
    """Commands for the script, with the keys that they name."""

    def __init__(self, first: int) -> None:
        """`first` keys come before."""
        self._first = first
        self.keys: list[str] = []
        self.listed: list[list[Any]] = []

    def add(self, name: str, key: str, *arguments: Any) -> None:
        """Add a command whose first argument is a key."""
        if key not in self.keys:
            self.keys.append(key)
        self.listed.append([name, self._first + 1 + self.keys.index(key), *map(str, arguments)])


def _place(commands: _Commands, id: str, old: Execution | None, new: Record | None, now: float) -> None:
    """Keep queue and running set as the state of an execution says."""
    state = new.state if isinstance(new, Execution) else None
    if old is None and isinstance(new, Execution) and state is WorkState.QUEUED:
        commands.add("ZADD", QUEUE, "@next", id)
        commands.add("HSET", QUEUED, id, new.seconds)
    elif state is not WorkState.QUEUED:
        commands.add("ZREM", QUEUE, id)
        commands.add("HDEL", QUEUED, id)
    if state is WorkState.RUNNING:
        commands.add("ZADD", RUNNING, f"{now:.3f}", id)
    elif state is not WorkState.QUEUED:
        commands.add("ZREM", RUNNING, id)


def _ms(seconds: float) -> int:
    return max(1, round(1000 * seconds))


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


@asynccontextmanager
async def blobs_reachable() -> AsyncIterator[None]:
    """Turn what any blob store fails with into QueueUnavailable."""
    try:
        yield
    except (ServiceError, asyncio.CancelledError):
        raise
    except Exception as error:  # stores have errors of their own kinds
        raise QueueUnavailable(f"the blob store cannot be used now ({type(error).__name__})") from error
