"""What callers know from other clients: options per call and per copy, results to files, many at a time, reprs."""

from __future__ import annotations

import threading
from io import BytesIO
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from cdc_client import Client, ConnectionFailed, DamagedFile, Encoded, InvalidParameter, TimedOut, Unusable
from cdc_client.saving import FileSink
from tests.client.conftest import QUICK, Served
from tests.service.conftest import image_file, photograph
from tests.service.fake_engine import FakeEngine, make_file

FILE = make_file(40, 30)
PHOTO = image_file(photograph())


def test_a_timeout_of_one_call(served: Served, engine: FakeEngine) -> None:
    with served.client(max_retries=0) as cdc:
        engine.delay = 5
        with pytest.raises(TimedOut, match="POST /decode: ReadTimeout"):
            cdc.decode(FILE, timeout=0.2)
        engine.delay = 0
        assert cdc.config.timeout == 330
        assert cdc.models(timeout=5)


def test_a_copy_with_other_options(served: Served) -> None:
    with served.client("first") as cdc:
        other = cdc.with_options(timeout=7, max_retries=0, user_agent="mine")
        assert (other.config.timeout, other.config.max_retries, other.config.api_key) == (7, 0, "first")
        assert cdc.config.timeout == 330
        assert other.models() == cdc.models()
        with pytest.raises(ValueError, match="max_retries"):
            cdc.with_options(max_retries=-1)


def test_reprs_show_what_matters_and_no_key(served: Served) -> None:
    with served.client("secret") as cdc:
        assert repr(cdc) == "Client('http://cdc')"
        assert repr(served.async_client()) == "AsyncClient('http://cdc')"
        job = cdc.submit_decode(FILE, steps=2)
        job.wait()
        assert repr(job) == f"<Job {job.id} decode succeeded, step 2 of 2>"


def test_a_result_goes_to_a_file(served: Served, tmp_path: Path) -> None:
    with served.client() as cdc:
        small = cdc.encode(PHOTO, out=tmp_path / "photo.cdc")
        assert small.path == tmp_path / "photo.cdc"
        assert small.data == cdc.encode(PHOTO).data == (tmp_path / "photo.cdc").read_bytes()
        image = cdc.decode(tmp_path / "photo.cdc", out=str(tmp_path / "photo.webp"), steps=1)
        assert image.media_type == "image/webp"
        assert Image.open(BytesIO(image.data)).size == (32, 24)
        result = cdc.submit_decode(FILE, steps=1).result(out=tmp_path / "job.png")
        assert result.path == tmp_path / "job.png"
        (tmp_path / "old.png").write_bytes(b"old")
        with pytest.raises(DamagedFile):
            cdc.decode(FILE[:-1], out=tmp_path / "old.png")
        assert (tmp_path / "old.png").read_bytes() == b"old"
        with pytest.raises(FileNotFoundError):
            cdc.decode(FILE, out=tmp_path / "none" / "photo.png")
    assert not list(tmp_path.glob(".*"))


@pytest.mark.anyio
async def test_a_result_goes_to_a_file_for_asyncio(served: Served, tmp_path: Path) -> None:
    async with served.async_client() as cdc:
        image = await cdc.decode(FILE, out=tmp_path / "photo.png", timeout=20)
        assert image.path == tmp_path / "photo.png"
        job = await cdc.submit_encode(PHOTO)
        assert (await job.result(out=tmp_path / "photo.cdc")).data == (await cdc.encode(PHOTO)).data
        assert repr(job) == f"<AsyncJob {job.id} encode succeeded>"
        assert (await cdc.with_options(timeout=5).inspect(tmp_path / "photo.cdc")).width == 32


def test_a_file_with_another_digest_is_not_kept(tmp_path: Path) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        headers = {"ETag": f'"{"0" * 64}"', "Content-Type": "image/png"}
        return httpx.Response(200, headers=headers, content=b"broken on its way")

    cdc = Client("http://cdc", transport=httpx.MockTransport(answer), max_retries=1, **QUICK)
    with cdc, pytest.raises(ConnectionFailed, match="damaged"):
        cdc.decode(FILE, out=tmp_path / "photo.png")
    assert not list(tmp_path.iterdir())
    with FileSink(tmp_path / "weak", 'W/"1"') as sink:
        sink.write(b"abc")
    assert (tmp_path / "weak").read_bytes() == b"abc"


def test_many_images(served: Served, engine: FakeEngine) -> None:
    pixels = np.asarray(photograph(16, 8))
    seen: list[tuple[int, int | None]] = []
    with served.client() as cdc:
        images = [PHOTO, BytesIO(PHOTO), pixels, Image.fromarray(pixels)]
        files = list(cdc.encode_many(images, quality=30, progress=lambda *step: seen.append(step)))
        assert [f.width for f in files] == [32, 32, 16, 16]
        assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
        found = list(cdc.encode_many(iter([PHOTO, b"no image", PHOTO]), return_errors=True))
        assert [type(f) for f in found] == [Encoded, Unusable, Encoded]
        with pytest.raises(Unusable):
            list(cdc.encode_many([PHOTO, b"no image"]))
        assert next(type(f) for f in cdc.decode_many(["none", FILE], return_errors=True)) is FileNotFoundError


def test_many_are_bounded(served: Served, engine: FakeEngine) -> None:
    engine.delay = 0.05
    lock, running, most = threading.Lock(), 0, 0

    class Counting(httpx.BaseTransport):
        def __init__(self) -> None:
            self.inner = httpx.HTTPTransport(uds=served.socket)

        def handle_request(self, request: httpx.Request) -> httpx.Response:
            nonlocal running, most
            with lock:
                running += 1
                most = max(most, running)
            try:
                return self.inner.handle_request(request)
            finally:
                with lock:
                    running -= 1

        def close(self) -> None:
            self.inner.close()

    with Client("http://cdc", transport=Counting(), **QUICK) as cdc:
        assert len(list(cdc.decode_many([make_file(8 + n, 8) for n in range(9)], concurrency=3))) == 9
    assert most == 3


@pytest.mark.anyio
async def test_many_images_for_asyncio(served: Served) -> None:
    seen: list[tuple[int, int | None]] = []
    async with served.async_client() as cdc:
        images = [PHOTO, b"no image", PHOTO]
        many = cdc.encode_many(images, return_errors=True, progress=lambda *step: seen.append(step))
        assert [type(f) async for f in many] == [Encoded, Unusable, Encoded]
        assert seen == [(1, 3), (2, 3), (3, 3)]
        with pytest.raises(Unusable):
            [f async for f in cdc.encode_many(images)]


def test_messages_are_for_people(served: Served) -> None:
    with served.client() as cdc:
        with pytest.raises(InvalidParameter) as caught:
            cdc.encode(PHOTO, quality=3, max_bytes=5)
        assert caught.value.detail == "quality, target_bpp and max_bytes exclude each other: give one"
        with pytest.raises(InvalidParameter) as caught:
            cdc.decode(FILE, steps=0)
        assert caught.value.detail == "steps: must be a whole number, at least 1, or auto"
