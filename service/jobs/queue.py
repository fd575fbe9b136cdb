"""Delivery of executions to workers, by streaq: at least once, and again when a worker dies.

What travels is the execution's id. Whether a delivery may run is decided by `Attempts.begin`, so a second delivery of
the same execution does no harm.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any

from anyio import CancelScope
from coredis.exceptions import RedisError as CoredisError
from streaq import StreaqRetry, Worker

from service.errors import QueueUnavailable
from service.jobs.store import RETRY_S, Nack

log = logging.getLogger(__name__)
QUEUE = "cdc"
TASK = "execute"
CALL_S = 5.0


class _Worker(Worker[None]):
    """A streaq worker that is stopped by an event instead of signals."""

    def __init__(self, url: str, stopping: asyncio.Event | None = None, **options: Any) -> None:
        super().__init__(
            redis_url=url,
            redis_kwargs={"decode_components": True},  # %xx in user name and password, as redis-py reads them
            queue_name=QUEUE,
            serializer=_dump,
            deserializer=json.loads,
            **options,
        )
        self._stopping = stopping or asyncio.Event()

    async def signal_handler(self, scope: CancelScope) -> None:
        """Wait for the event; then take nothing more. What runs is waited for."""
        await self._stopping.wait()
        scope.cancel("stopped")


def _dump(value: Any) -> str:
    return json.dumps(value, default=str)  # streaq's own records of failures hold exceptions


class Enqueuer:
    """Puts executions into the queue. Connects at the first use, and again after a failure."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._holder: asyncio.Task[None] | None = None
        self._worker: asyncio.Future[_Worker] | None = None
        self._closing = asyncio.Event()

    async def put(self, execution: str) -> None:
        """Deliver an execution to some worker, once or more.

        Raises:
            QueueUnavailable: Redis cannot be reached or takes nothing; it may have been put all the same.
        """
        try:
            await self._put(execution)
        except Exception:  # an idle connection may have been cut long ago: a new one tells whether the queue is there
            await self.close()
            try:
                await self._put(execution)
            except Exception as error:  # of coredis, of anyio, of the network: it was not taken for sure
                await self.close()
                raise QueueUnavailable(f"the job queue cannot be used now ({type(error).__name__})") from error

    async def _put(self, execution: str) -> None:
        async with asyncio.timeout(CALL_S):
            worker = await self._connected()
            task = worker.enqueue_unsafe(TASK, execution)
            task.id = execution
            await task

    async def close(self) -> None:
        """Close the connection; a later `put` opens another."""
        holder, self._holder, self._worker = self._holder, None, None
        if holder is not None:
            self._closing.set()
            await asyncio.wait({holder}, timeout=CALL_S)
            holder.cancel()

    async def _connected(self) -> _Worker:
        if self._holder is None or self._holder.done():
            self._closing = asyncio.Event()
            self._worker = asyncio.get_running_loop().create_future()
            self._holder = asyncio.create_task(self._hold(self._worker, self._closing))
        assert self._worker is not None
        return await asyncio.shield(self._worker)

    async def _hold(self, opened: asyncio.Future[_Worker], closing: asyncio.Event) -> None:
        """Keep a connection open. A task of its own, since the connection must be closed by the task that opened it."""
        try:
            async with _Worker(self._url) as worker:
                opened.set_result(worker)
                await closing.wait()
        except Exception as error:
            if not opened.done():
                opened.set_exception(error)
            log.info("the connection to the queue was lost", extra={"error": type(error).__name__})


class Consumer:
    """Takes executions from the queue and runs them, `concurrency` at a time, until stopped."""

    def __init__(
        self,
        url: str,
        execute: Callable[[str], Coroutine[Any, Any, None]],
        concurrency: int,
        grace_s: float,
        lease_s: float,
    ) -> None:
        """`execute` runs one execution; cancelled, it leaves it to another worker."""
        self._url = url
        self._execute = execute
        self._concurrency = concurrency
        self._grace_s = grace_s
        self._lease_s = lease_s
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Take nothing more; `run` returns when what runs has ended, or after the grace time."""
        self._stopping.set()

    async def run(self) -> None:
        """Consume until `stop`. A cut connection is tried again for ever."""
        while not self._stopping.is_set():
            try:
                await self._consume()
            except* (CoredisError, OSError, TimeoutError) as group:
                log.warning("the queue is cut, trying again", extra={"error": type(group.exceptions[0]).__name__})
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(RETRY_S):
                        await self._stopping.wait()

    async def _consume(self) -> None:
        worker = _Worker(
            self._url,
            self._stopping,
            concurrency=self._concurrency,
            prefetch=1,  # what waits, waits in Redis, where every worker can take it
            idle_timeout=timedelta(seconds=self._lease_s),
        )
        worker.task(name=TASK, max_tries=None, ttl=0, silent=True)(self._run)
        await worker.run_async()

    async def _run(self, execution: str) -> None:
        """Run an execution; what is not done when the grace time is over goes back into the queue, as a nack does."""
        running = asyncio.create_task(self._execute(execution))
        stopped = asyncio.create_task(self._grace_over())
        try:
            await asyncio.wait({running, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                running.result()
                return
        except Nack as error:
            raise StreaqRetry(str(error), delay=timedelta(seconds=RETRY_S)) from error
        finally:
            for task in (running, stopped):
                task.cancel()
            await asyncio.wait({running, stopped})
        raise StreaqRetry("the worker stops", delay=timedelta(0))

    async def _grace_over(self) -> None:
        await self._stopping.wait()
        await asyncio.sleep(self._grace_s)
