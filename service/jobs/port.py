"""The job port: what the API needs of a job queue, wherever it runs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Protocol

from service.jobs.records import Answer, Event, Job, Step, Work

OnStep = Callable[[Step], None]


class Executor(Protocol):
    """Does the work of a job. Errors are those of `model.errors` and `service.errors`."""

    async def run(self, work: Work, on_step: OnStep | None = None) -> Answer:
        """Do it. Cancelling the awaiting task cancels the work within one denoising step."""

    def generation(self) -> str:
        """What answers depend on beside the work: answers of another generation are not given again."""

    def seconds_of(self, work: Work) -> float:
        """Estimate the device seconds of the work alone."""


@dataclass(frozen=True)
class JobLimits:
    """How much a backend keeps.

    Attributes:
        result_ttl_s: seconds a result is kept after the end of its job.
        gone_ttl_s: seconds after that during which the job is known to have existed.
        max_queued: executions that may wait.
        max_running: executions at the same time; they share the engine's forward passes.
        max_bytes: bodies, results and previews together.
    """

    result_ttl_s: float = 3600.0
    gone_ttl_s: float = 86_400.0
    max_queued: int = 1000
    max_running: int = 16
    max_bytes: int = 512 << 20


class JobBackend(Protocol):
    """Keeps jobs and has them executed. A job is visible to its owner alone: to others it does not exist. Owner None
    stands for who came by a link and was found to have the right to it.

    Errors of all methods that take an id: UnknownJob (never was, or somebody else's), JobExpired.
    """

    async def start(self) -> None:
        """Begin to take jobs."""

    async def stop(self, grace: float) -> None:
        """Take no more jobs; give running ones up to `grace` seconds."""

    async def submit(self, work: Work, owner: str, key: str | None = None) -> Job:
        """Take a job.

        Identical repeatable work, in flight or kept, is executed once; each submission has a record of its own.

        Args:
            work: what is to be done.
            owner: who submits it.
            key: idempotency key: the same key of the same owner gives the same job.

        Raises:
            KeyReused: the key came with other work before.
            Busy: too much is queued or kept.
            Draining: the backend stops.
        """

    async def get(self, id: str, owner: str | None) -> Job:
        """Return the job as it stands."""

    async def wait(self, id: str, owner: str, seconds: float) -> Job:
        """Return the job when it has ended, or as it stands after `seconds`."""

    async def cancel(self, id: str, owner: str) -> Job:
        """Cancel the job if it has not ended; its execution ends where no other job needs it."""

    async def result(self, id: str, owner: str | None) -> Answer:
        """Return the result.

        Raises:
            JobNotFinished: it is queued or running.
            JobCancelled: it was cancelled.
            The job's own error, if it failed.
        """

    def events(self, id: str, owner: str, after: int = 0) -> AsyncIterator[Event]:
        """Yield the events with ids above `after`, as they happen; ends after the job's last one."""

    def counts(self) -> dict[str, int]:
        """Return how many jobs there are in each state, as last known; never blocks."""
