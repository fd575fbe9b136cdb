"""Workers that die, seen from the pool: who is tried again, who is given up. The workers are made up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import numpy as np
import pytest

from service.engine import pool
from service.engine.messages import Cancel, DeviceOptions, Finished, FromWorker, Ready, Started, Submit, ToWorker
from service.engine.pool import PoolEngine
from service.engine.port import EncodeRequest, EncodeResult, ModelInfo
from service.errors import WorkerFailed

pytestmark = pytest.mark.anyio
MODEL = ModelInfo("lite", "00", default_steps=1, max_steps=1, parameters=1, default=True)
RESULT = EncodeResult(b"file", "lite", "00", 8, 8, 0, 50, 1.0)


class FakeWorker:
    """A worker that is ready at once and does what its test says."""

    living: list[FakeWorker]

    def __init__(
        self,
        options: DeviceOptions,
        on_message: Callable[[FakeWorker, FromWorker], None],
        on_death: Callable[[FakeWorker], None],
    ) -> None:
        self.requests: dict[str, int] = {}  # by model, which names a request here
        self.exit_code = -9
        self._on_message, self._on_death = on_message, on_death
        self.living.append(self)
        asyncio.get_running_loop().call_soon(self.say, Ready((MODEL,), "cpu", 1e-6))

    def say(self, message: FromWorker) -> None:
        self._on_message(self, message)

    def send(self, message: ToWorker) -> None:
        if isinstance(message, Submit):
            self.requests[message.order.model or ""] = message.number
        elif isinstance(message, Cancel):
            self.requests = {name: job for name, job in self.requests.items() if job != message.number}

    def finish(self, name: str) -> None:
        self.say(Finished(self.requests.pop(name), RESULT))

    def die(self) -> None:
        self.living.remove(self)
        self._on_death(self)

    def close(self) -> None: ...

    def end(self, patience_s: float) -> None: ...


@pytest.fixture
async def engine(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[PoolEngine]:
    monkeypatch.setattr(FakeWorker, "living", [], raising=False)
    monkeypatch.setattr(pool, "WorkerProcess", FakeWorker)
    monkeypatch.setattr(pool, "RESTART_DELAYS", (0.0,))
    engine = PoolEngine([DeviceOptions()])
    await engine.start()
    await settle()
    yield engine
    await engine.stop(0)


async def settle() -> None:
    """Let everything that is due on the event loop happen."""
    for _ in range(20):
        await asyncio.sleep(0)


def encode(engine: PoolEngine, name: str) -> asyncio.Task[EncodeResult]:
    return asyncio.create_task(engine.run(EncodeRequest(np.zeros((8, 8, 3), np.uint8), name)))


async def test_a_request_that_kills_while_it_prepares_is_given_up_at_the_second_death(engine: PoolEngine) -> None:
    task = encode(engine, "killer")
    for _ in range(2):
        await settle()
        (worker,) = FakeWorker.living
        assert set(worker.requests) == {"killer"}
        worker.die()  # before it ever said that it had started
    with pytest.raises(WorkerFailed):
        await task
    await settle()
    assert engine.status().restarts == 2
    assert not FakeWorker.living[0].requests


async def test_a_killer_takes_no_neighbour_with_it(engine: PoolEngine) -> None:
    tasks = {name: encode(engine, name) for name in ("one", "killer", "two", "three")}
    await settle()
    (worker,) = FakeWorker.living
    worker.say(Started(worker.requests["one"]))
    worker.die()
    tasks["late"] = encode(engine, "late")
    deaths = 1
    async with asyncio.timeout(10):
        while not all(task.done() for task in tasks.values()):
            await settle()
            (worker,) = FakeWorker.living
            suspects = set(worker.requests) - {"late"}
            assert len(suspects) <= 1  # a suspect never has the company of another
            if "killer" in suspects:
                worker.die()
                deaths += 1
                continue
            for name in list(worker.requests):
                worker.finish(name)
    assert deaths == 2
    assert isinstance(tasks.pop("killer").exception(), WorkerFailed)
    assert [task.result() for task in tasks.values()] == [RESULT] * 4


async def test_a_cancelled_request_makes_room_for_the_next_suspect(engine: PoolEngine) -> None:
    first, second = encode(engine, "first"), encode(engine, "second")
    await settle()
    FakeWorker.living[0].die()
    await settle()
    (worker,) = FakeWorker.living
    assert set(worker.requests) == {"first"}
    first.cancel()
    await settle()
    assert set(worker.requests) == {"second"}
    worker.finish("second")
    assert await second == RESULT


async def test_the_request_id_goes_with_the_work(engine: PoolEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    from service.logs import request_id

    sent: list[ToWorker] = []
    monkeypatch.setattr(FakeWorker, "send", lambda self, message: sent.append(message))
    token = request_id.set("abc")
    task = encode(engine, "one")
    await settle()
    request_id.reset(token)
    task.cancel()
    assert isinstance(sent[0], Submit)
    assert sent[0].request_id == "abc"
