"""Who is let in: by estimated device time and by estimated memory. Whoever is in holds a permit. No torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from model.config import rounds_of
from service.engine.port import Decode, EncodeRequest, ModelInfo, Order
from service.errors import Busy
from service.machine import memory_limit

MIN_RETRY_SECONDS = 1.0
GUESSED_SECONDS_PER_COST = 1e-6  # until a worker has measured its device


@dataclass(frozen=True)
class Estimate:
    """What a request will take.

    Attributes:
        cost: device work, in pixels of one denoising step.
        area: that of one step, or of the encoder's single pass.
        bytes: in the worker's memory.
        refinement: work of an encode with effort beside the passes, in the unit of `cost`; one at a time.
    """

    cost: float
    area: float
    bytes: int
    refinement: float = 0.0


def estimate(order: Order, models: tuple[ModelInfo, ...]) -> Estimate:
    """Estimate a request from sizes alone."""
    if isinstance(order, EncodeRequest):
        height, width = order.pixels.shape[:2]
        name = order.model
        info = next((m for m in models if m.name == name or (name is None and m.default)), models[0])
        rounds = rounds_of(order.effort)
        cost, sized = info.encode_cost(width, height), order.target_bpp is not None or order.max_bytes is not None
        refinement = info.refinement_cost(width, height, rounds, sized=sized)
        return Estimate(cost, cost, info.encode_bytes_of(width, height, rounds), refinement)
    header = order.container.header
    codec_id = header.codec_id.hex()
    fitting = [m for m in models if (m.name == order.model if order.model else m.codec_id == codec_id)] or models
    works = [
        Decode(
            header.width,
            header.height,
            m.default_steps if order.steps is None else order.steps,
            order.region,
            noiseless=(m.default_gamma if order.gamma is None else order.gamma) == 0,
            reduction=order.reduction,
        )
        for m in fitting
    ]
    pairs = list(zip(fitting, works, strict=True))
    return Estimate(
        cost=max(m.decode_cost(work) for m, work in pairs),
        area=max(m.step_cost * m.decode_pixels(work) for m, work in pairs),
        bytes=max(m.decode_bytes_of(work) for m, work in pairs),
    )


@dataclass(eq=False)
class Permit:
    """A place in the work of one device, from admission until it is given back; `share_done` is 0..1."""

    estimate: Estimate
    admission: Admission
    share_done: float = 0.0

    @property
    def cost_left(self) -> float:
        """Device work that is still to be done for it."""
        return self.estimate.cost * (1 - self.share_done)

    @property
    def refinement_left(self) -> float:
        """Refinement that is still to be done for it."""
        return self.estimate.refinement * (1 - self.share_done)

    def move(self, admission: Admission) -> None:
        """Take the same place on another device, whatever its limits: this request was promised; begin anew."""
        self.give_back()
        self.admission, self.share_done = admission, 0.0
        admission.permits.add(self)

    def give_back(self) -> None:
        """Leave; further calls change nothing."""
        self.admission.permits.discard(self)


@dataclass
class Admission:
    """The door of one device.

    Attributes:
        max_waiting: requests in flight beyond one.
        max_backlog_seconds: device time that may be waiting when a request comes; of refinements as much again.
        max_bytes: memory of all requests in work together; a single one is always let in.
        seconds_per_cost: of the device.
        permits: of all that are in.
    """

    max_waiting: int
    max_backlog_seconds: float
    max_bytes: int
    seconds_per_cost: float = GUESSED_SECONDS_PER_COST
    permits: set[Permit] = field(default_factory=set)

    @property
    def backlog_seconds(self) -> float:
        """Estimated time of the passes of all that are in: what whoever comes waits for."""
        permits = list(self.permits)  # in one piece: metrics are read from other threads
        return self.seconds_per_cost * sum(permit.cost_left for permit in permits)

    @property
    def refinement_seconds(self) -> float:
        """Estimated time of the refinements of all that are in, for which further refinements alone wait."""
        return self.seconds_per_cost * sum(permit.refinement_left for permit in list(self.permits))

    def admit(self, new: Estimate) -> Permit:
        """Let a request in. Raises Busy, with the seconds after which there will be room."""
        backlog = self.backlog_seconds
        if len(self.permits) > self.max_waiting:
            raise Busy(f"{len(self.permits)} requests are waiting", retry_after=max(MIN_RETRY_SECONDS, backlog))
        if backlog > self.max_backlog_seconds:
            wait = max(MIN_RETRY_SECONDS, backlog - self.max_backlog_seconds)
            raise Busy(f"{backlog:.0f} s of work are waiting", retry_after=wait)
        if new.refinement and (refining := self.refinement_seconds) > self.max_backlog_seconds:
            wait = max(MIN_RETRY_SECONDS, refining - self.max_backlog_seconds)
            raise Busy(f"{refining:.0f} s of refinement are waiting", retry_after=wait)
        held = sum(permit.estimate.bytes for permit in self.permits)
        if held and held + new.bytes > self.max_bytes:
            wait = max(MIN_RETRY_SECONDS, backlog)
            raise Busy("the images in work fill the memory set aside for them", retry_after=wait)
        permit = Permit(new, self)
        self.permits.add(permit)
        return permit


def default_memory() -> int:
    """Half of the memory that this process may use, in bytes."""
    return memory_limit() // 2
