"""POST /decode of a region, and at a size: what is computed and what is answered."""

from __future__ import annotations

from io import BytesIO

import httpx
import numpy as np
import pytest
from PIL import Image

from model.tiling import Region
from service.engine.port import DecodeRequest
from service.images.alpha import pack_alpha
from tests.service.conftest import MakeClient
from tests.service.fake_engine import FakeEngine, gradient, make_file
from tests.service.test_problems import check

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("query", "size", "region", "reduction"),
    [
        ("region=8,4,16,8", (16, 8), Region(8, 4, 16, 8), 1),
        ("region=pct:50,50,50,50", (32, 24), Region(32, 24, 32, 24), 1),
        ("width=16&gamma=0.5", (16, 12), None, 1),
        ("width=32&gamma=0", (32, 24), None, 2),
        ("width=16&gamma=0", (16, 12), None, 4),
        ("width=16&height=16&fit=contain&gamma=0", (16, 16), None, 4),
        ("width=12&height=12&fit=cover&gamma=0", (12, 12), Region(8, 0, 48, 48), 4),
        ("region=8,8,40,40&height=10&gamma=0", (10, 10), Region(8, 8, 40, 40), 4),
    ],
)
async def test_a_decode_of_a_region_or_at_a_size(
    client: httpx.AsyncClient,
    engine: FakeEngine,
    query: str,
    size: tuple[int, int],
    region: Region | None,
    reduction: int,
) -> None:
    answer = await client.post(f"/decode?{query}", content=make_file(64, 48))
    assert answer.status_code == 200, answer.text
    assert Image.open(BytesIO(answer.content)).size == size
    assert (int(answer.headers["x-cdc-width"]), int(answer.headers["x-cdc-height"])) == size
    assert float(answer.headers["x-cdc-bpp"]) == pytest.approx(8 * len(make_file(64, 48)) / (64 * 48), rel=1e-3)
    [request] = engine.requests
    assert isinstance(request, DecodeRequest)
    assert (request.region, request.reduction) == (region, reduction)
    whole = gradient(64, 48)
    part = region or Region(0, 0, 64, 48)
    if size == (part.width, part.height):
        expected = whole[part.top : part.top + part.height, part.left : part.left + part.width]
        np.testing.assert_array_equal(np.asarray(Image.open(BytesIO(answer.content))), expected)


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ("region=1,2,3", "region"),
        ("region=-1,0,3,3", "region"),
        ("region=64,0,3,3", None),
        ("width=0", "width"),
        ("height=65536", "height"),
        ("width=65&height=3&fit=cover", None),
        ("fit=fill", "fit"),
    ],
)
async def test_regions_and_sizes_that_make_no_sense(
    client: httpx.AsyncClient, query: str, parameter: str | None
) -> None:
    answer = await client.post(f"/decode?{query}", content=make_file(64, 48))
    body = check(answer, 422, "invalid-parameter")
    assert parameter is None or body["errors"][0]["parameter"] == parameter


async def test_an_answer_has_no_more_pixels_than_a_picture(make_client: MakeClient) -> None:
    client = await make_client(max_pixels=10_000)
    answer = await client.post("/decode?width=200&height=51&fit=contain", content=make_file(64, 48))
    check(answer, 422, "too-many-pixels")


async def test_the_region_counts_and_not_the_picture(make_client: MakeClient) -> None:
    client = await make_client(max_pixel_steps=17 * 100)
    check(await client.post("/decode", content=make_file(64, 48)), 413, "too-much-work")
    assert (await client.post("/decode?region=0,0,10,10", content=make_file(64, 48))).status_code == 200
    check(await client.post("/decode?region=0,0,10,11", content=make_file(64, 48)), 413, "too-much-work")


async def test_alpha_follows_the_region(client: httpx.AsyncClient) -> None:
    alpha = (np.arange(48 * 64).reshape(48, 64) % 251).astype(np.uint8)
    file = make_file(64, 48, sections=(pack_alpha(alpha),))
    answer = await client.post("/decode?region=8,4,16,8", content=file)
    image = Image.open(BytesIO(answer.content))
    np.testing.assert_array_equal(np.asarray(image.getchannel("A")), alpha[4:12, 8:24])
