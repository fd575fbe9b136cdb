"""A model of the second generation, installed as the default one, through the engine with its real worker process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from model.checkpoint import export_weights
from model.container import parse
from model.errors import InvalidParameter
from service.engine.messages import DeviceOptions
from service.engine.pool import PoolEngine
from service.engine.port import DecodeRequest, EncodeRequest
from service.work import Progress
from tests.model.test_second import NAME, small_tensors

pytestmark = pytest.mark.anyio
START_SECONDS = 120.0


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def engine(anyio_backend: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[PoolEngine]:
    folder = tmp_path_factory.mktemp("models")
    path: Path = folder / "second.safetensors"
    export_weights(small_tensors(), path, name="cdc-lite", version=99, provenance="a test", architecture=NAME)
    options = DeviceOptions(precision="float32", threads=1, models_dir=folder, tick_seconds=0.05)
    engine = PoolEngine([options], max_waiting=3)
    await engine.start()
    async with asyncio.timeout(START_SECONDS):
        while not engine.status().ready:
            await asyncio.sleep(0.05)
    yield engine
    await engine.stop(5)


async def test_the_model_says_what_it_can(engine: PoolEngine) -> None:
    (info,) = engine.models()
    assert (info.name, info.default, info.one_rate) == ("cdc-lite", True, False)
    assert (info.default_steps, info.max_steps, info.direct) == (1, 1, True)
    assert info.decode_cost(64, 64, 1) == 0.5 * 64 * 64


async def test_encode_and_decode(engine: PoolEngine, photograph: np.ndarray) -> None:
    pixels = np.ascontiguousarray(photograph[:100, :150])
    seen: list[Progress] = []
    encoded = await engine.run(EncodeRequest(pixels, quality=80))
    decoded = await engine.run(DecodeRequest(parse(encoded.data), previews=True), seen.append)
    assert encoded.quality == 80
    assert (decoded.steps, decoded.gamma, decoded.pixels.shape) == (1, 0.0, pixels.shape)
    assert [(p.step, p.steps) for p in seen] == [(1, 1)]
    again = await engine.run(DecodeRequest(parse(encoded.data), steps=1, gamma=0.0, seed=3, deterministic=True))
    np.testing.assert_array_equal(again.pixels, decoded.pixels)


async def test_decodes_at_several_rates_share_the_device(engine: PoolEngine, photograph: np.ndarray) -> None:
    files = [(await engine.run(EncodeRequest(photograph[:64, :64], quality=q))).data for q in (1, 50, 100)]
    alone = [(await engine.run(DecodeRequest(parse(f)))).pixels for f in files]
    together = await asyncio.gather(*(engine.run(DecodeRequest(parse(f))) for f in files))
    for result, expected in zip(together, alone, strict=True):
        assert np.abs(result.pixels.astype(int) - expected).max() <= 1


async def test_what_it_cannot_do_is_a_typed_error(engine: PoolEngine) -> None:
    encoded = await engine.run(EncodeRequest(np.zeros((64, 64, 3), np.uint8)))
    with pytest.raises(InvalidParameter, match=r"1\.\.1 steps, not 4"):
        await engine.run(DecodeRequest(parse(encoded.data), steps=4))
    with pytest.raises(InvalidParameter, match="without noise"):
        await engine.run(DecodeRequest(parse(encoded.data), gamma=0.5))
