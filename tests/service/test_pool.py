"""The engine with its real worker process and the shipped model."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model.container import Container, Header, Section, SectionType, parse
from model.container import pack as pack_file
from model.errors import CorruptStream, TargetUnreachable, UnknownModel
from service.bench import picture
from service.engine.messages import DeviceOptions, Ticked
from service.engine.pool import PoolEngine
from service.engine.port import DecodeRequest, EncodeRequest
from service.errors import Busy, Draining, NotReady, WorkerFailed
from service.work import Progress
from tests.polling import eventually

pytestmark = pytest.mark.anyio
START_SECONDS = 120.0


async def wait_until(condition: Callable[[], bool], seconds: float = START_SECONDS) -> None:
    """Ask again and again: a change of `status` is not announced."""
    await eventually(condition, seconds)


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
def options(tmp_path_factory: pytest.TempPathFactory) -> DeviceOptions:
    """Ticks that hold several rows on a busy machine too; the folder saves later workers from measuring the device."""
    folder = tmp_path_factory.mktemp("profiles")
    return DeviceOptions(precision="float32", threads=1, cache_dir=folder, tick_seconds=0.4)


@pytest.fixture(scope="module")
async def engine(anyio_backend: str, options: DeviceOptions) -> AsyncIterator[PoolEngine]:
    engine = PoolEngine([options], max_waiting=3)
    await engine.start()
    with pytest.raises(NotReady):
        await engine.run(EncodeRequest(np.zeros((1, 1, 3), np.uint8)))
    await wait_ready(engine)
    yield engine
    await engine.stop(5)


@pytest.fixture(scope="module")
async def file(engine: PoolEngine) -> Container:
    """An image of 256x256 pixels: many steps of it take long enough to be interrupted."""
    y, x = np.mgrid[:256, :256]
    pixels = np.stack([x // 2, y // 2, (x + y) // 4], axis=-1).astype(np.uint8)
    return parse((await engine.run(EncodeRequest(pixels))).data)


async def test_models(engine: PoolEngine) -> None:
    (info,) = engine.models()
    assert (info.name, info.default_steps, info.default_gamma) == ("cdc-lite", 1, 0.0)
    assert (info.max_steps, info.default) == (8193, True)


async def test_round_trip_with_progress(engine: PoolEngine, crop: np.ndarray) -> None:
    encoded = await engine.run(EncodeRequest(crop, quality=80, sections=(Section(SectionType.EXIF, b"II*\0"),)))
    assert (encoded.width, encoded.height, encoded.quality) == (150, 120, 80)
    assert encoded.bpp == pytest.approx(8 * len(encoded.data) / 18000)
    assert set(encoded.seconds) == {"queue", "analysis", "entropy"}
    seen: list[Progress] = []
    decoded = await engine.run(DecodeRequest(parse(encoded.data), steps=4, gamma=0.1), seen.append)
    assert seen == [Progress(k, 4) for k in (1, 2, 3, 4)]
    assert decoded.pixels.shape == crop.shape
    assert np.square(decoded.pixels.astype(float) - crop).mean() < 60
    assert decoded.sections == (Section(SectionType.EXIF, b"II*\0"),)
    assert set(decoded.seconds) == {"queue", "entropy", "conditioning", "denoise"}


async def test_errors_cross_the_process_boundary(engine: PoolEngine, file: Container) -> None:
    with pytest.raises(UnknownModel, match="installed: cdc-lite"):
        await engine.run(DecodeRequest(file, model="no such"))
    with pytest.raises(TargetUnreachable):
        await engine.run(EncodeRequest(np.zeros((64, 64, 3), np.uint8), max_bytes=3))
    codec_id = bytes.fromhex(engine.models()[0].codec_id)
    garbage = (Section(SectionType.HYPER, b"\0\1\2"), Section(SectionType.LATENT, b"\0"))
    with pytest.raises(CorruptStream):
        await engine.run(DecodeRequest(parse(pack_file(Header(codec_id, 64, 64, 0), garbage))))


async def test_company_never_changes_a_picture(engine: PoolEngine) -> None:
    """On a busy engine: bit-equal when deterministic, else at most one level on at most 0.1 % of the values."""
    sides = (64, 100, 128, 200)
    files = {side: parse((await engine.run(EncodeRequest(picture(side)))).data) for side in sides}
    requests = [
        DecodeRequest(files[side], steps=steps, gamma=gamma, seed=seed)
        for side in sides
        for steps, gamma, seed in ((1, 0.0, 0), (12, 0.8, 1), (20, 1.2, 2))
    ]
    alone = [(await engine.run(replace(r, deterministic=True))).pixels for r in requests]
    ticks: list[Ticked] = []
    engine._on_tick = ticks.append
    engine._slots[0].admission.max_waiting = 100
    mixed = [replace(r, deterministic=number % 3 == 0) for number, r in enumerate(requests * 2)]
    results = await asyncio.gather(*(engine.run(r) for r in mixed))
    engine._slots[0].admission.max_waiting = 3
    assert max(t.rows for t in ticks) > 1  # there was company
    for request, result, expected in zip(mixed, results, alone * 2, strict=True):
        difference = np.abs(result.pixels.astype(int) - expected)
        assert difference.max() <= (0 if request.deterministic else 1)
        assert (difference > 0).mean() <= 0.001


async def test_previews_come_with_every_step(engine: PoolEngine, crop: np.ndarray) -> None:
    data = parse((await engine.run(EncodeRequest(crop, quality=90))).data)
    seen: list[Progress] = []
    await engine.run(DecodeRequest(data, steps=3, gamma=0.1, previews=True), seen.append)
    assert [p.step for p in seen] == [1, 2, 3]
    for progress in seen:
        assert progress.preview is not None
        image = np.asarray(Image.open(BytesIO(progress.preview)))
        assert image.shape == crop.shape
        assert np.square(image.astype(float) - crop).mean() < 250


async def test_encodes_share_passes_and_files_decode(engine: PoolEngine, crop: np.ndarray) -> None:
    ticks: list[Ticked] = []
    engine._on_tick = ticks.append
    engine._slots[0].admission.max_waiting = 100
    pictures = [np.roll(crop, 7 * k, axis=1) for k in range(6)]
    encoded = await asyncio.gather(*(engine.run(EncodeRequest(p, quality=90)) for p in pictures))
    engine._slots[0].admission.max_waiting = 3
    assert sum(t.rows for t in ticks if t.kind == "analyse") == 6
    for original, result in zip(pictures, encoded, strict=True):
        decoded = await engine.run(DecodeRequest(parse(result.data), steps=1, gamma=0.0))
        assert np.square(decoded.pixels.astype(float) - original).mean() < 60


async def test_a_full_backlog_is_refused_with_the_time_to_wait(engine: PoolEngine, file: Container) -> None:
    admission = engine._slots[0].admission
    before = (admission.max_backlog_seconds, admission.max_bytes)
    admission.max_backlog_seconds, admission.max_bytes = 0.001, 1
    task = asyncio.create_task(engine.run(DecodeRequest(file, steps=100, gamma=1.0)))  # alone it is let in
    await asyncio.sleep(0)
    assert engine.status().backlog_seconds > 1
    with pytest.raises(Busy, match="of work are waiting") as refused:
        await engine.run(DecodeRequest(file, steps=1))
    assert refused.value.retry_after >= 1
    admission.max_backlog_seconds = 1e9
    with pytest.raises(Busy, match="memory"):
        await engine.run(DecodeRequest(file, steps=1))
    admission.max_backlog_seconds, admission.max_bytes = before
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert engine.status().backlog_seconds == 0
    assert not admission.permits


async def test_cancelling_frees_the_worker_within_a_step(engine: PoolEngine, file: Container) -> None:
    progress = Watched()
    task = asyncio.create_task(engine.run(DecodeRequest(file, steps=200, gamma=1.0), progress))
    await progress.next()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(20):  # 200 steps take longer
        await engine.run(DecodeRequest(file, steps=1))
    assert len(progress.seen) < 100
    assert engine.status().waiting == engine.status().running == 0


async def test_too_many_waiting_are_refused(engine: PoolEngine, file: Container) -> None:
    tasks = [asyncio.create_task(engine.run(DecodeRequest(file, steps=30, gamma=1.0))) for _ in range(4)]
    await asyncio.sleep(0)
    with pytest.raises(Busy) as refused:
        await engine.run(DecodeRequest(file))
    assert refused.value.retry_after > 0
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_killed_worker_is_replaced_and_its_work_done_again(engine: PoolEngine, file: Container) -> None:
    expected = (await engine.run(DecodeRequest(file, steps=3, gamma=1.0))).pixels
    progress = Watched()
    running = asyncio.create_task(engine.run(DecodeRequest(file, steps=6, gamma=1.0), progress))
    waiting = asyncio.create_task(engine.run(DecodeRequest(file, steps=3, gamma=1.0)))
    await progress.next()
    kill_worker(engine)
    first, second = await asyncio.gather(running, waiting)
    assert first.steps == 6
    np.testing.assert_array_equal(second.pixels, expected)
    assert engine.status().restarts == 1


@pytest.mark.slow
async def test_a_request_that_kills_twice_is_given_up(engine: PoolEngine, file: Container) -> None:
    progress = Watched()
    task = asyncio.create_task(engine.run(DecodeRequest(file, steps=200, gamma=1.0), progress))
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


async def test_stop_drains(options: DeviceOptions) -> None:
    engine = PoolEngine([options])
    await engine.start()
    await wait_ready(engine)
    data = parse((await engine.run(EncodeRequest(np.zeros((64, 64, 3), np.uint8)))).data)
    task = asyncio.create_task(engine.run(DecodeRequest(data, steps=5, gamma=1.0)))
    await asyncio.sleep(0)
    stopping = asyncio.create_task(engine.stop(30))
    await asyncio.sleep(0)
    with pytest.raises(Draining):
        await engine.run(DecodeRequest(data))
    assert (await task).steps == 5
    await stopping


@pytest.mark.slow
async def test_a_model_folder_with_rubbish_never_gets_ready(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.safetensors").write_bytes(b"rubbish")
    engine = PoolEngine([DeviceOptions(models_dir=tmp_path)])
    await engine.start()
    await wait_until(lambda: engine.status().restarts > 0)
    assert not engine.status().ready
    await engine.stop(0)
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines() if "WeightsError" in line]
    assert lines  # written by the worker's process, as the service writes its own
    assert {line["level"] for line in lines} == {"critical"}
    assert "Traceback" in lines[0]["exception"]
