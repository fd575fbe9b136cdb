"""The engine with its real worker process and the shipped model."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import numpy as np
import pytest

from model.container import Header, Section, SectionType
from model.container import pack as pack_file
from model.errors import CorruptStream, TargetUnreachable, UnknownModel
from service.engine.job import DecodeRequest, EncodeRequest, Progress
from service.engine.messages import RunnerOptions
from service.engine.pool import PoolEngine
from service.errors import Busy, Draining, NotReady, WorkerFailed

pytestmark = pytest.mark.anyio
START_SECONDS = 120.0


async def wait_until(condition: Callable[[], bool], seconds: float = START_SECONDS) -> None:
    """Ask again and again: a change of `status` is not announced."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - the engine has no event to wait for
            await asyncio.sleep(0.01)


async def wait_ready(engine: PoolEngine) -> None:
    await wait_until(lambda: engine.status().ready)


class Watched:
    """Progress of a decode: what came so far, and an event that is set when something does."""

    def __init__(self) -> None:
        self.seen: list[Progress] = []
        self._advanced = asyncio.Event()

    def __call__(self, progress: Progress) -> None:
        self.seen.append(progress)
        self._advanced.set()

    async def next(self) -> None:
        """Wait for a step that ends from now on."""
        self._advanced.clear()
        async with asyncio.timeout(START_SECONDS):
            await self._advanced.wait()


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> RunnerOptions:
    """Short ticks end the measuring of the device early, and the folder saves later workers from it."""
    return RunnerOptions(precision="float32", cache_dir=tmp_path_factory.mktemp("profiles"), tick_seconds=0.05)


@pytest.fixture(scope="module")
async def engine(anyio_backend: str, options: RunnerOptions) -> AsyncIterator[PoolEngine]:
    engine = PoolEngine([options], max_waiting=3)
    await engine.start()
    with pytest.raises(NotReady):
        await engine.encode(EncodeRequest(np.zeros((1, 1, 3), np.uint8)))
    await wait_ready(engine)
    yield engine
    await engine.stop(5)


@pytest.fixture(scope="module")
async def file(engine: PoolEngine) -> bytes:
    """A picture of 256x256 pixels: many steps of it take long enough to be interrupted."""
    y, x = np.mgrid[:256, :256]
    pixels = np.stack([x // 2, y // 2, (x + y) // 4], axis=-1).astype(np.uint8)
    return (await engine.encode(EncodeRequest(pixels))).data


async def test_models(engine: PoolEngine) -> None:
    (info,) = engine.models()
    assert (info.name, info.default_steps, info.max_steps, info.default) == ("cdc-lite", 17, 8193, True)


async def test_round_trip_with_progress(engine: PoolEngine, crop: np.ndarray) -> None:
    encoded = await engine.encode(EncodeRequest(crop, quality=80, sections=(Section(SectionType.EXIF, b"II*\0"),)))
    assert (encoded.width, encoded.height, encoded.quality) == (150, 120, 80)
    assert encoded.bpp == pytest.approx(8 * len(encoded.data) / 18000)
    seen: list[Progress] = []
    decoded = await engine.decode(DecodeRequest(encoded.data, steps=4, gamma=0.0), seen.append)
    assert seen == [Progress(k, 4) for k in (1, 2, 3, 4)]
    assert decoded.pixels.shape == crop.shape
    assert np.square(decoded.pixels.astype(float) - crop).mean() < 60
    assert decoded.sections == (Section(SectionType.EXIF, b"II*\0"),)
    assert set(decoded.seconds) == {"queue", "entropy", "denoise"}


async def test_errors_cross_the_process_boundary(engine: PoolEngine, file: bytes) -> None:
    with pytest.raises(UnknownModel, match="installed: cdc-lite"):
        await engine.decode(DecodeRequest(file, model="no such"))
    with pytest.raises(TargetUnreachable):
        await engine.encode(EncodeRequest(np.zeros((64, 64, 3), np.uint8), max_bytes=3))
    codec_id = bytes.fromhex(engine.models()[0].codec_id)
    garbage = (Section(SectionType.HYPER, b"\0\1\2"), Section(SectionType.LATENT, b"\0"))
    with pytest.raises(CorruptStream):
        await engine.decode(DecodeRequest(pack_file(Header(codec_id, 64, 64, 0), garbage)))


async def test_cancelling_frees_the_worker_within_a_step(engine: PoolEngine, file: bytes) -> None:
    progress = Watched()
    task = asyncio.create_task(engine.decode(DecodeRequest(file, steps=200), progress))
    await progress.next()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(20):  # 200 steps take longer
        await engine.decode(DecodeRequest(file, steps=1))
    assert len(progress.seen) < 100
    assert engine.status().waiting == engine.status().running == 0


async def test_too_many_waiting_are_refused(engine: PoolEngine, file: bytes) -> None:
    tasks = [asyncio.create_task(engine.decode(DecodeRequest(file, steps=30))) for _ in range(4)]
    await asyncio.sleep(0.05)
    with pytest.raises(Busy) as refused:
        await engine.decode(DecodeRequest(file))
    assert refused.value.retry_after > 0
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_killed_worker_is_replaced_and_its_work_done_again(engine: PoolEngine, file: bytes) -> None:
    expected = (await engine.decode(DecodeRequest(file, steps=3))).pixels
    progress = Watched()
    running = asyncio.create_task(engine.decode(DecodeRequest(file, steps=6), progress))
    waiting = asyncio.create_task(engine.decode(DecodeRequest(file, steps=3)))
    await progress.next()
    kill_worker(engine)
    first, second = await asyncio.gather(running, waiting)
    assert first.steps == 6
    np.testing.assert_array_equal(second.pixels, expected)
    assert engine.status().restarts == 1


@pytest.mark.slow
async def test_a_request_that_kills_twice_is_given_up(engine: PoolEngine, file: bytes) -> None:
    progress = Watched()
    task = asyncio.create_task(engine.decode(DecodeRequest(file, steps=200), progress))
    for _ in range(2):
        await progress.next()
        kill_worker(engine)
        await wait_until(lambda: not engine.status().ready, 20)
    with pytest.raises(WorkerFailed):
        await task
    await wait_ready(engine)


def kill_worker(engine: PoolEngine) -> None:
    worker = engine._slots[0].worker
    assert worker is not None
    pid = worker.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)


async def test_stop_drains(options: RunnerOptions) -> None:
    engine = PoolEngine([options])
    await engine.start()
    await wait_ready(engine)
    data = (await engine.encode(EncodeRequest(np.zeros((64, 64, 3), np.uint8)))).data
    task = asyncio.create_task(engine.decode(DecodeRequest(data, steps=5)))
    await asyncio.sleep(0)
    stopping = asyncio.create_task(engine.stop(30))
    await asyncio.sleep(0)
    with pytest.raises(Draining):
        await engine.decode(DecodeRequest(data))
    assert (await task).steps == 5
    await stopping


@pytest.mark.slow
async def test_a_model_folder_with_rubbish_never_gets_ready(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.safetensors").write_bytes(b"rubbish")
    engine = PoolEngine([RunnerOptions(models_dir=tmp_path)])
    await engine.start()
    await wait_until(lambda: engine.status().restarts > 0)
    assert not engine.status().ready
    await engine.stop(0)
    assert "WeightsError" in capfd.readouterr().err
