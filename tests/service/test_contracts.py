"""The fakes of the tests are held to the real things: one set of checks over both."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
from collections.abc import AsyncIterator
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from model.container import Section, SectionType, parse
from service.bench import picture
from service.engine.device import TorchDevice
from service.engine.loop import Device
from service.engine.messages import DeviceOptions
from service.engine.pool import PoolEngine
from service.engine.port import DecodeRequest, EncodeRequest, Engine
from service.engine.worker_process import WorkerProcess
from service.jobs.attempts import Executes
from service.jobs.executor import Executor
from service.jobs.limits import Budget, Limits
from service.metrics import Metrics
from service.work import DecodeOptions, Options, Progress
from tests.service.fake_engine import FakeEngine, make_file
from tests.service.jobs.conftest import FakeExecutor
from tests.service.test_loop import FakeDevice
from tests.service.test_pool import wait_ready
from tests.service.test_pool_deaths import FakeWorker

EXIF = Section(SectionType.EXIF, b"II*\0")


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> DeviceOptions:
    folder = tmp_path_factory.mktemp("profiles")
    return DeviceOptions(precision="float32", threads=1, cache_dir=folder, tick_seconds=0.05)


@pytest.fixture(scope="module", params=["fake", "real"])
async def engine(
    anyio_backend: str, request: pytest.FixtureRequest, options: DeviceOptions
) -> AsyncIterator[FakeEngine | PoolEngine]:
    engine = FakeEngine() if request.param == "fake" else PoolEngine([options])
    await engine.start()
    if isinstance(engine, PoolEngine):
        await wait_ready(engine)
    yield engine
    await engine.stop(0)


class TestEngines:
    pytestmark = pytest.mark.anyio

    async def test_models_and_state(self, engine: Engine) -> None:
        infos = engine.models()
        assert [info.default for info in infos].count(True) == 1
        assert all(len(bytes.fromhex(info.codec_id)) == 8 and info.default_steps >= 1 for info in infos)
        status = engine.status()
        assert (status.ready, status.draining, status.waiting, status.running) == (True, False, 0, 0)
        assert 0 <= engine.seconds_of(0) <= engine.seconds_of(1e6) < engine.seconds_of(1e9)

    @pytest.mark.parametrize("quality", [None, 1, 100])
    async def test_an_encode(self, engine: Engine, quality: int | None) -> None:
        found = await engine.run(EncodeRequest(picture(40)[:30], quality=quality, sections=(EXIF,)))
        container = parse(found.data)
        info = next(info for info in engine.models() if info.default)
        assert (found.width, found.height, found.model, found.codec_id) == (40, 30, info.name, info.codec_id)
        assert (container.header.width, container.header.height, container.header.rate) == (40, 30, found.rate)
        assert container.header.codec_id.hex() == info.codec_id
        assert found.quality == (quality or 50)
        assert found.bpp == 8 * len(found.data) / 1200
        assert container.section(SectionType.EXIF) == EXIF.data
        assert {"queue", "entropy"} <= set(found.seconds)

    async def test_a_decode(self, engine: Engine) -> None:
        container = parse((await engine.run(EncodeRequest(picture(40)[:30], sections=(EXIF,)))).data)
        seen: list[Progress] = []
        asked = DecodeRequest(container, steps=3, gamma=0.5, seed=11)
        found = await engine.run(asked, seen.append)
        assert (found.pixels.shape, found.pixels.dtype) == ((30, 40, 3), np.uint8)
        assert (found.steps, found.gamma, found.seed, found.sections) == (3, 0.5, 11, (EXIF,))
        assert seen == [Progress(step, 3) for step in (1, 2, 3)]
        assert {"queue", "entropy", "denoise"} <= set(found.seconds)
        np.testing.assert_array_equal((await engine.run(asked)).pixels, found.pixels)
        unasked = await engine.run(DecodeRequest(container))
        info = next(info for info in engine.models() if info.default)
        assert unasked.steps == info.default_steps
        assert unasked.seed == (await engine.run(DecodeRequest(container))).seed

    async def test_who_goes_away_leaves_nothing(self, engine: Engine) -> None:
        container = parse((await engine.run(EncodeRequest(picture(64)))).data)
        if isinstance(engine, FakeEngine):
            engine.delay = 60
        task = asyncio.create_task(engine.run(DecodeRequest(container, steps=200, gamma=1.0)))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (engine.status().waiting, engine.status().running) == (0, 0)


class TestExecutors:
    pytestmark = pytest.mark.anyio

    @pytest.fixture(params=["fake", "real"])
    def executor(self, request: pytest.FixtureRequest) -> FakeExecutor | Executor:
        if request.param == "fake":
            return FakeExecutor()
        return Executor(FakeEngine(), Limits(10**6, 100, 10**9), Budget(10**6, "pixels"), Metrics())

    async def test_a_decode(self, executor: FakeExecutor | Executor) -> None:
        asked: Options = DecodeOptions(steps=3, seed=5)
        body = make_file(20, 10)
        work = await executor.admit(body, asked)
        assert (work.body, work.options, work.steps) == (body, asked, 3)
        assert work.digest == hashlib.sha256(body).hexdigest()
        assert work.fingerprint() == (await executor.admit(body, asked)).fingerprint()
        seen: list[Progress] = []
        result = await executor.run(work, seen.append)
        assert [(p.step, p.steps) for p in seen] == [(1, 3), (2, 3), (3, 3)]
        assert result.media_type == "image/png"
        assert result.digest == hashlib.sha256(result.data).hexdigest()
        assert result.metadata.steps == 3
        assert executor.seconds_of(work) > 0
        assert executor.generation()


def methods(kind: type) -> dict[str, list[str]]:
    """Public methods with the names of their parameters."""
    found = inspect.getmembers(kind, inspect.isfunction)
    return {n: list(inspect.signature(f).parameters) for n, f in found if not n.startswith("_")}


@pytest.mark.parametrize(
    ("fake", "real"),
    [(FakeWorker, WorkerProcess), (FakeDevice, Device), (FakeExecutor, Executes), (FakeEngine, Engine)],
)
def test_a_fake_takes_what_the_real_one_takes(fake: type, real: type) -> None:
    wanted = methods(real)
    had = methods(fake)
    assert {name: had.get(name) for name in wanted} == wanted


def test_the_device_has_what_the_loop_asks_for(options: DeviceOptions, tmp_path: Path) -> None:
    """Both devices take a task through the same calls."""
    devices: list[Device] = [FakeDevice(), TorchDevice(options)]
    for device in devices:
        assert {f.name for f in fields(device.profile)} >= {"seconds", "tick_seconds"}
        task = device.task(7, EncodeRequest(picture(64), quality=1))
        task.prepare()
        units = task.ready()
        assert [unit.request for unit in units] == [7]
        assert task.ready() == []
        assert not task.done()
        device.run([(task, unit) for unit in units])
        assert task.done()
        assert device.finish([task])[0].model
