"""Bodies, deadlines and disconnects: what is cut off, when, and what becomes of the work."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from starlette.types import Message

from service.api.app import create_app
from service.errors import Busy
from service.jobs.limits import Budget
from service.settings import Settings
from tests.service.conftest import MakeClient, image_file, photograph
from tests.service.fake_engine import FakeEngine, make_file
from tests.service.test_problems import check

pytestmark = pytest.mark.anyio

PNG = image_file(photograph())
CDC = make_file(32, 24)


async def test_a_body_over_the_limit_is_refused_by_its_length_unread(make_client: MakeClient) -> None:
    client = await make_client(max_body_bytes=1024)

    read = 0

    async def counted() -> AsyncIterator[bytes]:
        nonlocal read
        read += 1
        yield bytes(1025)

    answer = await client.post("/encode", content=counted(), headers={"Content-Length": "1025"})
    check(answer, 413, "body-too-large")
    assert read == 0
    assert answer.headers["connection"] == "close"


async def test_a_body_without_a_length_is_cut_off_at_the_limit(make_client: MakeClient, engine: FakeEngine) -> None:
    client = await make_client(max_body_bytes=10_000)
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 1000
            yield bytes(1000)

    check(await client.post("/encode", content=endless()), 413, "body-too-large")
    assert sent == 11_000
    assert engine.requests == []


async def test_the_limit_itself_is_allowed(make_client: MakeClient) -> None:
    client = await make_client(max_body_bytes=1024)
    check(await client.post("/inspect", content=bytes(1024)), 415, "not-a-cdc-file")
    check(await client.post("/inspect", content=bytes(1025)), 413, "body-too-large")


@pytest.mark.parametrize("length", ["-5", "1e3", "9" * 19])
async def test_a_content_length_that_is_no_number(client: httpx.AsyncClient, length: str) -> None:
    answer = await client.post("/encode", content=PNG, headers={"Content-Length": length})
    check(answer, 400, "malformed-request")


async def test_a_body_that_comes_too_slowly(make_client: MakeClient) -> None:
    client = await make_client(body_timeout_s=0.05)

    async def slow() -> AsyncIterator[bytes]:
        yield PNG[:10]
        await asyncio.Event().wait()
        yield PNG[10:]

    start = time.perf_counter()
    answer = await client.post("/encode", content=slow())
    check(answer, 408, "slow-body")
    assert answer.headers["connection"] == "close"
    assert time.perf_counter() - start < 2


async def test_slow_work_is_not_taken_for_a_slow_body(make_client: MakeClient, engine: FakeEngine) -> None:
    client = await make_client(body_timeout_s=0.05)
    engine.delay = 0.2
    assert (await client.post("/decode", content=CDC)).status_code == 200


@pytest.mark.parametrize(("path", "body"), [("/encode", PNG), ("/decode", CDC)])
async def test_a_deadline_cancels_the_work(
    client: httpx.AsyncClient, engine: FakeEngine, path: str, body: bytes
) -> None:
    engine.delay = 30
    start = time.perf_counter()
    answer = await client.post(path, content=body, headers={"X-Deadline-Ms": "150"})
    assert 0.14 < time.perf_counter() - start < 2
    check(answer, 504, "deadline-exceeded")
    await engine.until(lambda: engine.cancelled)
    assert engine.cancelled == engine.requests


async def test_a_deadline_cancels_between_steps(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.step_delay = 0.05
    answer = await client.post("/decode?steps=200", content=CDC, headers={"X-Deadline-Ms": "120"})
    check(answer, 504, "deadline-exceeded")


async def test_deadlines_have_a_default_and_a_longest(make_client: MakeClient, engine: FakeEngine) -> None:
    engine.delay = 30
    client = await make_client(default_deadline_s=0.05, max_deadline_s=0.1)
    check(await client.post("/decode", content=CDC), 504, "deadline-exceeded")
    answer = await client.post("/decode", content=CDC, headers={"X-Deadline-Ms": "60000"})
    assert "0.1 seconds" in check(answer, 504, "deadline-exceeded")["detail"]


@pytest.mark.parametrize("value", ["0", "-1", "soon", "1.5", "", "9" * 20])
async def test_a_deadline_that_is_no_number(client: httpx.AsyncClient, value: str) -> None:
    answer = await client.post("/decode", content=CDC, headers={"X-Deadline-Ms": value})
    check(answer, 400, "malformed-request")


async def call(app: Any, path: str, messages: list[Message], disconnect: asyncio.Event) -> list[Message]:
    """Drive `app` as a server would: hand over `messages`, then http.disconnect once the event is set."""
    sent: list[Message] = []

    async def receive() -> Message:
        if messages:
            return messages.pop(0)
        await disconnect.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [],
        "client": ("127.0.0.1", 1),
        "server": ("cdc.test", 80),
    }
    await app(scope, receive, send)
    return sent


@pytest.mark.parametrize(("path", "body"), [("/encode", PNG), ("/decode", CDC)])
async def test_a_caller_that_goes_away_cancels_the_work(engine: FakeEngine, path: str, body: bytes) -> None:
    engine.delay = 30
    app = create_app(Settings(), engine)
    disconnect = asyncio.Event()
    running = asyncio.create_task(call(app, path, [{"type": "http.request", "body": body}], disconnect))
    await engine.until(lambda: engine.requests)
    assert not running.done()
    disconnect.set()
    sent = await asyncio.wait_for(running, 2)
    assert sent[0]["status"] == 499
    await engine.until(lambda: engine.cancelled)
    assert engine.cancelled == engine.requests
    parts = app.state.parts
    assert parts.uploads.held == 0
    assert parts.door._pixels.held == 0
    name, labels = "cdc_requests_total", {"route": path, "status": "499"}
    assert parts.metrics.registry.get_sample_value(name, labels) == 1


async def test_a_caller_that_goes_away_while_sending(engine: FakeEngine) -> None:
    app = create_app(Settings(), engine)
    disconnect = asyncio.Event()
    disconnect.set()
    begun: Message = {"type": "http.request", "body": PNG[:20], "more_body": True}
    sent = await asyncio.wait_for(call(app, "/encode", [begun], disconnect), 2)
    assert sent[0]["status"] == 499
    assert engine.requests == []


async def test_too_many_uploads_at_once(make_client: MakeClient, engine: FakeEngine) -> None:
    client = await make_client(max_concurrent_uploads=2)
    engine.gate.clear()
    calls = [asyncio.create_task(client.post(f"/decode?seed={n}", content=CDC)) for n in range(5)]
    await engine.until(lambda: len(engine.requests) == 2)
    await asyncio.wait(calls[2:])
    engine.gate.set()
    answers = await asyncio.gather(*calls)
    refused = [a for a in answers if a.status_code != 200]
    assert len(refused) == 3
    for answer in refused:
        check(answer, 429, "busy")
        assert int(answer.headers["retry-after"]) >= 1
    assert (await client.post("/decode", content=CDC)).status_code == 200


async def test_too_many_pixels_at_once_but_one_picture_always(make_client: MakeClient, engine: FakeEngine) -> None:
    client = await make_client(max_pixels_in_flight=100)
    engine.gate.clear()
    calls = [asyncio.create_task(client.post(f"/encode?quality={n + 1}", content=PNG)) for n in range(3)]
    while sum(call.done() for call in calls) < 2:  # are refused while the first is held
        await asyncio.wait([c for c in calls if not c.done()], return_when=asyncio.FIRST_COMPLETED)
    engine.gate.set()
    answers = await asyncio.gather(*calls)
    assert sorted(a.status_code for a in answers) == [200, 429, 429]


def test_a_budget_gives_back_what_it_lent_even_on_errors() -> None:
    budget = Budget(10, "things")
    with budget.hold(6):
        with pytest.raises(Busy, match="too many things"), budget.hold(5):
            pytest.fail("lent more than there is")
        with budget.hold(4):
            assert budget.held == 10
        assert budget.held == 6
    with pytest.raises(KeyError), budget.hold(6):
        raise KeyError
    assert budget.held == 0


async def test_requests_at_once_do_not_wait_for_one_another(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.gate.clear()
    calls = [asyncio.create_task(client.post(f"/decode?seed={n}", content=CDC)) for n in range(8)]
    await engine.until(lambda: len(engine.requests) == 8)
    engine.gate.set()
    assert [a.status_code for a in await asyncio.gather(*calls)] == [200] * 8
