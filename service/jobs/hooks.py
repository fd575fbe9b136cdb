"""Webhooks of jobs: at least once, in any process that runs this, whichever dies.

A webhook is due from the change that ends its job on. Who takes it has a lease; who dies with it lets it become due
again. It is over when its record says so, and the record is written after the receiver's answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Protocol

from opentelemetry.trace import SpanKind

from service.errors import AddressNotAllowed, JobError, OutsideFailed, QueueUnavailable, ServiceError
from service.jobs.records import HookRecord, Job
from service.jobs.store import KEEP_S, Change, Store
from service.tracing import span

log = logging.getLogger(__name__)
POLL_S = 0.5
CONCURRENT = 16
LEASE_S = 60.0  # more than an attempt takes
FIRST_WAIT_S, LONGEST_WAIT_S = 5.0, 7200.0
GIVE_UP_S = 86_400.0
BATCH = "batch:"  # what names of batches begin with, beside ids of jobs


class Sends(Protocol):
    """What sends a webhook: `service.outside.webhooks.Webhooks`, or a test's."""

    async def send(self, url: str, id: str, timestamp: int, body: bytes) -> None:
        """Raises AddressNotAllowed, OutsideFailed."""


class Hooks:
    """Sends what is due.

    Args:
        store: of the jobs.
        sender: how.
        job: id and owner -> the job as it stands.
        body: of a webhook about a job; None: it is known no longer.
        outcome: told "delivered", "failed" or "dead" with every attempt.
        advance: does the next lines of a batch; returns the seconds until those after them, None for none.
    """

    def __init__(
        self,
        store: Store,
        sender: Sends,
        job: Callable[[str, str], Awaitable[Job]],
        body: Callable[[str, Job | None, float], bytes],
        outcome: Callable[[str], None] = lambda _: None,
        advance: Callable[[str], Awaitable[float | None]] | None = None,
    ) -> None:
        self._store = store
        self._sender = sender
        self._job = job
        self._body = body
        self._outcome = outcome
        self._advance = advance
        self._batches: dict[str, asyncio.Task[None]] = {}
        self._attempts: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Send until cancelled."""
        while True:
            try:
                free = CONCURRENT - len(self._attempts)
                due = await self._store.due(free, LEASE_S) if free else []
                for name in due:
                    if not name.startswith(BATCH):
                        self._attempts[name] = asyncio.create_task(self._attempt(name))
                    elif name not in self._batches:
                        self._batches[name] = asyncio.create_task(self._slice(name))
            except QueueUnavailable:
                due = []
            except Exception:  # nothing may end this: what is due would stay so
                log.exception("webhooks and batches could not be looked for")
                due = []
            if not due:
                await asyncio.sleep(POLL_S)

    async def close(self) -> None:
        """End what is under way; it stays due."""
        tasks = [*self._batches.values(), *self._attempts.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _slice(self, name: str) -> None:
        """Do the next lines of a batch."""
        assert self._advance is not None
        keeping = asyncio.create_task(self._keep(name))
        try:
            seconds: float | None = 0.0
            while seconds == 0:
                await asyncio.sleep(0)  # for those who wait
                seconds = await self._advance(name.removeprefix(BATCH))
            keeping.cancel()
            await self._store.schedule(name, seconds)
        except ServiceError as error:  # it is due again when its lease ends
            log.warning("a batch was not gone on with", extra={"batch": name, "error": type(error).__name__})
        except Exception:
            log.exception("a batch failed", extra={"batch": name})
        finally:
            keeping.cancel()
            del self._batches[name]

    async def _keep(self, name: str) -> None:
        """Hold the lease of a batch for as long as its lines take."""
        while True:
            await asyncio.sleep(LEASE_S / 3)
            with contextlib.suppress(QueueUnavailable):
                await self._store.schedule(name, LEASE_S)

    async def _attempt(self, id: str) -> None:
        """One try; what goes wrong with it is no other's business."""
        try:
            await self._try(id)
        except ServiceError as error:  # the store cannot be reached: it is due again when its lease ends
            log.warning("a webhook was not tried", extra={"job": id, "error": type(error).__name__})
        except Exception:
            log.exception("a webhook failed", extra={"job": id})
        finally:
            del self._attempts[id]

    async def _try(self, id: str) -> None:
        seen = await self._store.read(f"hook:{id}")
        hook = seen.get(f"hook:{id}", HookRecord)
        if hook is None or hook.state in ("delivered", "dead"):
            await self._store.schedule(id, None)
            return
        job = None
        with contextlib.suppress(JobError):
            job = await self._job(id, hook.owner)
        first = hook.first_at or seen.now
        sent = replace(hook, state="pending", attempts=hook.attempts + 1, first_at=first, error="")
        try:
            with span("webhook", hook.trace, kind=SpanKind.CLIENT, attempt=sent.attempts):
                await self._sender.send(hook.url, f"msg_{id}", int(seen.now), self._body(id, job, seen.now))
            after = replace(sent, state="delivered")
        except AddressNotAllowed as error:
            after = replace(sent, state="dead", error=str(error))
        except OutsideFailed as error:
            over = seen.now - first >= GIVE_UP_S or "answered 410" in str(error)  # 410: they want no more of it
            after = replace(sent, state="dead" if over else "pending", error=str(error))
        self._outcome("failed" if after.state == "pending" else after.state)
        await self._store.commit(seen, Change(id, {f"hook:{id}": (after, KEEP_S)}))
        if after.state == "dead":
            log.warning("a webhook is given up", extra={"job": id, "attempts": after.attempts, "reason": after.error})
        await self._store.schedule(id, wait_after(after.attempts) if after.state == "pending" else None)


def wait_after(attempts: int) -> float:
    """Seconds until the next try: doubled each time up to two hours, drawn from the upper half."""
    longest: float = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(attempts - 1, 20))
    return longest * (0.5 + random.random() / 2)
