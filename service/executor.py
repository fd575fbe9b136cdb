"""Jobs and requests as calls of the codec service: what `Work` asks for, as an `Answer`. Knows no HTTP."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace
from typing import Any, Protocol

import anyio.to_thread

from model.container import read_header
from model.errors import CodecError
from service.codec.service import CodecService, DecodeOptions, EncodeOptions
from service.engine.job import Progress
from service.images.preview import preview_file
from service.jobs.port import OnStep
from service.jobs.records import Answer, Step, Work
from service.logs import request_id

CDC_TYPE = "image/x-cdc"
MEDIA_TYPES = {"png": "image/png", "webp": "image/webp", "jpeg": "image/jpeg"}


class RequestExecutor(Protocol):
    """What the routes need: an executor of direct requests that also tells what work costs."""

    async def admit(self, work: Work) -> Work:
        """Check all that shows without doing the work, before it is kept or waits; return it with its cost."""

    async def run(self, work: Work, on_step: OnStep | None = None, seconds_left: float = math.inf) -> Answer:
        """Do the work; `seconds_left` is what `steps=auto` has."""

    def cost_of(self, work: Work) -> int | None:
        """Pixels x denoising steps of a decode; None where that is not known."""


class CodecExecutor:
    """Implements `RequestExecutor` and `service.jobs.port.Executor` on a `CodecService`."""

    def __init__(self, service: CodecService) -> None:
        self._service = service

    async def run(self, work: Work, on_step: OnStep | None = None, seconds_left: float = math.inf) -> Answer:
        """See `Executor.run`; `seconds_left` is what `steps=auto` has."""
        if work.operation == "encode":
            return await self._encode(work)
        return await self._decode(work, on_step, seconds_left)

    async def admit(self, work: Work) -> Work:
        """See `RequestExecutor.admit`. Raises what `CodecService` says of its prices."""
        if work.operation == "encode":
            cost = await self._service.price_encode(work.body, EncodeOptions(**work.options))
        else:
            cost = await self._service.price_decode(work.body, DecodeOptions(**work.options))
        admitted = replace(work, cost=cost, request_id=request_id.get())
        await anyio.to_thread.run_sync(lambda: admitted.body_sha256)  # 64 MiB take longer than a loop may be held up
        return admitted

    def cost_of(self, work: Work) -> int | None:
        """Pixels x denoising steps of a decode; None for an encode, or a file whose header cannot be read."""
        if work.operation == "encode":
            return None
        try:
            header, _ = read_header(work.body)
        except CodecError:
            return None
        steps = work.options.get("steps")
        if not isinstance(steps, int):
            models = [m for m in self._service.engine.models() if m.codec_id == header.codec_id.hex()]
            steps = models[0].default_steps if models else 1
        return header.pixels * steps

    def generation(self) -> str:
        """See `Executor.generation`: name, codec id and version of every model."""
        models = sorted(self._service.engine.models(), key=lambda m: m.name)
        return ",".join(f"{m.name}:{m.codec_id}:{m.version}" for m in models)

    def seconds_of(self, work: Work) -> float:
        """See `Executor.seconds_of`."""
        engine = self._service.engine
        return engine.seconds_of(work.cost) - engine.seconds_of(0)

    async def _encode(self, work: Work) -> Answer:
        encoded = await self._service.encode(work.body, EncodeOptions(**work.options))
        result = encoded.result
        facts = {
            "bpp": f"{result.bpp:.5g}",
            "width": str(result.width),
            "height": str(result.height),
            "model": result.model,
            "codec-id": result.codec_id,
        }
        if result.quality is not None:
            facts["quality"] = str(result.quality)
        return Answer(result.data, CDC_TYPE, encoded.digest, facts, encoded.seconds)

    async def _decode(self, work: Work, on_step: OnStep | None, seconds_left: float) -> Answer:
        values: dict[str, Any] = {**work.options, "previews": work.previews}
        options = DecodeOptions(**{"seconds_left": seconds_left, **values})
        relay = _Relay(on_step) if on_step is not None else None
        decoded = await self._service.decode(work.body, options, relay.put if relay else None)
        if relay is not None:
            await relay.flush()
        result = decoded.result
        height, width = result.pixels.shape[:2]
        facts = {
            "bpp": f"{result.bpp:.5g}",
            "width": str(width),
            "height": str(height),
            "model": result.model,
            "codec-id": result.codec_id,
            "steps": str(result.steps),
            "gamma": f"{result.gamma:g}",
            "seed": str(result.seed),
        }
        return Answer(decoded.data, MEDIA_TYPES[options.format], decoded.digest, facts, decoded.seconds)


class _Relay:
    """Passes steps on in order, with their previews made into files in a thread."""

    def __init__(self, on_step: OnStep) -> None:
        self._on_step = on_step
        self._last: asyncio.Task[None] | None = None

    def put(self, progress: Progress) -> None:
        """Take a step from the engine, on the event loop."""
        self._last = asyncio.create_task(self._pass_on(progress, self._last))

    async def flush(self) -> None:
        """Wait until all that was put has been passed on."""
        if self._last is not None:
            await self._last

    async def _pass_on(self, progress: Progress, before: asyncio.Task[None] | None) -> None:
        preview = None
        if progress.preview is not None:
            preview = await anyio.to_thread.run_sync(preview_file, progress.preview)
        if before is not None:
            await before
        self._on_step(Step(progress.step, progress.steps, preview))
