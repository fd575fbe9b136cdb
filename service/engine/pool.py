"""The API's side of the engine: one worker process a device, watched and replaced when it dies. Never imports torch."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import time as now
from typing import overload

from service.engine.admission import Admission, Permit, default_memory, estimate
from service.engine.messages import (
    Advanced,
    Cancel,
    DeviceOptions,
    Failed,
    Finished,
    FromWorker,
    Ready,
    Started,
    Submit,
    Ticked,
)
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
)
from service.engine.worker_process import WorkerProcess
from service.errors import Draining, NotReady, WorkerFailed
from service.logs import request_id
from service.machine import cpu_limit
from service.settings import Settings
from service.tracing import span, stages

log = logging.getLogger(__name__)
MAX_DEATHS = 2  # of workers that had the request: it is tried once more, then given up
STAGES = ("wait", "prepare", "run", "finish")  # in a worker
LEAVE_S = 2.0  # that a worker has for leaving by itself
LARGE_TICK = 1 << 16  # pixels; smaller passes say little of throughput
LEARNING_RATE = 0.05
RESTART_DELAYS = (0.0, 1.0, 2.0, 5.0, 15.0)  # seconds before start n in a row that never became ready


@dataclass(eq=False)
class _Pending:
    """A request as the API sees it: it holds its permit until its caller is answered, whatever happens."""

    number: int
    order: Order
    permit: Permit
    future: asyncio.Future[Outcome]
    on_progress: OnProgress | None
    request_id: str | None = None
    slot: _Slot | None = None
    handed_over: bool = False  # the slot's worker has it
    deaths: int = 0
    running: bool = False
    moments: list[float] = field(default_factory=lambda: [now()])  # between its stages, seconds since 1970


@dataclass(eq=False)
class _Slot:
    """One device: its options, its door, what it has to do and the worker that does it now."""

    options: DeviceOptions
    admission: Admission
    worker: WorkerProcess | None = None
    ready: bool = False
    failed_starts: int = 0
    pending: dict[int, _Pending] = field(default_factory=dict)

    def learn(self, tick: Ticked) -> None:
        """Follow the speed of the device as it is under the present load."""
        cost = tick.step_cost * tick.rows * tick.shape[0] * tick.shape[1]
        if tick.kind == "denoise" and cost >= LARGE_TICK:
            self.admission.seconds_per_cost += LEARNING_RATE * (tick.seconds / cost - self.admission.seconds_per_cost)


class PoolEngine:
    """An `Engine` with one worker process for each device.

    All methods belong to one event loop; messages of the workers are handed to it by reader threads.
    """

    def __init__(
        self,
        options: Sequence[DeviceOptions],
        *,
        max_waiting: int = 64,
        max_backlog_seconds: float = 120.0,
        memory_bytes: int = 0,
        on_tick: Callable[[Ticked], None] = lambda _: None,
    ) -> None:
        """Nothing is started yet.

        Args:
            options: one for each device.
            max_waiting: requests in flight on a device beyond one; more are refused with `Busy`.
            max_backlog_seconds: device time that may wait on each device.
            memory_bytes: for the images in work on each device; 0 is half of what the process may use.
            on_tick: called with every forward pass.
        """
        memory = memory_bytes or default_memory() // len(options)
        self._slots = [_Slot(o, Admission(max_waiting, max_backlog_seconds, memory)) for o in options]
        self._on_tick = on_tick
        self._numbers = itertools.count()
        self._models: tuple[ModelInfo, ...] = ()
        self._draining = False
        self._restarts = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._respawns: set[asyncio.TimerHandle] = set()
        self._burials: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Spawn the workers; returns at once. `status().ready` turns true when the first one is warm."""
        for slot in self._slots:
            self._spawn(slot)

    async def stop(self, grace: float) -> None:
        """Refuse new work, wait up to `grace` seconds for what is in flight, then end the workers."""
        self._draining = True
        try:
            async with asyncio.timeout(grace):
                await self._idle.wait()
        except TimeoutError:
            log.warning("grace time over with %d requests in flight", len(self._pending()))
        for handle in self._respawns:
            handle.cancel()
        for pending in self._pending():
            if not pending.future.done():
                pending.future.set_exception(Draining("the service is shutting down"))
        ends = [  # a worker that is loading its models would not listen
            asyncio.to_thread(slot.worker.end, LEAVE_S if slot.ready else 0.0)
            for slot in self._slots
            if slot.worker is not None
        ]
        for slot in self._slots:
            slot.worker, slot.ready = None, False
        await asyncio.gather(*ends, *self._burials)

    def models(self) -> tuple[ModelInfo, ...]:
        """See `Engine.models`."""
        return self._models

    def status(self) -> EngineStatus:
        """See `Engine.status`."""
        pending = self._pending()
        running = sum(p.running for p in pending)
        return EngineStatus(
            ready=any(slot.ready for slot in self._slots),
            draining=self._draining,
            waiting=len(pending) - running,
            running=running,
            restarts=self._restarts,
            backlog_seconds=sum(slot.admission.backlog_seconds for slot in self._slots),
            refinement_seconds=sum(slot.admission.refinement_seconds for slot in self._slots),
            reason="a worker is being replaced" if self._models else "the models are still being loaded",
        )

    def seconds_of(self, cost: float) -> float:
        """Seconds until a request of that cost, in pixels of a denoising step, would be done if it came now."""
        admission = self._least_busy().admission
        return admission.backlog_seconds + admission.seconds_per_cost * cost

    # Requests -----------------------------------------------------------------------------------------------------

    @overload
    async def run(self, order: EncodeRequest, on_progress: OnProgress | None = None) -> EncodeResult: ...

    @overload
    async def run(self, order: DecodeRequest, on_progress: OnProgress | None = None) -> DecodeResult: ...

    async def run(self, order: Order, on_progress: OnProgress | None = None) -> Outcome:
        """See `Engine.run`."""
        if self._draining:
            raise Draining("the service is shutting down")
        if not self._models:
            raise NotReady("the models are still being loaded")
        slot = self._least_busy()
        permit = slot.admission.admit(estimate(order, self._models))
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        pending = _Pending(next(self._numbers), order, permit, future, on_progress, request_id.get())
        self._idle.clear()
        self._assign(pending, slot)
        try:
            with span("engine"):
                outcome = await future
                stages(STAGES, pending.moments)
                return outcome
        except asyncio.CancelledError:
            if pending.handed_over and pending.slot is not None and pending.slot.worker is not None:
                pending.slot.worker.send(Cancel(pending.number))
            raise
        finally:
            pending.permit.give_back()
            if pending.slot is not None:
                del pending.slot.pending[pending.number]
                self._hand_over(pending.slot)
            if not self._pending():
                self._idle.set()

    def _assign(self, pending: _Pending, slot: _Slot) -> None:
        """Give a request to a device."""
        if pending.slot is not None:
            del pending.slot.pending[pending.number]
            pending.permit.move(slot.admission)
        pending.slot, pending.handed_over, pending.running = slot, False, False
        slot.pending[pending.number] = pending
        self._hand_over(slot)

    def _hand_over(self, slot: _Slot) -> None:
        """Send a ready worker what it does not have yet.

        Of the requests on which a worker has died it gets one at a time: so the one that kills is known by the second
        death, and those that were only beside it live.
        """
        if not slot.ready or slot.worker is None:
            return
        suspected = any(p.handed_over and p.deaths for p in slot.pending.values())
        for pending in slot.pending.values():
            if pending.handed_over or pending.future.done() or (pending.deaths and suspected):
                continue
            suspected = suspected or pending.deaths > 0
            pending.handed_over = True
            known = pending.permit.estimate
            slot.worker.send(Submit(pending.number, pending.order, known.cost, known.area, pending.request_id))

    def _least_busy(self) -> _Slot:
        def burden(slot: _Slot) -> tuple[bool, float, float, int]:
            door = slot.admission
            return not slot.ready, door.backlog_seconds, door.refinement_seconds, len(slot.pending)

        return min(self._slots, key=burden)

    def _pending(self) -> list[_Pending]:
        return [pending for slot in self._slots for pending in list(slot.pending.values())]

    # Workers ------------------------------------------------------------------------------------------------------

    def _spawn(self, slot: _Slot) -> None:
        slot.worker = WorkerProcess(
            slot.options,
            lambda worker, message: self._handle(slot, worker, message),
            lambda worker: self._lost(slot, worker),
        )

    def _handle(self, slot: _Slot, worker: WorkerProcess, message: FromWorker) -> None:
        if worker is not slot.worker:
            return
        if isinstance(message, Ready):
            self._models, slot.admission.seconds_per_cost = message.models, message.seconds_per_cost
            slot.ready, slot.failed_starts = True, 0
            self._hand_over(slot)
        elif isinstance(message, Ticked):
            slot.learn(message)
            self._on_tick(message)
        elif (pending := slot.pending.get(message.number)) is not None and not pending.future.done():  # else: cancelled
            self._deliver(pending, message)

    def _deliver(self, pending: _Pending, message: Started | Advanced | Finished | Failed) -> None:
        if isinstance(message, Started):
            pending.running = True
            pending.moments[1:] = [now() - message.seconds, now()]
        elif isinstance(message, Advanced):
            pending.permit.share_done = message.progress.step / message.progress.steps
            if pending.on_progress is not None:
                pending.on_progress(message.progress)
        elif isinstance(message, Finished):
            pending.moments += [now() - message.seconds, now()]
            pending.future.set_result(message.outcome)
        else:
            pending.future.set_exception(message.error)

    def _lost(self, slot: _Slot, worker: WorkerProcess) -> None:
        """A worker died: replace it; what it held goes to another device, or waits for the new one."""
        if worker is not slot.worker:
            return
        burial = asyncio.create_task(self._bury(worker, len(slot.pending)))
        self._burials.add(burial)
        burial.add_done_callback(self._burials.discard)
        slot.failed_starts += not slot.ready
        slot.worker, slot.ready = None, False
        self._restarts += 1
        for pending in list(slot.pending.values()):
            if pending.future.done():
                continue
            pending.deaths += pending.handed_over
            if pending.deaths >= MAX_DEATHS:
                pending.future.set_exception(WorkerFailed("the worker died twice on this request"))
            else:
                self._assign(pending, self._least_busy())
        delay = RESTART_DELAYS[min(slot.failed_starts, len(RESTART_DELAYS) - 1)]
        handle = asyncio.get_running_loop().call_later(delay, self._spawn, slot)
        self._respawns = {h for h in self._respawns if not h.cancelled() and h.when() > handle.when() - 60} | {handle}

    async def _bury(self, worker: WorkerProcess, in_flight: int) -> None:
        await asyncio.to_thread(worker.close)
        log.error("worker died with exit code %s, %d requests in flight", worker.exit_code, in_flight)


def devices(setting: str) -> list[str]:
    """`CDC_DEVICES` -> device names: "auto" is every NVIDIA GPU of the machine, or the CPU if there is none."""
    if setting != "auto":
        return [name.strip() for name in setting.split(",")]
    gpus = sorted(p.name.removeprefix("nvidia") for p in Path("/dev").glob("nvidia[0-9]*"))
    return [f"cuda:{number}" for number in range(len(gpus))] or ["cpu"]


def pool_of(settings: Settings, on_tick: Callable[[Ticked], None]) -> PoolEngine:
    """Return the engine that the settings describe, with a worker process for each device; not started yet."""
    options = [
        DeviceOptions(
            models_dir=settings.models_dir,
            precision=settings.precision,
            threads=settings.threads or cpu_limit(),
            device=device,
            cache_dir=settings.cache_dir,
            tick_seconds=settings.tick_s,
            acceleration=settings.acceleration,
            models_memory_bytes=settings.models_memory_bytes,
            log_level=settings.log_level,
        )
        for device in devices(settings.devices)
    ]
    return PoolEngine(
        options,
        max_waiting=settings.max_waiting,
        max_backlog_seconds=settings.max_backlog_s,
        memory_bytes=settings.memory_bytes,
        on_tick=on_tick,
    )
