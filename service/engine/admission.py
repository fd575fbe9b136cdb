"""Who is let in: by estimated device time and by estimated memory. No torch."""

from __future__ import annotations

import os
from dataclasses import dataclass

from model.container import read_header
from service.engine.job import DecodeRequest, EncodeRequest, ModelInfo, Request
from service.errors import Busy

ENCODE_COST = 0.5  # of one denoising step
CONDITION_COST = 0.5
MIN_RETRY_SECONDS = 1.0
GUESSED_SECONDS_PER_COST = 1e-6  # until a worker has measured its device


@dataclass(frozen=True)
class Estimate:
    """What a request will take: `cost` in pixels of one denoising step, `bytes` in the worker's memory."""

    cost: float
    bytes: int


def estimate(request: Request, models: tuple[ModelInfo, ...]) -> Estimate:
    """Estimate a request from its header alone. Raises FileError for a file without a readable one."""
    if isinstance(request, EncodeRequest):
        pixels = request.pixels.shape[0] * request.pixels.shape[1]
        name = request.model
        chosen = next((m for m in models if m.name == name or (name is None and m.default)), models[0])
        return Estimate(ENCODE_COST * chosen.step_cost * pixels, chosen.encode_bytes * pixels)
    return Estimate(*_decode(request, models))


def _decode(request: DecodeRequest, models: tuple[ModelInfo, ...]) -> tuple[float, int]:
    header = read_header(request.data)[0]
    codec_id = header.codec_id.hex()
    fitting = [m for m in models if (m.name == request.model if request.model else m.codec_id == codec_id)] or models
    steps = request.steps if request.steps is not None else max(m.default_steps for m in fitting)
    cost = (CONDITION_COST + steps) * max(m.step_cost for m in fitting) * header.pixels
    return cost, max(m.decode_bytes for m in fitting) * header.pixels


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
    """Half of the machine's memory, in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
