"""What an owner sees of a job: the job itself, and its events. Pure functions of what is stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from service.jobs.records import Entry, Event, Execution, Job, JobRecord
from service.jobs.store import Place
from service.work import Progress, WorkState


def job_of(id: str, record: JobRecord, execution: Execution, place: Place | None) -> Job:
    """The job as it stands; `place` is needed while it is queued. What runs is taken to be like what waits."""
    cancelled = record.cancelled_at is not None
    state = WorkState.CANCELLED if cancelled else execution.state
    ahead, rank, estimate = 0.0, None, None
    if place is not None and place.rank is not None:
        rank = place.rank
        ahead = (rank + place.running) * place.seconds / max(1, place.waiting)
    if not state.ended:
        left = 1 - execution.step / execution.step_of if execution.step and execution.step_of else 1.0
        estimate = round(ahead + left * execution.seconds, 3)
    return Job(
        id=id,
        owner=record.owner,
        operation=record.operation,
        state=state,
        created_at=record.created_at,
        started_at=execution.started_at,
        finished_at=record.cancelled_at if cancelled else execution.finished_at,
        expires_at=record.expires_at if cancelled else execution.expires_at,
        position=rank if state is WorkState.QUEUED else None,
        estimate_seconds=estimate,
        step=execution.step,
        steps=execution.step_of,
        failure=execution.failure if state is WorkState.FAILED else None,
        result=execution.result if state is WorkState.SUCCEEDED else None,
    )


def events_of(
    job: Job, record: JobRecord, execution: Execution, entries: Sequence[Entry], last: int
) -> tuple[list[tuple[Event, str]], bool]:
    """The events of a job with ids above `last`, each with the name of its preview, and whether that is all for ever.

    Ids follow from what is stored: 1 is "queued"; 2 is "running" for a job that joined a running execution; then come
    the execution's events from the `record.joined`-th on, of which `entries` are those not seen yet; a cancelled job
    ends where it was cancelled.
    """
    found: list[tuple[Event, str]] = []
    if last < 1:
        found.append((Event(1, "state", _earlier(job, WorkState.QUEUED)), ""))
    if record.told == 2 and last < 2:
        found.append((Event(2, "state", _earlier(job, WorkState.RUNNING)), ""))
    start = record.joined + max(0, last - record.told)
    stop = execution.events if record.cancelled_events is None else record.cancelled_events
    over = False
    for number, entry in enumerate(entries[: max(0, stop - start)], start):
        id = record.told + 1 + number - record.joined
        if entry.state is None:
            kind, preview = ("preview" if entry.preview else "progress"), entry.preview
            found.append((Event(id, kind, Progress(entry.step, entry.steps)), preview))  # type: ignore[arg-type]
        elif entry.state.ended:
            over = True
            found.append((Event(id, "state", job), ""))
        else:
            found.append((Event(id, "state", _earlier(job, entry.state)), ""))
    if record.cancelled_events is not None:
        final = record.told + 1 + record.cancelled_events - record.joined
        if last < final:
            found.append((Event(final, "state", job), ""))
        over = True
    return found, over or (job.state.ended and last >= record.told + execution.events - record.joined)


def _earlier(job: Job, state: WorkState) -> Job:
    """The job as it was when it came into an earlier state."""
    started = job.started_at if state is WorkState.RUNNING else None
    return replace(
        Job(job.id, job.owner, job.operation, state, job.created_at, started),
    )
