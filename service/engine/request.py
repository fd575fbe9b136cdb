"""One request in the worker process: what it is, how far it is, and what the scheduler knows of it. No torch."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Literal, Protocol

from service.engine.port import WEIGHT, Kind
from service.work import Progress


@dataclass(frozen=True)
class Key:
    """What tiles must have in common to share a forward pass: model, network, height and width in pixels.

    `step_cost` is the work of the model's denoising step per pixel, relative to cdc-lite's.
    """

    model: str
    kind: Kind
    shape: tuple[int, int]
    step_cost: float = 1.0

    @property
    def cost(self) -> float:
        """Cost of one row, in pixels of one denoising step."""
        return self.step_cost * WEIGHT[self.kind] * self.shape[0] * self.shape[1]


@dataclass(frozen=True)
class Unit:
    """One tile of one request, ready to run. `alone` asks for a forward pass of its own (`deterministic=true`)."""

    request: int
    tile: int
    key: Key
    alone: bool = False


Report = Callable[[Progress], None]  # how far a refinement is; raises when nobody waits for it


class Task(Protocol):
    """What is done for a request, on the device and beside it."""

    def prepare(self) -> None:
        """Everything before the first tile; runs in a CPU thread. Raises CodecError."""

    def ready(self) -> list[Unit]:
        """Tiles that became ready since the last call."""

    def progress(self) -> Progress | None:
        """How far it is, if that changed since the last call."""

    def done(self) -> bool:
        """True when no tile is left."""

    @property
    def refines(self) -> bool:
        """True when `refine` has to run between the last tile and the end."""

    def refine(self, report: Report) -> None:
        """Minutes of work on one image, in a thread for such; `report` is called often."""

    @property
    def company(self) -> Hashable | None:
        """Tasks of equal companies may be finished together; None: alone. Asked for when no tile is left."""


class Status(Enum):
    """How far a request is. The scheduler moves it up to RUNNING, the loop from there."""

    WAITING = auto()
    PREPARING = auto()
    RUNNING = auto()
    FINISHING = auto()
    ENDED = auto()


@dataclass(eq=False)
class Request:
    """A request from its arrival to its end.

    Attributes:
        number: what names it in messages.
        task: what is done for it.
        cost, area: estimates, in pixels of one denoising step: of all its work, and of a step of all its tiles.
        arrival, started, ticking: when it came, when it was first worked on, when its first tile could run; seconds.
        request_id: for the logs.
        cancelled: nobody waits for it any more.
        passes: seconds of the passes it took part in, by stage: each of them whole, the rows of others included.
        start_tag, order, remaining, ready: for fair queueing, see `scheduler`; the last are its tiles that can run.
    """

    number: int
    task: Task
    cost: float
    area: float = 0.0
    arrival: float = 0.0
    request_id: str | None = None
    status: Status = Status.WAITING
    cancelled: bool = False
    started: float = 0.0
    ticking: float = 0.0
    passes: dict[str, float] = field(default_factory=dict)
    start_tag: float = 0.0
    order: int = 0
    remaining: float = 0.0
    ready: deque[Unit] = field(default_factory=deque)

    def stages(self, now: float, own: Mapping[str, float]) -> dict[str, float]:
        """Seconds by stage; `queue` is all time in which nothing was done for this request."""
        waited = (self.started - self.arrival) + (now - self.ticking - sum(self.passes.values()))
        return {"queue": max(0.0, waited), **own, **self.passes}


Stage = Literal["analysis", "conditioning", "denoise"]
STAGES: Mapping[Kind, Stage] = {
    "analyse": "analysis",
    "condition": "conditioning",
    "half": "conditioning",
    "quarter": "conditioning",
    "denoise": "denoise",
}
