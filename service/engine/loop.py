"""The engine's loop in the worker process: collect, schedule, run, advance. No torch.

A request goes through: waiting -> preparing (CPU thread) -> running: tiles, step by step (this loop) -> finishing (CPU
thread; an encode with effort is refined before, in a thread for one such at a time) -> ended. Everything that happens
arrives in one inbox; between two ticks the loop empties it, so a request joins at the next tick and leaves the moment
it is done, cancelled or failed. When nothing is ready the loop sleeps on the inbox: an idle engine never delays.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Protocol

from model.errors import CodecError
from service.engine.messages import Advanced, Cancel, Failed, Finished, FromWorker, Started, Submit, Ticked
from service.engine.port import Order, Outcome
from service.engine.profile import Profile
from service.engine.request import STAGES, Report, Request, Status, Task, Unit
from service.engine.scheduler import Scheduler
from service.errors import Busy, ServiceError
from service.logs import request_id
from service.work import Progress

log = logging.getLogger(__name__)
CPU_THREADS = 2
TOGETHER = 16  # requests that are finished together: more would gain little and all wait for the last


class Device(Protocol):
    """What runs tiles."""

    profile: Profile

    def task(self, number: int, order: Order) -> Task:
        """Make the task of a request."""

    def run(self, units: Sequence[tuple[Task, Unit]]) -> None:
        """One forward pass over tiles of one key; if it raises, none has changed. MemoryError: too many rows."""

    def refine(self, task: Task, report: Report) -> None:
        """`Task.refine`, in a thread for such. MemoryError: the device has too little memory at present."""

    def finish(self, tasks: Sequence[Task]) -> list[Outcome]:
        """Everything after the last tile, of one task or of several of one company; for a CPU thread."""


@dataclass(frozen=True)
class _Left:
    """A CPU thread is through with a request: prepared it, or finished it."""

    number: int
    error: Exception | None = None


@dataclass(frozen=True)
class _Ended:
    """A request without tiles left, and since when nothing but its end is left to do."""

    request: Request
    at: float


class _Abandoned(Exception):
    """Nobody waits for this refinement any more."""


Inbox = Submit | Cancel | _Left | None


class Loop:
    """Owns all requests of one device."""

    def __init__(
        self,
        device: Device,
        send: Callable[[FromWorker], None],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`send` passes messages to the API, from any thread; `clock` gives seconds."""
        self._clock = clock
        self._device = device
        self._send = send
        profile = device.profile
        self._scheduler = Scheduler(
            profile.rows, profile.costs_per_tick, profile.paying_cost, 1 / profile.seconds_per_cost
        )
        self._inbox: queue.SimpleQueue[Inbox] = queue.SimpleQueue()
        self.put: Callable[[Submit | Cancel | None], None] = self._inbox.put  # from any thread; None ends the loop
        self._requests: dict[int, Request] = {}
        self._threads = ThreadPoolExecutor(CPU_THREADS, "cdc-cpu")
        self._refining = ThreadPoolExecutor(1, "cdc-refine")
        self._refinements: dict[int, Future[None]] = {}  # by request, until it ends
        self._ended: dict[Hashable, list[_Ended]] = {}  # whose last tile is done, by company; a key while one is at it
        self._ended_lock = threading.Lock()
        self._open = True

    def run(self) -> None:
        """Tick until told to end."""
        while self._open:
            self.step()
        for threads in (self._threads, self._refining):
            threads.shutdown(wait=False, cancel_futures=True)

    def step(self) -> None:
        """One tick."""
        self._collect()
        self._begin()
        if batch := self._scheduler.schedule():
            failures = self._run(batch)
            self._advance(batch, failures)

    # Collect ------------------------------------------------------------------------------------------------------

    def _collect(self) -> None:
        """Take everything from the inbox; sleep on it first when nothing can run."""
        try:
            self._take(self._inbox.get(block=self._scheduler.is_idle()))
            while True:
                self._take(self._inbox.get_nowait())
        except queue.Empty:
            return

    def _take(self, message: Inbox) -> None:
        if message is None:
            self._open = False
        elif isinstance(message, Submit):
            task, now = self._device.task(message.number, message.order), self._clock()
            request = Request(message.number, task, message.cost, message.area, now, message.request_id)
            self._requests[message.number] = request
            self._scheduler.add(request)
        elif (known := self._requests.get(message.number)) is None:
            return  # it has ended meanwhile
        elif isinstance(message, Cancel):
            self._cancel(known)
        else:
            self._take_back(known, message.error)

    def _take_back(self, request: Request, error: Exception | None) -> None:
        """A CPU thread is through with it."""
        if error is not None or request.cancelled:
            self._fail(request, error)
        elif request.status is Status.PREPARING:
            request.ticking = self._clock()
            self._send(Started(request.number, request.ticking - request.started))
            self._scheduler.offer(request.number, request.task.ready())
        else:
            self._end(request)

    def _cancel(self, request: Request) -> None:
        """Drop a request at once if no thread has it; else when that is through."""
        request.cancelled = True
        self._scheduler.remove(request)
        waiting = (found := self._refinements.get(request.number)) is not None and found.cancel()
        if request.status in (Status.WAITING, Status.RUNNING) or waiting:
            self._end(request)

    # Begin, run, advance ------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Have the requests prepared whose turn has come."""
        for request in self._scheduler.begin(self._clock()):
            self._threads.submit(self._prepare, request)

    def _prepare(self, request: Request) -> None:
        """In a CPU thread."""
        request_id.set(request.request_id)
        error = None
        try:
            if not request.cancelled:
                request.started = self._clock()
                request.task.prepare()
        except Exception as caught:
            error = caught
        self._inbox.put(_Left(request.number, error))

    def _run(self, batch: list[Unit]) -> dict[int, Exception]:
        """Run a batch; when it fails, run its members one by one, so that only the bad ones fail."""
        start = self._clock()
        failures = self._try(batch)
        seconds = self._clock() - start
        if not failures:
            self._report(batch, seconds)
        stage = STAGES[batch[0].key.kind]
        for number in dict.fromkeys(unit.request for unit in batch):
            passes = self._requests[number].passes
            passes[stage] = passes.get(stage, 0.0) + seconds
        return failures

    def _try(self, batch: list[Unit]) -> dict[int, Exception]:
        members = [(self._requests[u.request].task, u) for u in batch]
        try:
            self._device.run(members)
            return {}
        except Exception as error:
            if isinstance(error, MemoryError):
                self._device.profile.out_of_memory(batch[0].key, len(batch))
            if len(batch) == 1:
                return {batch[0].request: error}
            log.warning("a pass of %d rows failed, running them singly: %s", len(batch), error)
        failures: dict[int, Exception] = {}
        for task, unit in members:
            if unit.request in failures:
                continue
            try:
                self._device.run([(task, unit)])
            except Exception as error:
                failures[unit.request] = error
        return failures

    def _advance(self, batch: list[Unit], failures: dict[int, Exception]) -> None:
        """Move the members of a batch to their next tiles, or on to their end."""
        for number in dict.fromkeys(unit.request for unit in batch):
            request = self._requests[number]
            if number in failures:
                self._fail(request, failures[number])
                continue
            if (progress := request.task.progress()) is not None:
                self._send(Advanced(number, progress))
            if request.task.done():
                self._scheduler.remove(request)
                request.status = Status.FINISHING
                if request.task.refines:  # by number: what is cancelled while it waits there keeps no image
                    self._refinements[number] = self._refining.submit(self._refine, number)
                else:
                    self._gather(_Ended(request, self._clock()))
            else:
                self._scheduler.offer(request.number, request.task.ready())
        self._begin()  # those that left have made room; nothing else may wake the loop

    def _refine(self, number: int) -> None:
        """In a thread for it alone: what takes minutes keeps no other request from its end."""
        ended = _Ended(self._requests[number], self._clock())
        request, last = ended.request, Progress(0, 1)

        def report(progress: Progress) -> None:
            nonlocal last
            if request.cancelled or not self._open:  # a process waits for its threads before it leaves
                raise _Abandoned
            if progress != last:
                last = progress
                self._send(Advanced(request.number, progress))

        try:
            self._device.refine(request.task, report)
        except Exception as error:
            self._inbox.put(_Left(request.number, error))
        else:
            self._gather(ended)

    def _gather(self, ended: _Ended) -> None:
        """Have a request finished, with all of its company that end while the ones before them are finished."""
        company = ended.request.task.company
        key = ended.request.number if company is None else company
        with self._ended_lock:
            at_it = key in self._ended
            self._ended.setdefault(key, []).append(ended)
        if not at_it:
            self._threads.submit(self._finish_company, key)

    def _finish_company(self, key: Hashable) -> None:
        """In a CPU thread: finish those that have gathered; the next of them after others that wait for a thread."""
        with self._ended_lock:
            ended, self._ended[key] = self._ended[key][:TOGETHER], self._ended[key][TOGETHER:]
        self._finish(ended)
        with self._ended_lock:
            if not self._ended[key]:
                del self._ended[key]
                return
        self._threads.submit(self._finish_company, key)

    def _finish(self, ended: list[_Ended]) -> None:
        """In a CPU thread. When it fails, finish the members one by one, so that only the bad ones fail."""
        request_id.set(ended[0].request.request_id if len(ended) == 1 else None)
        try:
            outcomes = self._device.finish([one.request.task for one in ended])
            for one, outcome in zip(ended, outcomes, strict=True):
                self._answer(one, outcome)
        except Exception as error:
            if len(ended) == 1:
                self._inbox.put(_Left(ended[0].request.number, error))
                return
            log.warning("finishing %d requests together failed, finishing them singly: %s", len(ended), error)
            for one in ended:
                self._finish([one])

    def _answer(self, ended: _Ended, outcome: Outcome) -> None:
        """In a CPU thread: the loop may be in the middle of a long tick."""
        request = ended.request
        if not request.cancelled:
            done = replace(outcome, seconds=request.stages(ended.at, outcome.seconds))
            self._send(Finished(request.number, done, self._clock() - ended.at))
        self._inbox.put(_Left(request.number))

    def _fail(self, request: Request, error: Exception | None) -> None:
        """Answer a request with its error. A defect of ours is logged and answered too: its neighbours go on."""
        if not request.cancelled:
            if isinstance(error, MemoryError):
                error = Busy("not enough memory for this image at present", retry_after=10.0)
            elif not isinstance(error, CodecError | ServiceError):
                request_id.set(request.request_id)
                log.error("request %d failed", request.number, exc_info=error)
                request_id.set(None)
                error = ServiceError("the engine failed on this request")
            self._send(Failed(request.number, error))
        self._end(request)

    def _end(self, request: Request) -> None:
        request.status = Status.ENDED
        self._scheduler.remove(request)
        del self._requests[request.number]
        self._refinements.pop(request.number, None)

    def _report(self, batch: list[Unit], seconds: float) -> None:
        key = batch[0].key
        self._device.profile.observe(len(batch) * key.cost, seconds)
        capacity = 1 if batch[0].alone else self._device.profile.rows(key)
        self._send(Ticked(key.kind, key.shape, len(batch), max(capacity, len(batch)), seconds, key.step_cost))
