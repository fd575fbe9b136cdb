"""What the application holds for its routes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import Depends, Request

from service.access.gate import Gate
from service.access.links import Links
from service.codec.limits import Budget
from service.codec.service import CodecService
from service.executor import RequestExecutor
from service.jobs.port import JobBackend
from service.metrics import Metrics
from service.settings import Settings


@dataclass(frozen=True)
class State:
    """The parts of one application, wired in `create_app`.

    Attributes:
        executor: does the work of requests.
        jobs: keeps the work that outlives its request.
        gate: admits callers.
        links: makes and opens links to results.
        uploads: how many requests are in work; each has its whole body.
        close_queue: closes the connections of the job queue, where there is one.
        abandoned: cancelled work that has not ended yet.
    """

    settings: Settings
    service: CodecService
    executor: RequestExecutor
    jobs: JobBackend
    metrics: Metrics
    gate: Gate
    links: Links
    uploads: Budget
    close_queue: Callable[[], Awaitable[None]] | None = None
    abandoned: set[asyncio.Task[Any]] = field(default_factory=set)


async def get_state(request: Request) -> State:
    """Return the state of the application that serves `request`."""
    state = request.app.state.parts
    assert isinstance(state, State)
    return state


StateOf = Annotated[State, Depends(get_state)]
