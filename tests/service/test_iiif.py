"""The IIIF Image API 3.0: the tables of its sections 4.1 and 4.2, info.json, what is refused."""

from __future__ import annotations

from io import BytesIO

import httpx
import pytest
from PIL import Image

from service.api.iiif import options_of
from service.api.refusals import MalformedRequest
from service.framing import frame_of
from tests.service.conftest import MakeClient, image_file, photograph
from tests.service.fake_engine import make_file
from tests.service.test_problems import check

pytestmark = pytest.mark.anyio
WHOLE = (300, 200)  # the image of the specification's examples
ASYNC = {"Prefer": "respond-async, wait=10"}
LEVEL_1 = '<http://iiif.io/api/image/3/level1.json>;rel="profile"'


def size_of(region: str, size: str) -> tuple[int, int]:
    o = options_of(region, size, WHOLE, "png")
    return frame_of(WHOLE, o.region, o.width, o.height, o.fit).size


@pytest.mark.parametrize(
    ("region", "expected"),
    [
        ("full", (300, 200)),
        ("square", (200, 200)),
        ("125,15,120,140", (120, 140)),
        ("pct:41.6,7.5,40,70", (120, 140)),
        ("125,15,200,200", (175, 185)),
        ("pct:41.6,7.5,66.6,100", (175, 185)),
    ],
)
def test_regions(region: str, expected: tuple[int, int]) -> None:
    assert size_of(region, "max") == expected


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ("max", (300, 200)),
        ("150,", (150, 100)),
        (",150", (225, 150)),
        ("pct:50", (150, 100)),
        ("pct:0.5", (2, 1)),
        ("225,100", (225, 100)),
        ("!225,100", (150, 100)),
        ("!500,500", (300, 200)),
        ("300,200", (300, 200)),
        ("1,", (1, 1)),
    ],
)
def test_sizes(size: str, expected: tuple[int, int]) -> None:
    assert size_of("full", size) == expected


@pytest.mark.parametrize(
    ("region", "size"),
    [
        *(
            (region, "max")
            for region in ("", "Full", "1,2,3", "0,0,0,5", "0,0,5,0", "-1,0,5,5", "300,0,5,5", "a,b,c,d")
        ),
        *((region, "max") for region in ("pct:101,0,5,5", "pct:1,2,3", "0,0,1e3,5", "1,2,3,4,5", "९,0,5,5")),
        *(("full", size) for size in ("", ",", "full", "0,", ",0", "0,5", "301,", ",201", "301,5", "5,201", "1e2,")),
        *(
            ("full", size)
            for size in ("pct:0", "pct:100.5", "pct:-5", "pct:", "^max", "^400,", "!5,", "!,5", "!0,5", "٣,")
        ),
        ("0,0,10,10", "11,"),
        ("full", "9" * 60 + ","),
    ],
)
def test_what_is_none(region: str, size: str) -> None:
    with pytest.raises(MalformedRequest):
        options_of(region, size, WHOLE, "png")


async def job_of(client: httpx.AsyncClient) -> str:
    answer = await client.post("/encode", content=image_file(photograph(300, 200)), headers=ASYNC)
    return answer.headers["location"].rsplit("/", 1)[1]


async def test_the_image_is_described(client: httpx.AsyncClient) -> None:
    id = await job_of(client)
    base = await client.get(f"/iiif/{id}")
    assert (base.status_code, base.headers["location"]) == (303, f"/iiif/{id}/info.json")
    answer = await client.get(base.headers["location"])
    assert answer.headers["content-type"] == "application/json"
    assert (answer.headers["access-control-allow-origin"], answer.headers["link"]) == ("*", LEVEL_1)
    info = answer.json()
    assert info["@context"] == "http://iiif.io/api/image/3/context.json"
    assert info["id"] == f"http://cdc.test/iiif/{id}"
    assert (info["type"], info["protocol"]) == ("ImageService3", "http://iiif.io/api/image")
    assert (info["profile"], info["width"], info["height"]) == ("level1", 300, 200)
    assert info["tiles"] == [{"width": 512, "scaleFactors": [1]}]
    linked = await client.get(base.headers["location"], headers={"Accept": "application/ld+json"})
    assert linked.headers["content-type"] == f'application/ld+json;profile="{info["@context"]}"'
    assert linked.json() == info


async def test_images(client: httpx.AsyncClient) -> None:
    id = await job_of(client)
    for path, kind, size in (
        ("full/max/0/default.jpg", "JPEG", (300, 200)),
        ("square/100,/0/color.png", "PNG", (100, 100)),
        ("pct:0,0,50,50/pct:10/0/default.webp", "WEBP", (15, 10)),
        ("pct%3A0,0,50,50/30,90/0/default.png", "PNG", (30, 90)),
    ):
        answer = await client.get(f"/iiif/{id}/{path}")
        assert answer.status_code == 200, answer.text
        assert (answer.headers["access-control-allow-origin"], answer.headers["link"]) == ("*", LEVEL_1)
        with Image.open(BytesIO(answer.content)) as image:
            assert (image.format, image.size) == (kind, size)


async def test_pixels_are_those_of_a_decode(client: httpx.AsyncClient) -> None:
    id = await job_of(client)
    file = (await client.get(f"/jobs/{id}/result")).content
    query = {"region": "30,20,100,80", "width": 50}
    expected = await client.post("/decode", params=query, content=file)
    assert (await client.get(f"/iiif/{id}/30,20,100,80/50,/0/default.png")).content == expected.content


@pytest.mark.parametrize(
    "path",
    [
        "full/max/90/default.jpg",
        "full/max/!0/default.jpg",
        "full/max/0/gray.jpg",
        "full/max/0/default.tif",
        "full/^max/0/default.jpg",
        "full/301,/0/default.jpg",
        "300,0,1,1/max/0/default.jpg",
        "x/max/0/default.jpg",
    ],
)
async def test_what_is_not_supported(client: httpx.AsyncClient, path: str) -> None:
    check(await client.get(f"/iiif/{await job_of(client)}/{path}"), 400, "malformed-request")


@pytest.mark.parametrize("over_sync", ["refuse", "job"])
async def test_what_is_only_done_as_a_job(make_client: MakeClient, over_sync: str) -> None:
    client = await make_client(max_sync_pixel_steps=17 * 20_000, over_sync=over_sync)
    id = await job_of(client)
    check(await client.get(f"/iiif/{id}/full/max/0/default.jpg"), 413, "too-much-work")
    assert (await client.get(f"/iiif/{id}/0,0,200,100/max/0/default.jpg")).status_code == 200


async def test_only_files_of_the_callers_own_jobs(make_client: MakeClient) -> None:
    client = await make_client()
    mine = {"Authorization": "Bearer mine"}
    sent = await client.post("/encode", content=image_file(photograph()), headers=ASYNC | mine)
    id = sent.headers["location"].rsplit("/", 1)[1]
    for path in (f"/iiif/{id}/info.json", f"/iiif/{id}/full/max/0/default.jpg"):
        check(await client.get(path), 404, "unknown-job")
        assert (await client.get(path, headers=mine)).status_code == 200
    check(await client.get("/iiif/none/info.json"), 404, "unknown-job")
    decode = await client.post("/decode", content=make_file(16, 16), headers=ASYNC)
    check(await client.get(f"/iiif/{decode.headers['location'].rsplit('/', 1)[1]}/info.json"), 404, "unknown-job")
