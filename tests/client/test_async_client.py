"""The asyncio client against the real application."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from cdc_client import AsyncClient, ConnectionFailed, DamagedFile, JobCancelled, NotFound, WaitTimeout
from tests.client.conftest import QUICK, Serve, Served
from tests.polling import eventually
from tests.service.conftest import image_file, photograph
from tests.service.fake_engine import FakeEngine, make_file

pytestmark = pytest.mark.anyio
FILE = make_file(40, 30)


async def test_round_trip(served: Served, tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(image_file(photograph()))
    async with served.async_client() as cdc:
        small = await cdc.encode(tmp_path / "photo.png", quality=30)
        assert small.quality == 30
        picture = await cdc.decode(small.data, steps=3)
        assert picture.steps == 3
        assert (await cdc.inspect(small.data)).width == 32
        assert (await cdc.models())[0].default
        with pytest.raises(DamagedFile):
            await cdc.decode(FILE[:-1])


async def test_many(served: Served, engine: FakeEngine) -> None:
    engine.delay = 0.02
    async with served.async_client() as cdc:
        files = [make_file(8 + n, 8) for n in range(9)]
        assert [p.width async for p in cdc.decode_many(files, concurrency=3, steps=1)] == list(range(8, 17))
        engine.delay, before = 60, len(engine.requests)
        first = asyncio.ensure_future(anext(cdc.decode_many(files, steps=1)))
        await eventually(lambda: len(engine.requests) >= before + 8)
        first.cancel()
        await eventually(lambda: len(engine.cancelled) >= 8)  # the service drops them as their connections close
        assert len(engine.requests) == before + 8
        with pytest.raises(ValueError, match="concurrency"):
            await anext(cdc.decode_many([], concurrency=0))


async def test_jobs(served: Served, engine: FakeEngine) -> None:
    engine.step_delay = 0.01
    async with served.async_client() as cdc:
        job = await cdc.submit_decode(FILE, steps=5)
        events = [event async for event in job.events()]
        assert [e.step for e in events if e.type == "progress"] == [1, 2, 3, 4, 5]
        assert (await (await cdc.job(job.id)).result()).data == (await job.result()).data
        encoded = await (await cdc.submit_encode(image_file(photograph()))).result()
        assert encoded.media_type == "image/x-cdc"
        engine.delay = 5
        job = await cdc.submit_decode(FILE, seed=1)
        with pytest.raises(WaitTimeout):
            await job.wait(0.1)
        assert (await job.refresh()).state == "running"
        await job.cancel()
        with pytest.raises(JobCancelled):
            await job.result()


async def test_large_work_that_becomes_a_job(serve: Serve) -> None:
    async with serve(max_sync_pixel_steps=1, over_sync="job").async_client() as cdc:
        assert (await cdc.decode(FILE, steps=2)).steps == 2


@pytest.mark.parametrize("follow", [False, True])
async def test_cancelling_the_task_cancels_the_job(served: Served, engine: FakeEngine, follow: bool) -> None:
    engine.delay = 20
    async with served.async_client() as cdc:
        job = await cdc.submit_decode(FILE)

        async def listen() -> None:
            async for _ in job.events():
                pass

        task = asyncio.ensure_future(listen() if follow else job.wait())
        await asyncio.sleep(0.3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await job.refresh()).state == "cancelled"


class Cutting(httpx.AsyncBaseTransport):
    """Breaks each stream of events after two events, and fails every third connection."""

    def __init__(self, inner: httpx.AsyncBaseTransport, always: bool = False) -> None:
        self._inner = inner
        self._always = always
        self.streams = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if not request.url.path.endswith("/events"):
            return await self._inner.handle_async_request(request)
        self.streams += 1
        if self._always or self.streams % 3 == 2:
            raise httpx.ConnectError("cut")
        if self.streams % 3 == 0:
            return httpx.Response(503, json={"type": "/problems/draining", "detail": "later"})
        response = await self._inner.handle_async_request(request)
        return httpx.Response(response.status_code, headers=response.headers, stream=_Cut(response))

    async def aclose(self) -> None:
        await self._inner.aclose()


class _Cut(httpx.AsyncByteStream):
    def __init__(self, response: httpx.Response) -> None:
        self._response = response

    async def __aiter__(self):  # type: ignore[no-untyped-def]
        seen = b""
        async for chunk in self._response.stream:  # type: ignore[union-attr]
            seen += chunk
            if seen.count(b"\n\n") >= 2:
                first, second, rest = seen.split(b"\n\n", 2)
                yield first + b"\n\n" + second + b"\n\n" + rest[:9]
                raise httpx.ReadError("cut")
            if b"succeeded" in seen:
                yield seen
                return

    async def aclose(self) -> None:
        await self._response.aclose()


async def test_events_survive_broken_connections(served: Served, engine: FakeEngine) -> None:
    engine.step_delay = 0.01
    cutting = Cutting(httpx.AsyncHTTPTransport(uds=served.socket))
    async with AsyncClient("http://cdc", transport=cutting, **QUICK) as cdc:
        job = await cdc.submit_decode(FILE, steps=9)
        assert [event.id async for event in job.events()] == list(range(1, 13))
    cutting = Cutting(httpx.AsyncHTTPTransport(uds=served.socket), always=True)
    async with AsyncClient("http://cdc", transport=cutting, max_retries=1, **QUICK) as cdc:
        job = await cdc.submit_decode(FILE, steps=9)
        with pytest.raises(ConnectionFailed):
            [event async for event in job.events()]
    async with served.async_client() as cdc:
        job.status = replace(job.status, id="none")
        job._client = cdc
        with pytest.raises(NotFound):
            [event async for event in job.events()]


async def test_no_service() -> None:
    async with AsyncClient("http://127.0.0.1:9", max_retries=1, **QUICK) as cdc:
        with pytest.raises(ConnectionFailed):
            await cdc.models()


async def test_jobs_are_listed(serve: Serve) -> None:
    async with serve().async_client(api_key="mine") as client:
        sent = [(await client.submit_decode(make_file(8, 8), seed=k)).id for k in range(3)]
        assert sorted([status.id async for status in client.jobs()]) == sorted(sent)
