"""Uploads that stall, trickle or are many: who gives way, and that fast ones get through."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.types import Message, Receive

from service.api.app import create_app
from service.api.refusals import SlowBody
from service.api.uploads import STALLED_S, Upload, Uploads
from service.errors import Busy
from service.settings import Settings
from tests.polling import eventually, wait_for
from tests.service.conftest import image_file, photograph
from tests.service.fake_engine import FakeEngine

pytestmark = pytest.mark.anyio

PNG = image_file(photograph())
FAR = 1e9  # loop time of a body timeout that never comes
HEAD = b"POST /encode HTTP/1.1\r\nHost: cdc\r\nContent-Type: image/png\r\nContent-Length: %d\r\n\r\n"


def coming(*parts: bytes, more: bool = True) -> Callable[[], Any]:
    """A `receive` that gives these parts; after the last one nothing comes, unless it is the last of the body."""
    left = list(parts)

    async def receive() -> Message:
        if not left:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": left.pop(0), "more_body": more or bool(left)}

    return receive


async def whole(uploads: Uploads, upload: Upload, receive: Receive) -> None:
    while (await uploads.receive(upload, receive, FAR))["more_body"]:
        pass


def stall(upload: Upload) -> None:
    """Set it back as if it had stalled; the older the earlier."""
    upload.paid_until -= STALLED_S + 0.5


async def test_a_body_that_comes_in_time_holds_its_bytes_until_the_answer() -> None:
    uploads = Uploads(100, 1, 1000)
    with uploads.follow("a") as upload:
        assert (await uploads.receive(upload, coming(bytes(30), more=False), FAR))["body"] == bytes(30)
        assert uploads.held == 30
        with uploads.follow("a") as second:  # the first one has arrived: it is not in the way
            stall(upload)
            assert not upload.displaced
            assert not second.displaced
    assert uploads.held == 0


async def test_a_trickle_is_cut_off_and_a_fast_start_does_not_pay_for_a_stall() -> None:
    uploads = Uploads(1 << 20, 9, 1000, grace_s=0.1)
    for receive in (coming(b"x", b"x", b"x"), coming(bytes(100_000))):
        with uploads.follow("a") as upload:
            start = time.perf_counter()
            with pytest.raises(SlowBody, match="1000 bytes a second"):
                await whole(uploads, upload, receive)
            assert 0.05 < time.perf_counter() - start < 1
    assert uploads.held == 0


async def test_the_time_for_the_whole_body_counts_too() -> None:
    uploads = Uploads(100, 1, 1)
    with uploads.follow("a") as upload, pytest.raises(SlowBody, match="too long"):
        await uploads.receive(upload, coming(), asyncio.get_running_loop().time() + 0.01)


async def test_beyond_the_limit_of_a_client_what_stalled_longest_gives_way() -> None:
    uploads = Uploads(100, 2, 1000)
    with ExitStack() as stack:
        first, second, foreign = (stack.enter_context(uploads.follow(c)) for c in ("a", "a", "b"))
        waiting = asyncio.create_task(uploads.receive(second, coming(b"x"), FAR))
        await waiting
        waiting = asyncio.create_task(uploads.receive(second, coming(), FAR))
        await asyncio.sleep(0)
        for upload in (foreign, second, second, first):
            stall(upload)
        third = stack.enter_context(uploads.follow("a"))
        assert [u.displaced for u in (first, second, third, foreign)] == [False, True, False, False]
        with pytest.raises(SlowBody, match="standstill"):
            await asyncio.wait_for(waiting, 1)
        with pytest.raises(SlowBody, match="standstill"):
            await uploads.receive(second, coming(b"late"), FAR)
        assert uploads.held == 0


async def test_fast_uploads_are_not_displaced_however_many() -> None:
    uploads = Uploads(100, 2, 1000)
    with ExitStack() as stack:
        assert not any(u.displaced for u in [stack.enter_context(uploads.follow("a")) for _ in range(9)])


async def test_bytes_are_bounded_over_all_and_stalled_uploads_give_theirs_back() -> None:
    uploads = Uploads(100, 9, 1000)
    with ExitStack() as stack:
        big, small, new = (stack.enter_context(uploads.follow(c)) for c in "abc")
        await uploads.receive(big, coming(bytes(150)), FAR)  # alone, so let in
        with pytest.raises(Busy, match="too many bytes"):
            await uploads.receive(small, coming(bytes(10)), FAR)
        stall(big)
        await uploads.receive(new, coming(bytes(90)), FAR)
        assert (big.displaced, uploads.held) == (True, 90)
    assert uploads.held == 0
    assert uploads._unfinished == {}


@pytest.fixture
def address(engine: FakeEngine) -> Iterator[tuple[str, int]]:
    """Where an application with room for two requests and eight uploads of a client listens."""
    app = create_app(Settings(max_concurrent_uploads=2, max_uploads_per_client=8, min_body_rate=1000), engine)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, access_log=False))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_for(lambda: server.started)
    yield server.servers[0].sockets[0].getsockname()
    server.should_exit = True
    thread.join(20)


async def test_stalled_uploads_lock_nobody_out(address: tuple[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.api.uploads.STALLED_S", 0.05)
    opened = [await asyncio.open_connection(*address) for _ in range(40)]
    for _, writer in opened:
        writer.write(HEAD % len(PNG) + PNG[:10])
    await asyncio.sleep(0.1)
    async with httpx.AsyncClient(base_url="http://{}:{}".format(*address)) as client:
        for _ in range(10):
            answer = await client.post("/encode", content=PNG, headers={"Content-Type": "image/png"})
            assert answer.status_code == 200
    answers = [await reader.read() for reader, _ in opened[:32]]  # of 40 eight may stay
    for answer in answers:
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"/problems/slow-body" in answer
        assert b"connection: close" in answer.lower()
    for _, writer in opened:
        writer.close()


async def test_a_full_queue_is_told_before_the_body_has_arrived(address: tuple[str, int], engine: FakeEngine) -> None:
    engine.delay = 1.0
    async with httpx.AsyncClient(base_url="http://{}:{}".format(*address)) as client:
        running = [asyncio.create_task(client.post(f"/encode?quality={n + 1}", content=PNG)) for n in range(2)]
        await eventually(lambda: len(engine.requests) >= 2)
        reader, writer = await asyncio.open_connection(*address)
        writer.write(HEAD % len(PNG))
        assert b" 429 " in await asyncio.wait_for(reader.readline(), 0.5)
        writer.close()
        assert [(await r).status_code for r in running] == [200, 200]
