"""The engine's loop over a fake device: joins, leaves, failures, cancellation, memory."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from model.errors import CorruptStream
from service.engine.loop import Loop
from service.engine.messages import Advanced, Cancel, Failed, Finished, FromWorker, Started, Submit, Ticked
from service.engine.port import EncodeRequest, EncodeResult, Order, Outcome
from service.engine.profile import Profile
from service.engine.request import Key, Status, Task, Unit
from service.errors import Busy, ServiceError
from service.logs import request_id
from service.work import Progress

KEY = Key("m", "denoise", (64, 64))


class FakeTask:
    """`quality` steps of one tile each; `max_bytes` chooses how it fails."""

    def __init__(self, number: int, request: EncodeRequest) -> None:
        self.number, self.left, self.fault = number, request.quality or 0, request.model
        self.offered, self.request = -1, request
        self.refining, self.refine_allowed = threading.Event(), threading.Event()
        self.stuck = False

    def prepare(self) -> None:
        if self.fault == "prepare":
            raise CorruptStream("words are left over")

    def ready(self) -> list[Unit]:
        if self.offered == self.left:
            return []
        self.offered = self.left
        return [Unit(self.number, 0, KEY)]

    def progress(self) -> Progress | None:
        return Progress(1, 1 + self.left)

    def done(self) -> bool:
        return self.left == 0

    @property
    def refines(self) -> bool:
        return self.request.effort > 1

    def refine(self, report: Callable[[Progress], None]) -> None:
        report(Progress(1, 9))
        self.refining.set()
        deadline = time.monotonic() + 10.0
        while not self.refine_allowed.wait(0.001):
            self.stuck = time.monotonic() > deadline
            assert not self.stuck
            report(Progress(1, 9))
        report(Progress(2, 9))
        if self.fault == "refine":
            raise ValueError("a defect")

    @property
    def company(self) -> str | None:
        return "small" if self.fault in ("together", "finish") else None


class FakeDevice:
    def __init__(self) -> None:
        self.profile = Profile({1: 1e-9, 2: 2e-9}, 1.0)
        self.passes: list[list[int]] = []
        self.memory = 64
        self.seconds = 0.0
        self.clock = 0.0  # advanced by every pass
        self.finished: list[list[int]] = []
        self.finish_begun: threading.Event | None = None  # set by a finish that then waits until it is allowed
        self.finish_allowed = threading.Event()

    def task(self, number: int, order: Order) -> Task:
        assert isinstance(order, EncodeRequest)
        return FakeTask(number, order)

    def refine(self, task: Task, report: Callable[[Progress], None]) -> None:
        task.refine(report)

    def finish(self, tasks: Sequence[Task]) -> list[Outcome]:
        works = [task for task in tasks if isinstance(task, FakeTask)]
        self.finished.append([w.number for w in works])
        if self.finish_begun is not None:
            self.finish_begun.set()
            assert self.finish_allowed.wait(10)
        if any(w.fault == "finish" for w in works):
            raise ValueError("a defect")
        return [EncodeResult(b"", "m", "", 1, 1, 0, 1, 0.0) for _ in works]

    def run(self, units: Sequence[tuple[Task, Unit]]) -> None:
        works = [w for w, _ in units if isinstance(w, FakeTask)]
        self.passes.append([w.number for w in works])
        self.clock += 1.0
        time.sleep(self.seconds)
        if len(works) > self.memory:
            raise MemoryError
        if any(w.fault == "run" for w in works):
            raise RuntimeError("a bad member")
        for work in works:
            work.left -= 1


class Harness:
    def __init__(self) -> None:
        self.device, self.sent = FakeDevice(), list[FromWorker]()
        self.loop = Loop(self.device, self.sent.append, lambda: self.device.clock)

    def submit(self, job: int, steps: int, fault: str | None = None, effort: int = 1) -> None:
        request = EncodeRequest(np.zeros((1, 1, 3), np.uint8), model=fault, quality=steps, effort=effort)
        self.loop.put(Submit(job, request, steps * KEY.cost, KEY.cost))

    def refining(self, job: int) -> FakeTask:
        """The task of a request whose refinement has begun."""
        self.finishing(job)
        task = self.loop._requests[job].task
        assert isinstance(task, FakeTask)
        assert task.refining.wait(10)  # nothing of it wakes the loop
        return task

    def finishing(self, *jobs: int) -> None:
        """Step until they have no tiles left."""
        known = self.loop._requests
        while not all(job in known and known[job].status is Status.FINISHING for job in jobs):
            self.loop.step()

    def run(self, until: int, seconds: float = 10.0) -> None:
        """Step until that many requests are answered."""
        deadline = time.monotonic() + seconds
        while len(self.answers()) < until:
            assert time.monotonic() < deadline, "stuck"
            self.loop.step()

    def answers(self) -> dict[int, FromWorker]:
        return {m.number: m for m in self.sent if isinstance(m, Finished | Failed)}


@pytest.fixture
def harness() -> Harness:
    return Harness()


def test_requests_share_passes_and_leave_when_done(harness: Harness) -> None:
    for job, steps in enumerate((1, 3, 2)):
        harness.submit(job, steps)
    harness.run(until=3)
    assert all(isinstance(m, Finished) for m in harness.answers().values())
    assert sum(map(len, harness.device.passes)) == 6
    assert len(harness.device.passes) <= 5
    started = [m.number for m in harness.sent if isinstance(m, Started)]
    assert sorted(started) == [0, 1, 2]
    ticks = [m for m in harness.sent if isinstance(m, Ticked)]
    assert [t.rows for t in ticks] == [len(p) for p in harness.device.passes]


def test_a_request_joins_a_running_batch(harness: Harness) -> None:
    harness.submit(0, 50)
    while not harness.device.passes:
        harness.loop.step()
    harness.submit(1, 1)
    harness.run(until=1)
    assert list(harness.answers()) == [1]
    assert [0, 1] in harness.device.passes or [1, 0] in harness.device.passes
    harness.run(until=2)


def test_a_newcomer_is_prepared_in_the_step_that_finds_it(harness: Harness) -> None:
    """One step later it would run a whole pass of somebody else's later."""
    harness.submit(0, 50)
    while not harness.device.passes:
        harness.loop.step()
    harness.submit(1, 1)
    harness.loop.step()
    assert harness.loop._requests[1].status is not Status.WAITING


def test_one_bad_member_fails_alone(harness: Harness) -> None:
    harness.device.seconds = 0.02  # so that all join
    harness.submit(0, 8)
    harness.submit(1, 8, "run")
    harness.submit(2, 8)
    harness.run(until=3)
    answers = harness.answers()
    assert isinstance(answers[0], Finished)
    assert isinstance(answers[2], Finished)
    assert isinstance(answers[1], Failed)
    assert isinstance(answers[1].error, ServiceError)


def test_out_of_memory_halves_the_rows_and_nobody_fails(harness: Harness) -> None:
    harness.device.memory, harness.device.seconds = 2, 0.01
    for job in range(8):
        harness.submit(job, 5)
    harness.run(until=8)
    assert all(isinstance(m, Finished) for m in harness.answers().values())
    assert harness.device.profile.rows(KEY) <= 4


def test_out_of_memory_alone_is_busy(harness: Harness) -> None:
    harness.device.memory = 0
    harness.submit(0, 1)
    harness.run(until=1)
    (answer,) = harness.answers().values()
    assert isinstance(answer, Failed)
    assert isinstance(answer.error, Busy)


@pytest.mark.parametrize(("fault", "error"), [("prepare", CorruptStream), ("finish", ServiceError)])
def test_failures_before_and_after_the_tiles(harness: Harness, fault: str, error: type[Exception]) -> None:
    harness.submit(0, 1, fault)
    harness.submit(1, 1)
    harness.run(until=2)
    failed = harness.answers()[0]
    assert isinstance(failed, Failed)
    assert isinstance(failed.error, error)
    assert isinstance(harness.answers()[1], Finished)


@pytest.mark.parametrize("fault", ["together", "finish"])
def test_those_that_end_while_their_company_is_finished_are_finished_together(harness: Harness, fault: str) -> None:
    """And when that fails, one by one."""
    harness.device.finish_begun = threading.Event()
    harness.submit(0, 1, "together")
    while not harness.device.passes:
        harness.loop.step()
    assert harness.device.finish_begun.wait(10)
    for job in (1, 2):
        harness.submit(job, 1, "together")
    harness.submit(3, 1, fault)
    while (
        any(r.status is not Status.FINISHING for r in harness.loop._requests.values()) or len(harness.device.passes) < 2
    ):
        harness.loop.step()
    harness.device.finish_allowed.set()
    harness.run(until=4)
    assert [sorted(numbers) for numbers in harness.device.finished[:2]] == [[0], [1, 2, 3]]
    answers = harness.answers()
    assert all(isinstance(answers[job], Finished) for job in (0, 1, 2))
    assert isinstance(answers[3], Failed if fault == "finish" else Finished)
    assert not harness.loop._ended


@pytest.mark.parametrize("fault", [None, "refine"])
def test_a_refinement_reports_and_keeps_nobody_waiting(harness: Harness, fault: str | None) -> None:
    harness.submit(0, 1, fault, effort=9)
    task = harness.refining(0)
    for job in range(1, 4):
        harness.submit(job, 2)
    harness.run(until=3)
    assert 0 not in harness.answers()
    task.refine_allowed.set()
    harness.run(until=4)
    reported = [m.progress for m in harness.sent if isinstance(m, Advanced) and m.number == 0][1:]
    assert reported == [Progress(1, 9), Progress(2, 9)]  # each once, however often it was said
    assert isinstance(harness.answers()[0], Failed if fault else Finished)


def test_a_cancelled_refinement_ends_at_its_next_report(harness: Harness) -> None:
    harness.submit(0, 1, effort=9)
    harness.refining(0)
    harness.loop.put(Cancel(0))
    harness.submit(1, 1, effort=2)
    harness.refining(1).refine_allowed.set()  # the thread is free again
    harness.run(until=1)
    assert list(harness.answers()) == [1]


def test_a_cancelled_request_keeps_no_image_while_it_waits_for_another_refinement(harness: Harness) -> None:
    harness.submit(0, 1, effort=9)
    task = harness.refining(0)
    harness.submit(1, 1, effort=9)
    harness.submit(2, 1, effort=2)
    harness.finishing(1, 2)
    waiting = weakref.ref(harness.loop._requests[1].task)
    harness.loop.put(Cancel(1))
    harness.submit(3, 1)
    harness.run(until=1)
    gc.collect()
    assert waiting() is None
    task.refine_allowed.set()
    harness.refining(2).refine_allowed.set()
    harness.run(until=3)
    assert sorted(harness.answers()) == [0, 2, 3]


def test_a_refinement_ends_with_the_loop(harness: Harness) -> None:
    """Else its process would wait for it, for minutes, with nobody left to answer."""
    harness.submit(0, 1, effort=9)
    task = harness.refining(0)
    harness.loop.put(None)
    harness.loop.run()
    harness.loop._refining.shutdown(wait=True)
    assert not task.stuck
    assert not harness.answers()


def test_waiting_for_another_refinement_counts_as_queue(harness: Harness) -> None:
    harness.submit(0, 1, effort=9)
    task = harness.refining(0)
    harness.submit(1, 1, effort=9)
    harness.finishing(1)
    harness.device.clock += 100.0
    task.refine_allowed.set()
    harness.refining(1).refine_allowed.set()
    harness.run(until=2)
    second = harness.answers()[1]
    assert isinstance(second, Finished)
    assert second.outcome.seconds["queue"] >= 100
    assert second.seconds < 100


def test_a_company_is_finished_by_sixteens(harness: Harness) -> None:
    harness.device.finish_begun = threading.Event()
    for job in range(21):
        harness.submit(job, 1, "together")
    while not harness.device.passes:
        harness.loop.step()
    assert harness.device.finish_begun.wait(10)
    while sum(len(waiting) for waiting in harness.loop._ended.values()) + len(harness.device.finished[0]) < 21:
        harness.loop.step()
    harness.device.finish_allowed.set()
    harness.run(until=21)
    assert max(map(len, harness.device.finished)) <= 16
    assert sorted(number for numbers in harness.device.finished for number in numbers) == list(range(21))


def test_a_cancelled_request_takes_no_further_pass_and_is_not_answered(harness: Harness) -> None:
    harness.submit(0, 10**6)
    while not harness.device.passes:
        harness.loop.step()
    harness.loop.put(Cancel(0))
    harness.submit(1, 1)
    passes = len(harness.device.passes)
    harness.run(until=1)
    assert list(harness.answers()) == [1]
    assert sum(0 in p for p in harness.device.passes[passes:]) <= 1
    harness.loop.put(Cancel(0))  # twice, and of an unknown request: ignored
    harness.loop.put(Cancel(99))
    harness.submit(2, 1)
    harness.run(until=2)


def test_cancelling_while_a_cpu_thread_has_it(harness: Harness) -> None:
    harness.submit(0, 1)
    harness.loop.put(Cancel(0))
    harness.submit(1, 1)
    harness.run(until=1)
    assert list(harness.answers()) == [1]


def test_the_loop_ends_when_told() -> None:
    harness = Harness()
    thread = threading.Thread(target=harness.loop.run)
    thread.start()
    harness.submit(0, 1)
    harness.loop.put(None)
    thread.join(10)
    assert not thread.is_alive()


def test_a_stage_holds_its_own_time_alone(harness: Harness) -> None:
    """Two requests that cannot share a pass take turns: what the other had is waiting, for each of them."""
    harness.device.profile.row_limits[KEY] = 1
    harness.submit(0, 5)
    harness.submit(1, 5)
    harness.run(until=2)
    stages = [answer.outcome.seconds for answer in harness.answers().values() if isinstance(answer, Finished)]
    assert [seconds["denoise"] for seconds in stages] == [5.0, 5.0]
    assert sum(seconds["queue"] for seconds in stages) >= 5.0


def test_an_encoders_pass_is_called_analysis(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.service.test_loop.KEY", Key("m", "analyse", (64, 64)))
    harness.submit(0, 1)
    harness.run(until=1)
    (answer,) = harness.answers().values()
    assert isinstance(answer, Finished)
    assert set(answer.outcome.seconds) == {"queue", "analysis"}


def test_lines_of_the_log_carry_the_id_of_the_request(harness: Harness, caplog: pytest.LogCaptureFixture) -> None:
    seen: list[str | None] = []
    caplog.handler.addFilter(lambda record: seen.append(request_id.get()) or True)
    harness.loop.put(Submit(0, EncodeRequest(np.zeros((1, 1, 3), np.uint8), model="finish", quality=1), 1, 1, "abc"))
    harness.run(until=1)
    assert seen == ["abc"]
    assert request_id.get() is None
