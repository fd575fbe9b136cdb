"""Who is let in: by estimated device time and by estimated memory. No torch."""

from __future__ import annotations

from dataclasses import dataclass

from service.engine.job import EncodeRequest, ModelInfo, Request
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
    """

    cost: float
    area: float
    bytes: int


def estimate(request: Request, models: tuple[ModelInfo, ...]) -> Estimate:
    """Estimate a request from its picture's size alone."""
    if isinstance(request, EncodeRequest):
        height, width = request.pixels.shape[:2]
        name = request.model
        info = next((m for m in models if m.name == name or (name is None and m.default)), models[0])
        cost = info.encode_cost(width, height)
        return Estimate(cost, cost, info.encode_bytes * info.encode_pixels(width, height))
    header = request.container.header
    codec_id = header.codec_id.hex()
    fitting = [m for m in models if (m.name == request.model if request.model else m.codec_id == codec_id)] or models
    steps = request.steps if request.steps is not None else max(m.default_steps for m in fitting)
    return Estimate(
        cost=max(m.decode_cost(header.width, header.height, steps) for m in fitting),
        area=max(m.step_cost * m.decode_pixels(header.width, header.height) for m in fitting),
        bytes=max(m.decode_bytes * m.decode_pixels(header.width, header.height) for m in fitting),
    )


@dataclass(frozen=True)
class Gate:
    """The limits of one device.

    Attributes:
        max_backlog_seconds: device time that may be waiting when a request comes; more is answered `Busy`.
        max_bytes: memory of all accepted requests together; a single one is always let in.
    """

    max_backlog_seconds: float
    max_bytes: int

    def check(self, new: Estimate, backlog_seconds: float, held_bytes: int) -> None:
        """Raise Busy, with the seconds after which there will be room, when the device has enough to do."""
        if backlog_seconds > self.max_backlog_seconds:
            wait = max(MIN_RETRY_SECONDS, backlog_seconds - self.max_backlog_seconds)
            raise Busy(f"{backlog_seconds:.0f} s of work are waiting", retry_after=wait)
        if held_bytes and held_bytes + new.bytes > self.max_bytes:
            wait = max(MIN_RETRY_SECONDS, backlog_seconds)
            raise Busy("the pictures in work fill the memory set aside for them", retry_after=wait)


def default_memory() -> int:
    """Half of the memory that this process may use, in bytes."""
    return memory_limit() // 2
