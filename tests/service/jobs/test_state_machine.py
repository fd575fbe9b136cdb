"""Jobs under any sequence of calls: one set of rules, held on both stores."""

from __future__ import annotations

import asyncio
import gc
import hashlib
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from model.errors import CorruptStream
from service.errors import JobCancelled, JobExpired, JobNotFinished, KeyReused, UnknownJob
from service.jobs.limits import JobLimits
from service.jobs.service import Jobs
from service.work import Options, Progress, Result, Work
from tests.service.jobs.conftest import SAID, Clock, jobs_in_memory, jobs_in_redis, work_of

OWNERS, BODIES, KEYS = ("ann", "bob"), (b"one", b"two", b"three"), (None, None, "k1", "k2")
TTL_S, SETTLE_S = 100.0, 5.0
LIMITS = JobLimits(result_ttl_s=TTL_S, gone_ttl_s=10 * TTL_S, max_running=2)


class Gated:
    """An executor whose work ends when the test says so, and as it says."""

    def __init__(self) -> None:
        self.gates: dict[bytes, asyncio.Future[bool]] = {}

    async def admit(self, body: bytes, options: Options) -> Work:
        return work_of(body)

    async def run(self, work: Work, on_progress: Callable[[Progress], None] | None = None) -> Result:
        gate = self.gates[work.body] = asyncio.get_running_loop().create_future()
        try:
            if on_progress is not None:
                on_progress(Progress(1, 2))
            if not await gate:
                raise CorruptStream("words are left over")
        finally:
            if self.gates.get(work.body) is gate:
                del self.gates[work.body]
        data = work.body[::-1]
        return Result(data, "image/png", hashlib.sha256(data).hexdigest(), SAID)

    def generation(self) -> str:
        return "one"

    def seconds_of(self, work: Work) -> float:
        return 1.0


@dataclass
class Execution:
    """The model's own: what was asked for, by whom, and how it ended."""

    body: bytes
    jobs: set[str] = field(default_factory=set)
    end: str | None = None
    until: float = 0.0


class Rules(RuleBasedStateMachine):
    """The rules. `url` is of a Redis; None is for jobs in memory."""

    url: str | None = None
    ids = Bundle("ids")

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.executor, self.clock, self.stack = Gated(), Clock(), AsyncExitStack()
        self.jobs: Jobs = self.loop.run_until_complete(self._start())
        self.owner: dict[str, str] = {}
        self.ended: dict[str, tuple[str, float]] = {}  # how, and until when it is kept
        self.of: dict[str, Execution] = {}
        self.shared: dict[bytes, Execution] = {}
        self.keys: dict[tuple[str, str], tuple[str, bytes]] = {}

    async def _start(self) -> Jobs:
        if self.url is not None:
            return await self.stack.enter_async_context(jobs_in_redis(self.url, self.executor, LIMITS, self.clock))
        return await self.stack.enter_async_context(jobs_in_memory(self.executor, LIMITS, self.clock))

    def teardown(self) -> None:
        self.loop.run_until_complete(self.stack.aclose())
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()

    @rule(target=ids, owner=st.sampled_from(OWNERS), body=st.sampled_from(BODIES), key=st.sampled_from(KEYS))
    def submit(self, owner: str, body: bytes, key: str | None) -> object:
        work, known = work_of(body), self.keys.get((owner, key or ""))
        if known is not None and self._kept(known[0]):
            call = self.jobs.submit(work, owner, key)
            if known[1] != body:
                with pytest.raises(KeyReused):
                    self.loop.run_until_complete(call)
            else:
                assert self.loop.run_until_complete(call).id == known[0]
            return multiple()
        if known is not None:
            return multiple()  # an expired job answers 410 for its key, see below
        job = self.loop.run_until_complete(self.jobs.submit(work, owner, key))
        assert job.id not in self.owner
        execution = self.shared.get(body)
        if execution is None or (execution.end is not None and execution.until - self.clock() <= TTL_S / 2):
            execution = self.shared[body] = Execution(body)
        execution.jobs.add(job.id)
        self.owner[job.id], self.of[job.id] = owner, execution
        if execution.end == "succeeded":
            self.ended[job.id] = "succeeded", 0.0
        if key is not None:
            self.keys[owner, key] = job.id, body
        return job.id

    @rule(id=ids)
    def cancel(self, id: str) -> None:
        if not self._kept(id):
            return
        self.loop.run_until_complete(self.jobs.cancel(id, self.owner[id]))
        if id not in self.ended:
            self.ended[id] = "cancelled", self.clock() + TTL_S
            execution = self.of[id]
            execution.jobs.discard(id)
            if not execution.jobs and self.shared.get(execution.body) is execution:
                del self.shared[execution.body]

    @precondition(lambda self: any(e.end is None for e in self.shared.values()))
    @rule(data=st.data(), succeeds=st.booleans())
    def end(self, data: st.DataObject, succeeds: bool) -> None:
        """Let one that runs end. Those that wait have their turn when two others have ended."""
        live = [e for e in self.shared.values() if e.end is None]
        self._until(lambda: any(e.body in self.executor.gates for e in live))
        running = sorted(e.body for e in live if e.body in self.executor.gates)
        execution = self.shared[data.draw(st.sampled_from(running))]
        self.executor.gates[execution.body].set_result(succeeds)
        execution.end, execution.until = ("succeeded" if succeeds else "failed"), self.clock() + TTL_S
        for id in execution.jobs:
            self.ended[id] = execution.end, execution.until
        if not succeeds:
            del self.shared[execution.body]

    @rule(seconds=st.sampled_from([1.0, TTL_S * 0.6]))
    def later(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule(id=ids)
    def others_see_nothing(self, id: str) -> None:
        other = next(owner for owner in OWNERS if owner != self.owner[id])
        for call in (self.jobs.get, self.jobs.result, self.jobs.cancel):
            with pytest.raises(UnknownJob):
                self.loop.run_until_complete(call(id, other))

    @invariant()
    def every_job_is_as_it_should_be(self) -> None:
        for id, owner in self.owner.items():
            if self._kept(id):
                expected = (self.ended[id][0],) if id in self.ended else ("queued", "running")
                self._until(lambda id=id, owner=owner, expected=expected: self._state(id, owner) in expected)  # type: ignore[misc]
                self._check_result(id, owner)
            else:
                with pytest.raises(JobExpired):
                    self.loop.run_until_complete(self.jobs.get(id, owner))

    def _check_result(self, id: str, owner: str) -> None:
        call = self.jobs.result(id, owner)
        error = {"failed": CorruptStream, "cancelled": JobCancelled, None: JobNotFinished}
        how = self.ended[id][0] if id in self.ended else None
        if how == "succeeded":
            assert self.loop.run_until_complete(call).data == self.of[id].body[::-1]
        else:
            with pytest.raises(error[how]):
                self.loop.run_until_complete(call)

    def _state(self, id: str, owner: str) -> str:
        return self.loop.run_until_complete(self.jobs.get(id, owner)).state

    def _kept(self, id: str) -> bool:
        if id not in self.ended:
            return True
        how, until = self.ended[id]
        return self.clock() < (self.of[id].until if how == "succeeded" else until)

    def _until(self, condition: object) -> None:
        """Let the loop run until something holds that other tasks bring about."""
        assert callable(condition)
        deadline = self.loop.time() + SETTLE_S
        while not condition():
            assert self.loop.time() < deadline
            self.loop.run_until_complete(asyncio.sleep(0.001))


def check(machine: type[Rules], examples: int) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


def test_jobs_in_memory() -> None:
    check(Rules, 150)


@pytest.mark.redis
def test_jobs_in_redis(redis_url: str) -> None:
    class InRedis(Rules):
        url = redis_url

    check(InRedis, 40)
    gc.collect()  # of what streaq's workers leave open, here and not in some other test
