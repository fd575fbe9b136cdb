"""An engine without a codec: valid files of made-up symbols, gradients for images, knobs for what goes wrong."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable

import numpy as np

from model.config import rate_of_quality
from model.container import Header, Section, SectionType, pack
from service.engine.port import (
    DecodeRequest,
    DecodeResult,
    EncodeRequest,
    EncodeResult,
    EngineStatus,
    ModelInfo,
    OnProgress,
    Order,
    Outcome,
    Pixels,
)
from service.work import Progress

CODEC_ID = bytes.fromhex("00112233445566ff")
OTHER_ID = bytes.fromhex("ffeeddccbbaa9900")
LITE = ModelInfo(
    "lite",
    CODEC_ID.hex(),
    default_steps=17,
    max_steps=200,
    parameters=1000,
    default=True,
    reductions=(1, 2, 4),
    max_effort=9,
)
OTHER = ModelInfo("other", OTHER_ID.hex(), default_steps=200, max_steps=20000, parameters=2000, default=False)


def make_file(
    width: int, height: int, rate: int = 128, sections: tuple[Section, ...] = (), codec_id: bytes = CODEC_ID
) -> bytes:
    """Return a valid file whose symbols are noise."""
    noise = hashlib.shake_256(f"{width}x{height}@{rate}".encode()).digest(64)
    own = (Section(SectionType.HYPER, noise[:16]), Section(SectionType.LATENT, noise[16:]))
    return pack(Header(codec_id, width, height, rate), [*own, *sections])


def gradient(width: int, height: int) -> Pixels:
    """Return uint8 [height, width, 3]: red grows to the right, green downwards."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0] = np.linspace(0, 255, width, dtype=np.uint8)[None, :]
    pixels[..., 1] = np.linspace(0, 255, height, dtype=np.uint8)[:, None]
    return pixels


class FakeEngine:
    """Implements `service.engine.port.Engine`.

    Attributes:
        requests: all requests that came in.
        cancelled: those whose task was cancelled.
        gate: requests wait until it is open.
        delay: seconds that each request takes; 0 and an hour are good values.
        error: raised by every request instead of an answer.
        step_delay: seconds per denoising step.
    """

    def __init__(self) -> None:
        self.requests: list[Order] = []
        self.cancelled: list[Order] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.changed = asyncio.Event()  # set with every change of the two lists
        self.delay = 0.0
        self.step_delay = 0.0
        self.error: BaseException | None = None
        self.state = EngineStatus(ready=True, draining=False, waiting=0, running=0, restarts=0)
        self.status_calls = 0
        self.starts = 0
        self.stops: list[float] = []

    async def start(self) -> None:
        self.starts += 1

    async def stop(self, grace: float) -> None:
        self.stops.append(grace)

    async def run(self, order: Order, on_progress: OnProgress | None = None) -> Outcome:
        await self._work(order)
        return self._encode(order) if isinstance(order, EncodeRequest) else await self._decode(order, on_progress)

    def _encode(self, request: EncodeRequest) -> EncodeResult:
        height, width = request.pixels.shape[:2]
        quality = request.quality or 50
        rate = rate_of_quality(quality)
        data = make_file(width, height, rate, request.sections)
        bpp = 8 * len(data) / (width * height)
        target = "met" if request.max_bytes or request.target_bpp else None
        seconds = {"queue": 0.001, "transform": 0.002, "entropy": 0.003}
        return EncodeResult(data, LITE.name, LITE.codec_id, width, height, rate, quality, bpp, seconds, target)

    async def _decode(self, request: DecodeRequest, on_progress: OnProgress | None) -> DecodeResult:
        container = request.container
        header = container.header
        steps = request.steps or LITE.default_steps
        for step in range(1, steps + 1):
            if self.step_delay:
                await asyncio.sleep(self.step_delay)
            if on_progress is not None:
                on_progress(Progress(step, steps))
        pixels, region, n = gradient(header.width, header.height), request.region, request.reduction
        if region is not None:
            bottom, right = -(-(region.top + region.height) // n) * n, -(-(region.left + region.width) // n) * n
            pixels = pixels[region.top // n * n : bottom, region.left // n * n : right]
        return DecodeResult(
            pixels[::n, ::n],
            LITE.name,
            header.codec_id.hex(),
            steps,
            0.8 if request.gamma is None else request.gamma,
            request.seed if request.seed is not None else 7,
            tuple(s for s in container.sections if s.type not in (SectionType.HYPER, SectionType.LATENT)),
            {"queue": 0.001, "entropy": 0.002, "denoise": 0.003},
        )

    def seconds_of(self, cost: float) -> float:
        return self.state.backlog_seconds + 1e-6 * cost

    def models(self) -> tuple[ModelInfo, ...]:
        return (LITE, OTHER) if self.state.ready else ()

    def status(self) -> EngineStatus:
        self.status_calls += 1
        return self.state

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait for requests that come or are cancelled, on the engine's own event loop."""
        async with asyncio.timeout(5):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    async def _work(self, request: Order) -> None:
        self.requests.append(request)
        self.changed.set()
        try:
            await self.gate.wait()
            await asyncio.sleep(self.delay)
        except asyncio.CancelledError:
            self.cancelled.append(request)
            self.changed.set()
            raise
        if self.error is not None:
            raise self.error
