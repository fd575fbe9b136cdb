"""The engine's loop in the worker process: schedule, run, advance, collect. No torch.

A request goes through: waiting -> preparing (CPU thread) -> running: tiles, step by step (this loop) -> finishing (CPU
thread). Everything that happens arrives in one inbox; between two ticks the loop empties it, so a request joins at the
next tick and leaves the moment it is done, cancelled or failed. When nothing is ready the loop sleeps on the inbox: an
idle engine never delays.
"""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import Protocol

from model.errors import CodecError
from service.engine.job import Request, Result
from service.engine.messages import Advanced, Cancel, Failed, Finished, FromWorker, Started, Submit, Ticked
from service.engine.profile import Profile
from service.engine.scheduler import Kind, Scheduler, Unit
from service.errors import Busy, ServiceError
from service.logs import request_id
from service.work import Progress

log = logging.getLogger(__name__)
CPU_THREADS = 2
STAGES: Mapping[Kind, str] = {"analyse": "analysis", "condition": "conditioning", "denoise": "denoise"}


class Work(Protocol):
    """One request on the device side."""

    def prepare(self) -> None:
        """Everything before the first tile; runs in a CPU thread. Raises CodecError."""

    def ready(self) -> list[Unit]:
        """Tiles that became ready since the last call."""

    def progress(self) -> Progress | None:
        """How far it is, if that changed since the last call."""

    def done(self) -> bool:
        """True when no tile is left."""

    def finish(self) -> Result:
        """Everything after the last tile; runs in a CPU thread. Raises CodecError."""


class Device(Protocol):
    """What runs tiles."""

    profile: Profile

    def work(self, job: int, request: Request) -> Work:
        """Make the work of a request."""

    def run(self, units: Sequence[tuple[Work, Unit]]) -> None:
        """One forward pass over tiles of one key; if it raises, none has changed. MemoryError: too many rows."""


class Stage(Enum):
    """How far a request is."""

    WAITING = auto()
    PREPARING = auto()
    RUNNING = auto()
    FINISHING = auto()


@dataclass
class _Entry:
    work: Work
    arrival: float
    request_id: str | None
    stage: Stage = Stage.WAITING
    started: float = 0.0
    ticking: float = 0.0  # when its first tile could run
    passes: dict[str, float] = field(default_factory=dict)  # seconds of the passes it took part in, by stage
    cancelled: bool = False

    def stages(self, now: float, own: Mapping[str, float]) -> dict[str, float]:
        """Seconds by stage; `queue` is all time in which nothing was done for this request."""
        waited = (self.started - self.arrival) + (now - self.ticking - sum(self.passes.values()))
        return {"queue": max(0.0, waited), **own, **self.passes}


@dataclass(frozen=True)
class _Prepared:
    job: int
    error: Exception | None


@dataclass(frozen=True)
class _Completed:
    job: int
    error: Exception | None


class Loop:
    """Owns all requests of one device."""

    def __init__(self, device: Device, send: Callable[[FromWorker], None]) -> None:
        """`send` passes messages to the API, from any thread."""
        self._device = device
        self._send = send
        profile = device.profile
        self._scheduler = Scheduler(
            profile.rows, profile.costs_per_tick, profile.paying_cost, 1 / profile.seconds_per_cost
        )
        self._inbox: queue.SimpleQueue[Submit | Cancel | _Prepared | _Completed | None] = queue.SimpleQueue()
        self._entries: dict[int, _Entry] = {}
        self._threads = ThreadPoolExecutor(CPU_THREADS, "cdc-cpu")
        self._open = True

    def put(self, message: Submit | Cancel | None) -> None:
        """Hand in a message from any thread; None ends the loop."""
        self._inbox.put(message)

    def run(self) -> None:
        """Tick until told to end."""
        while self._open:
            self.step()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def step(self) -> None:
        """One tick."""
        self._collect(wait=self._scheduler.is_idle())
        self._begin()
        if batch := self._scheduler.schedule():
            failures = self._run(batch)
            self._advance(batch, failures)
            self._begin()  # those that left have made room; nothing else may wake the loop

    # Collect ------------------------------------------------------------------------------------------------------

    def _collect(self, *, wait: bool) -> None:
        """Take everything from the inbox; sleep on it first when nothing can run."""
        try:
            self._take(self._inbox.get(block=wait))
            while True:
                self._take(self._inbox.get_nowait())
        except queue.Empty:
            return

    def _take(self, message: Submit | Cancel | _Prepared | _Completed | None) -> None:
        if message is None:
            self._open = False
        elif isinstance(message, Submit):
            self._accept(message)
        elif isinstance(message, Cancel):
            self._cancel(message.job)
        elif isinstance(message, _Prepared):
            self._prepared(message)
        else:
            self._completed(message)

    def _accept(self, message: Submit) -> None:
        try:
            work = self._device.work(message.job, message.request)
        except (CodecError, ServiceError) as error:
            self._send(Failed(message.job, error))
            return
        now = time.perf_counter()
        self._entries[message.job] = _Entry(work, now, message.request_id)
        self._scheduler.wait(message.job, message.cost, message.area, now)

    def _begin(self) -> None:
        """Prepare the requests whose turn has come."""
        for job in self._scheduler.begin(time.perf_counter()):
            self._prepare(job)

    def _prepare(self, job: int) -> None:
        entry = self._entries[job]
        entry.stage = Stage.PREPARING

        def prepare() -> None:
            error = None
            request_id.set(entry.request_id)
            try:
                if not entry.cancelled:
                    entry.started = time.perf_counter()
                    entry.work.prepare()
            except Exception as caught:
                error = caught
            self._inbox.put(_Prepared(job, error))

        self._threads.submit(prepare)

    def _prepared(self, message: _Prepared) -> None:
        entry = self._entries[message.job]
        if message.error is not None or entry.cancelled:
            self._fail(message.job, message.error)
            return
        entry.stage, entry.ticking = Stage.RUNNING, time.perf_counter()
        self._send(Started(message.job))
        self._scheduler.offer(message.job, entry.work.ready())

    def _cancel(self, job: int) -> None:
        """Drop a request at once if it is between tiles; if a CPU thread has it, when that is through."""
        entry = self._entries.get(job)
        if entry is None:
            return
        entry.cancelled = True
        self._scheduler.remove(job)
        if entry.stage in (Stage.WAITING, Stage.RUNNING):
            del self._entries[job]

    # Run and advance ----------------------------------------------------------------------------------------------

    def _run(self, batch: list[Unit]) -> dict[int, Exception]:
        """Run a batch; when it fails, run its members one by one, so that only the bad ones fail."""
        start = time.perf_counter()
        failures = self._try(batch)
        seconds = time.perf_counter() - start
        if not failures:
            self._report(batch, seconds)
        self._account(batch, seconds)
        return failures

    def _try(self, batch: list[Unit]) -> dict[int, Exception]:
        members = [(self._entries[u.job].work, u) for u in batch]
        try:
            self._device.run(members)
            return {}
        except Exception as error:
            if isinstance(error, MemoryError):
                self._device.profile.out_of_memory(batch[0].key, len(batch))
            if len(batch) == 1:
                return {batch[0].job: error}
            log.warning("a pass of %d rows failed, running them singly: %s", len(batch), error)
        failures: dict[int, Exception] = {}
        for work, unit in members:
            if unit.job in failures:
                continue
            try:
                self._device.run([(work, unit)])
            except Exception as error:
                failures[unit.job] = error
        return failures

    def _advance(self, batch: list[Unit], failures: dict[int, Exception]) -> None:
        for job in dict.fromkeys(unit.job for unit in batch):
            if job in failures:
                self._scheduler.remove(job)
                self._fail(job, failures[job])
                continue
            work = self._entries[job].work
            if (progress := work.progress()) is not None:
                self._send(Advanced(job, progress))
            if work.done():
                self._scheduler.remove(job)
                self._finish(job)
            else:
                self._scheduler.offer(job, work.ready())

    def _account(self, batch: list[Unit], seconds: float) -> None:
        """Add a pass to the stages of all that took part: each of them had it whole, the others' rows included."""
        stage = STAGES[batch[0].key.kind]
        for job in dict.fromkeys(unit.job for unit in batch):
            passes = self._entries[job].passes
            passes[stage] = passes.get(stage, 0.0) + seconds

    def _finish(self, job: int) -> None:
        entry = self._entries[job]
        entry.stage, ended = Stage.FINISHING, time.perf_counter()

        def finish() -> None:
            request_id.set(entry.request_id)
            try:
                result = entry.work.finish()
                seconds = entry.stages(ended, result.seconds)
                if not entry.cancelled:  # answered from here: the loop may be in the middle of a long tick
                    self._send(Finished(job, replace(result, seconds=seconds)))
                self._inbox.put(_Completed(job, None))
            except Exception as error:
                self._inbox.put(_Completed(job, error))

        self._threads.submit(finish)

    def _completed(self, message: _Completed) -> None:
        if message.error is not None:
            self._fail(message.job, message.error)
        else:
            del self._entries[message.job]

    def _fail(self, job: int, error: Exception | None) -> None:
        """Answer a request with its error. A defect of ours is logged and answered too: its neighbours go on."""
        if not self._entries[job].cancelled:
            if isinstance(error, MemoryError):
                error = Busy("not enough memory for this picture at present", retry_after=10.0)
            elif not isinstance(error, CodecError | ServiceError):
                request_id.set(self._entries[job].request_id)
                log.error("request %d failed", job, exc_info=error)
                request_id.set(None)
                error = ServiceError("the engine failed on this request")
            self._send(Failed(job, error))
        self._scheduler.remove(job)
        del self._entries[job]

    def _report(self, batch: list[Unit], seconds: float) -> None:
        key = batch[0].key
        self._device.profile.observe(len(batch) * key.cost, seconds)
        capacity = 1 if batch[0].alone else self._device.profile.rows(key)
        self._send(Ticked(key.kind, key.shape, len(batch), max(capacity, len(batch)), seconds, key.step_cost))
