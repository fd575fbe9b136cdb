"""The store port: records that change by compare and swap, lists of events, bytes, and a queue. No rules of jobs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from service.jobs.blobs import BlobStore
from service.jobs.records import Entry, Execution, Record, ShareRecord
from service.work import Work, WorkState

RETRY_S = 1.0  # after which what was refused is delivered again
KEEP_S = 7 * 86_400.0  # how long an unfinished job is kept
R = TypeVar("R", bound=Record)
Puts = dict[str, tuple[Record | None, float]]


class Nack(Exception):
    """Raised by what runs executions: it cannot do this one now, which goes back into the queue."""


@dataclass
class Snapshot:
    """What was read: records by key, with what the store needs to know them again; `now` is the store's clock."""

    records: dict[str, Record | None] = field(default_factory=dict)
    tokens: dict[str, Any] = field(default_factory=dict)
    now: float = 0.0

    def get(self, key: str, kind: type[R]) -> R | None:
        """Return the record at a key, None where there is none."""
        found = self.records.get(key)
        return found if isinstance(found, kind) else None


@dataclass(frozen=True)
class Change:
    """What is to become of records, all of it or nothing.

    Attributes:
        puts: key -> the new record and the seconds it lives; None removes it.
        keep: key -> seconds that a record which does not change is to live from now.
        execution: the one that this is about: those who watch it are woken.
        events: to be appended to its list.
        ended: jobs that come to an end, with how and when they expire, to be counted.
        notify: jobs whose webhooks, and batches ("batch:ID") whose next lines, are due from now on.
        listed: a new job and its owner, to be found by that.
    """

    execution: str
    puts: Puts
    keep: Mapping[str, float] = field(default_factory=dict)
    events: tuple[Entry, ...] = ()
    ended: tuple[tuple[str, WorkState, float], ...] = ()
    notify: tuple[str, ...] = ()
    listed: tuple[str, str] | None = None


@dataclass(frozen=True)
class Place:
    """The queue as an execution in it sees it: how many come first, how many wait and run, device seconds of all."""

    rank: int | None
    waiting: int
    running: int
    seconds: float


class Signal:
    """Set by every notification since the last wait, so that none is missed between looking and waiting."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def set(self) -> None:
        """Something happened."""
        self._event.set()

    async def wait(self, seconds: float) -> None:
        """Return at a notification since the last call, or after `seconds`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._event.wait()
        self._event.clear()


class Watchers:
    """Who is to be woken when something happens to an execution."""

    def __init__(self) -> None:
        self._signals: dict[str, set[Signal]] = {}

    @contextmanager
    def of(self, execution: str) -> Iterator[Signal]:
        """A signal that is set whenever something happens to the execution."""
        signal = Signal()
        own = self._signals.setdefault(execution, set())
        own.add(signal)
        try:
            yield signal
        finally:
            own.discard(signal)
            if not own:
                self._signals.pop(execution, None)

    def wake(self, execution: str) -> None:
        """Something happened to it."""
        for signal in self._signals.get(execution, ()):
            signal.set()

    def wake_all(self) -> None:
        """Something may have happened to any."""
        for execution in list(self._signals):
            self.wake(execution)


class Store(Protocol):
    """Where the job road keeps what it knows. Its methods raise QueueUnavailable where that cannot be reached.

    Keys are "job:ID", "exec:ID", "key:SHA", "share:SHA", "hook:JOB" and "batch:ID". In the
    queue is each execution whose state is QUEUED.
    """

    blobs: BlobStore  # results and previews
    in_process: bool  # memory and workers are this process's: direct requests start at once and leave nothing behind

    async def start(self) -> None:
        """Begin to listen for what others do."""

    async def stop(self, grace: float) -> None:
        """Listen no more; work that runs in this process has up to `grace` seconds."""

    async def read(self, *keys: str, into: Snapshot | None = None) -> Snapshot:
        """Return the records at `keys`, together with those of an earlier snapshot."""

    async def commit(self, seen: Snapshot, change: Change) -> bool:
        """Change records if all that change are as in `seen`, which may lack new ones; False, and nothing, if not.

        Sent twice, because an answer was lost, a change is made once.
        """

    async def events(self, execution: str, start: int) -> list[Entry]:
        """The events of an execution from the `start`-th on."""

    def watch(self, execution: str) -> AbstractContextManager[Signal]:
        """A signal that is set when something happens to the execution."""

    async def beat(self, execution: str, now: float) -> None:
        """Note a sign of life of a running execution."""

    async def overdue(self, age_s: float) -> list[str]:
        """Executions queued for longer than `age_s` seconds, and running ones without a sign of life for as long."""

    async def place(self, execution: str) -> Place:
        """The queue as an execution sees it."""

    async def due(self, limit: int, lease_s: float) -> list[str]:
        """Jobs whose webhooks are due, and batches.

        Each comes again after `lease_s` seconds, unless `schedule` says otherwise.
        """

    async def schedule(self, job: str, seconds: float | None) -> None:
        """Make the webhook of a job, or a batch, due in so many seconds; None: never again."""

    async def owned(self, owner: str, after: str | None, limit: int) -> list[str]:
        """Jobs of an owner, the newest first, from the one behind `after` on; those that are gone may be among them."""

    def check_room(self, size: int) -> None:
        """Raise Busy where there is no room for a job with `size` more bytes."""

    async def keep(self, execution: str, work: Work) -> None:
        """Keep the upload of an execution until `drop`."""

    async def fetch(self, execution: str) -> Work | bytes | None:
        """Return the upload: the work itself in the process that took it, else its body; None if it is gone."""

    async def drop(self, execution: str) -> None:
        """Let the upload go."""

    async def deliver(self, execution: str, *, at_once: bool) -> None:
        """Hand an execution to a worker, once or more; `at_once` does not wait for those before it, where it can."""

    def counts(self) -> dict[str, int]:
        """Jobs in each state, as last known; never blocks."""


def left(execution: Execution, seen: Snapshot) -> float:
    """Seconds until a result expires."""
    return max(0.0, (execution.expires_at or 0.0) - seen.now)


async def unshared(store: Store, seen: Snapshot, execution: str, share: str) -> Puts:
    """What takes an execution away from those who look for identical work: nothing, where another is found there."""
    if not share:
        return {}
    shared = (await store.read(f"share:{share}", into=seen)).get(f"share:{share}", ShareRecord)
    return {f"share:{share}": (None, 0.0)} if shared is not None and shared.execution == execution else {}
