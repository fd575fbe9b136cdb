"""The API's side of the engine: a spawned worker process, watched and replaced when it dies. Never imports torch."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, cast

from service.engine.job import (
    DecodeRequest,
    DecodeResult,
    EncodeRequest,
    EncodeResult,
    EngineStatus,
    ModelInfo,
    OnProgress,
    Request,
    Result,
)
from service.engine.messages import (
    Advanced,
    Cancel,
    Failed,
    Finished,
    FromWorker,
    Ready,
    RunnerOptions,
    Started,
    Submit,
    ToWorker,
)
from service.errors import Busy, Draining, NotReady, WorkerFailed

log = logging.getLogger(__name__)
MAX_TRIES = 2  # a request is tried once more when the worker dies on it
RESTART_DELAYS = (0.0, 1.0, 2.0, 5.0, 15.0)  # seconds before start n in a row that never became ready
GUESSED_SECONDS = 5.0  # per request, until one has been measured


@dataclass
class _Job:
    request: Request
    future: asyncio.Future[Result]
    on_progress: OnProgress | None
    tries: int = 0
    running: bool = False


@dataclass
class _Worker:
    """One process, its pipe, and the thread that writes to it (a large picture may block the pipe)."""

    process: multiprocessing.process.BaseProcess
    pipe: Connection
    writer: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "cdc-pipe"))

    def send(self, message: ToWorker) -> None:
        self.writer.submit(self._write, message)

    def _write(self, message: ToWorker) -> None:
        try:
            self.pipe.send(message)
        except (OSError, ValueError):  # the process has died: the reader notices and the job is sent again
            log.info("the worker's pipe is closed")


class PoolEngine:
    """An `Engine` with one worker process that runs requests in order of arrival.

    All methods belong to one event loop; messages of the worker are handed to it by a reader thread.
    """

    def __init__(self, options: RunnerOptions, max_waiting: int = 64) -> None:
        """Nothing is started yet.

        Args:
            options: passed to the worker.
            max_waiting: requests that may wait beyond the running one; more are refused with `Busy`.
        """
        self._options = options
        self._max_waiting = max_waiting
        self._jobs: dict[int, _Job] = {}
        self._next_job = 0
        self._worker: _Worker | None = None
        self._models: tuple[ModelInfo, ...] = ()
        self._ready = self._draining = False
        self._restarts = self._failed_starts = 0
        self._seconds_per_job = GUESSED_SECONDS
        self._idle = asyncio.Event()
        self._idle.set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._respawn: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Spawn the worker; returns at once. `status().ready` turns true when its models are warm."""
        self._loop = asyncio.get_running_loop()
        self._spawn()

    async def stop(self, grace: float) -> None:
        """Refuse new work, wait up to `grace` seconds for what is in flight, then end the worker."""
        self._draining = True
        try:
            async with asyncio.timeout(grace):
                await self._idle.wait()
        except TimeoutError:
            log.warning("grace time over with %d requests in flight", len(self._jobs))
        if self._respawn is not None:
            self._respawn.cancel()
        for job in self._jobs.values():
            if not job.future.done():
                job.future.set_exception(Draining("the service is shutting down"))
        if (worker := self._worker) is not None:
            self._worker = None
            await asyncio.to_thread(_end, worker)

    async def encode(self, request: EncodeRequest) -> EncodeResult:
        """See `Engine.encode`."""
        return cast(EncodeResult, await self._submit(request, None))

    async def decode(self, request: DecodeRequest, on_progress: OnProgress | None = None) -> DecodeResult:
        """See `Engine.decode`."""
        return cast(DecodeResult, await self._submit(request, on_progress))

    def models(self) -> tuple[ModelInfo, ...]:
        """See `Engine.models`."""
        return self._models

    def status(self) -> EngineStatus:
        """See `Engine.status`."""
        running = sum(job.running for job in self._jobs.values())
        return EngineStatus(self._ready, self._draining, len(self._jobs) - running, running, self._restarts)

    async def _submit(self, request: Request, on_progress: OnProgress | None) -> Result:
        if self._draining:
            raise Draining("the service is shutting down")
        if self._loop is None or not self._models:
            raise NotReady("the models are still being loaded")
        if len(self._jobs) > self._max_waiting:
            wait = self._seconds_per_job * len(self._jobs)
            raise Busy(f"{len(self._jobs)} requests are waiting", retry_after=wait)
        number, self._next_job = self._next_job, self._next_job + 1
        job = _Job(request, self._loop.create_future(), on_progress)
        self._jobs[number] = job
        self._idle.clear()
        if self._ready:
            self._send(number, job)
        try:
            return await job.future
        except asyncio.CancelledError:
            if self._worker is not None:
                self._worker.send(Cancel(number))
            raise
        finally:
            del self._jobs[number]
            if not self._jobs:
                self._idle.set()

    def _send(self, number: int, job: _Job) -> None:
        assert self._worker is not None
        job.tries += 1
        self._worker.send(Submit(number, job.request))

    # The worker process -------------------------------------------------------------------------------------------

    def _spawn(self) -> None:
        from service.engine.process import run_worker

        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=run_worker, args=(theirs, self._options), name="cdc-worker", daemon=True)
        process.start()
        theirs.close()
        self._worker = _Worker(process, ours)
        threading.Thread(target=self._read, args=(self._worker,), name="cdc-reader", daemon=True).start()

    def _read(self, worker: _Worker) -> None:
        """Thread: pass messages to the event loop until the process is gone."""
        assert self._loop is not None
        message: Any
        while True:
            try:
                message = worker.pipe.recv()
            except Exception:  # EOFError, OSError, or a message cut short by a kill: in every case the worker is lost
                message = None
            try:
                if message is None:
                    self._loop.call_soon_threadsafe(self._lost, worker)
                    return
                self._loop.call_soon_threadsafe(self._handle, worker, message)
            except RuntimeError:  # the event loop is closed: the service is gone
                return

    def _handle(self, worker: _Worker, message: FromWorker) -> None:
        if worker is not self._worker:
            return
        if isinstance(message, Ready):
            self._models, self._ready, self._failed_starts = message.models, True, 0
            for number, waiting in self._jobs.items():
                self._send(number, waiting)
            return
        job = self._jobs.get(message.job)
        if job is None or job.future.done():  # cancelled in the meantime
            return
        if isinstance(message, Started):
            job.running = True
        elif isinstance(message, Advanced):
            if job.on_progress is not None:
                job.on_progress(message.progress)
        elif isinstance(message, Finished):
            self._measure(message.result)
            job.future.set_result(message.result)
        elif isinstance(message, Failed):
            job.future.set_exception(message.error)

    def _measure(self, result: Result) -> None:
        """Keep a moving average of seconds per request, for Retry-After."""
        seconds = sum(v for k, v in result.seconds.items() if k != "queue")
        self._seconds_per_job += 0.2 * (seconds - self._seconds_per_job)

    def _lost(self, worker: _Worker) -> None:
        """The worker died: replace it, try what it held once more."""
        if worker is not self._worker:
            return
        self._worker = None
        if not self._ready:
            self._failed_starts += 1
        self._ready = False
        self._restarts += 1
        worker.process.join(timeout=1)
        log.error("worker died with exit code %s; %d requests in flight", worker.process.exitcode, len(self._jobs))
        worker.pipe.close()
        worker.writer.shutdown(wait=False)
        for job in self._jobs.values():
            if job.running and job.tries >= MAX_TRIES and not job.future.done():
                job.future.set_exception(WorkerFailed("the worker died twice on this request"))
            elif not job.running and job.tries:
                job.tries -= 1  # it was only waiting: not its fault
            job.running = False
        assert self._loop is not None
        delay = RESTART_DELAYS[min(self._failed_starts, len(RESTART_DELAYS) - 1)]
        self._respawn = self._loop.call_later(delay, self._spawn)


def _end(worker: _Worker) -> None:
    """Ask the process to leave, then make it."""
    worker.send(None)
    worker.process.join(timeout=1)
    if worker.process.is_alive():
        worker.process.terminate()
        worker.process.join(timeout=5)
    if worker.process.is_alive():
        worker.process.kill()
        worker.process.join()
    worker.writer.shutdown(wait=True, cancel_futures=True)
    worker.pipe.close()
