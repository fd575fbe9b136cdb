"""The worker's side of the engine: the only file of the service that knows torch and the codec.

Requests run one after the other, in the order they came; between any two denoising steps a cancelled one is dropped.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch

from model.container import parse
from model.errors import CodecError
from model.rate_control import pack_to_target
from model.registry import DEFAULT_MODEL, Registry
from service.engine.job import (
    DecodeRequest,
    DecodeResult,
    EncodeRequest,
    EncodeResult,
    ModelInfo,
    OnProgress,
    Progress,
    Request,
    Result,
)
from service.engine.messages import Advanced, Cancel, Failed, Finished, Ready, RunnerOptions, Started, Submit
from service.errors import Busy, Cancelled, ServiceError

log = logging.getLogger(__name__)
WARM_UP_SIDE = 64


class Runner:
    """Runs one request at a time on the installed models."""

    def __init__(self, models_dir: Path | None, precision: str, threads: int) -> None:
        """Find the models. Raises `model.errors.WeightsError`."""
        if threads:
            torch.set_num_threads(threads)
        torch.set_flush_denormal(True)
        self.registry = Registry(models_dir, precision)  # type: ignore[arg-type]

    def models(self) -> tuple[ModelInfo, ...]:
        """Load every installed model and describe it."""
        out = []
        for info in self.registry.infos():
            codec = self.registry.get(info.name)
            is_default = info.name == DEFAULT_MODEL
            steps, length = codec.default_steps, codec.schedule.length
            out.append(ModelInfo(info.name, info.codec_id, steps, length, codec.parameters, is_default))
        return tuple(out)

    def warm_up(self) -> None:
        """Run a small picture through, so that the first request does not pay for lazy initialisation."""
        codec = self.registry.get()
        data = codec.pack(codec.analyse(np.zeros((WARM_UP_SIDE, WARM_UP_SIDE, 3), np.uint8)), 128)
        codec.decode(data, steps=1)

    def run(self, request: Request, on_progress: OnProgress, check: Callable[[], None]) -> Result:
        """Run a request; `check` is called between steps and raises to abandon it.

        Raises:
            CodecError: the request is at fault.
        """
        if isinstance(request, EncodeRequest):
            return self._encode(request, check)
        return self._decode(request, on_progress, check)

    def _encode(self, request: EncodeRequest, check: Callable[[], None]) -> EncodeResult:
        codec = self.registry.get(request.model)
        start = time.perf_counter()
        latents = codec.analyse(request.pixels)
        analysed = time.perf_counter()
        packed = pack_to_target(
            codec,
            latents,
            quality=request.quality,
            target_bpp=request.target_bpp,
            max_bytes=request.max_bytes,
            sections=request.sections,
            between=check,
        )
        return EncodeResult(
            data=packed.data,
            model=codec.info.name,
            codec_id=codec.codec_id.hex(),
            width=latents.width,
            height=latents.height,
            rate=packed.rate,
            quality=packed.quality,
            bpp=8 * len(packed.data) / (latents.width * latents.height),
            seconds={"analysis": analysed - start, "entropy": time.perf_counter() - analysed},
        )

    def _decode(self, request: DecodeRequest, on_progress: OnProgress, check: Callable[[], None]) -> DecodeResult:
        container = parse(request.data, request.max_pixels)
        header = container.header
        codec = self.registry.for_file(header.codec_id, request.model)
        begin = time.perf_counter()
        unpacked = codec.unpack(container)
        entropy_done = time.perf_counter()
        state = codec.start(unpacked, request.steps, request.gamma, request.seed)
        steps = state.steps
        while not state.done:
            check()
            codec.denoise_step(state)
            on_progress(Progress(state.position, steps))
        pixels = codec.finish(state)
        return DecodeResult(
            pixels=pixels,
            model=codec.info.name,
            codec_id=codec.codec_id.hex(),
            rate=header.rate,
            bpp=8 * len(request.data) / header.pixels,
            steps=steps,
            gamma=request.gamma,
            seed=unpacked.seed if request.seed is None else request.seed,
            sections=unpacked.sections,
            seconds={"entropy": entropy_done - begin, "denoise": time.perf_counter() - entropy_done},
        )


def main(pipe: Connection, options: RunnerOptions) -> None:
    """Body of the worker process: read messages in a thread, run jobs in this one, until told to leave."""
    runner = Runner(options.models_dir, options.precision, options.threads)
    models = runner.models()
    runner.warm_up()
    jobs: queue.SimpleQueue[tuple[Submit, float] | None] = queue.SimpleQueue()
    cancelled: set[int] = set()
    threading.Thread(target=_listen, args=(pipe, jobs, cancelled), daemon=True).start()
    pipe.send(Ready(models))
    while (entry := jobs.get()) is not None:
        submitted, arrival = entry
        _run_job(runner, submitted, arrival, cancelled, pipe)


def _listen(pipe: Connection, jobs: queue.SimpleQueue[tuple[Submit, float] | None], cancelled: set[int]) -> None:
    while True:
        try:
            message = pipe.recv()
        except (EOFError, OSError):  # the parent is gone: nobody is left to work for
            message = None
        if isinstance(message, Submit):
            jobs.put((message, time.perf_counter()))
        elif isinstance(message, Cancel):
            cancelled.add(message.job)
        else:
            jobs.put(None)
            return


def _run_job(runner: Runner, submitted: Submit, arrival: float, cancelled: set[int], pipe: Connection) -> None:
    job = submitted.job

    def check() -> None:
        if job in cancelled:
            raise Cancelled("the caller went away")

    try:
        check()
        waited = time.perf_counter() - arrival
        pipe.send(Started(job))
        result = runner.run(submitted.request, lambda progress: pipe.send(Advanced(job, progress)), check)
        pipe.send(Finished(job, _with_queue_time(result, waited)))
    except (CodecError, ServiceError) as error:
        pipe.send(Failed(job, error))
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "alloc" not in str(error).lower():
            raise  # a defect of ours: the worker ends and is replaced, and the log has the traceback
        log.exception("out of memory in job %d", job)
        pipe.send(Failed(job, Busy("not enough memory for this picture at present", retry_after=10.0)))
    finally:
        cancelled.discard(job)


def _with_queue_time(result: Result, waited: float) -> Result:
    return replace(result, seconds={"queue": waited, **result.seconds})
