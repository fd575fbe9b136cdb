"""What the application holds for its routes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from service.access.gate import Gate
from service.access.links import Links
from service.jobs.batches import Batches
from service.jobs.executor import Door
from service.jobs.hooks import Hooks
from service.jobs.limits import Budget
from service.jobs.service import Jobs
from service.metrics import Metrics
from service.outside.fetching import Sources
from service.outside.sinks import Sinks
from service.outside.webhooks import Webhooks
from service.settings import Settings


@dataclass(frozen=True)
class State:
    """The parts of one application, wired in `create_app`.

    Attributes:
        door: checks uploads and makes work of them.
        jobs: does all work, for those who wait and those who come back.
        gate: admits callers.
        links: makes and opens links to results.
        uploads: how many requests are in work; each has its whole body.
        sources: reads the files that requests name.
        sinks: puts results where lines of batches want them.
        batches: keeps batches and works them off.
        fetched: bytes of such files that are held.
        webhooks: checks where webhooks may go, and sends them.
        hooks: sends those that are due.
        close_queue: closes the connections of the job queue, where there is one.
    """

    settings: Settings
    door: Door
    jobs: Jobs
    metrics: Metrics
    gate: Gate
    links: Links
    uploads: Budget
    sources: Sources
    sinks: Sinks
    batches: Batches
    fetched: Budget
    webhooks: Webhooks
    hooks: Hooks
    close_queue: Callable[[], Awaitable[None]] | None = None


async def get_state(request: Request) -> State:
    """Return the state of the application that serves `request`."""
    state = request.app.state.parts
    assert isinstance(state, State)
    return state


StateOf = Annotated[State, Depends(get_state)]
