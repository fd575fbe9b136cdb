"""The application under uvicorn: how many requests and connections it bears, HEAD on the wire, a path prefix."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import httpx
import pytest

from service.api.app import create_app
from service.api.server import Server, config_of
from service.settings import Settings
from tests.polling import eventually, wait_for
from tests.service.fake_engine import FakeEngine, make_file
from tests.service.test_problems import check

pytestmark = pytest.mark.anyio

CDC = make_file(16, 16)


@contextmanager
def serving(engine: FakeEngine, **values: Any) -> Iterator[Server]:
    """A server in a thread; `config.port` is where it listens."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        settings = Settings(port=listening.getsockname()[1], grace_s=1, **values)
        app = create_app(settings, engine)
        server = Server(config_of(app, settings), app.state.parts)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        wait_for(lambda: server.started or not thread.is_alive())
        assert thread.is_alive()
        try:
            yield server
        finally:
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive()


@asynccontextmanager
async def client_of(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    limits = httpx.Limits(max_connections=100)
    url = f"http://127.0.0.1:{server.config.port}"
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=30) as client:
        yield client


async def test_too_many_requests_are_told_in_words_and_health_checks_are_not_among_them(engine: FakeEngine) -> None:
    engine.delay = 60
    with serving(engine, max_connections=8) as server:
        async with client_of(server) as client:
            held = [asyncio.create_task(client.post(f"/decode?seed={n}", content=CDC)) for n in range(8)]
            await eventually(lambda: len(engine.requests) >= 8)
            refused = [await client.post("/decode", content=CDC), await client.get("/models")]
            for answer in refused:
                check(answer, 503, "overloaded")
                assert int(answer.headers["retry-after"]) >= 1
            for path in ("/livez", "/readyz", "/metrics"):
                assert (await client.get(path)).status_code == 200, path
            assert 'cdc_requests_total{route="other",status="503"} 2.0' in (await client.get("/metrics")).text
            for task in held:
                task.cancel()
            await asyncio.gather(*held, return_exceptions=True)

            async def answered() -> bool:
                return (await client.get("/models")).status_code == 200

            await eventually(answered)


async def test_connections_that_say_nothing_keep_nobody_out(engine: FakeEngine) -> None:
    with serving(engine, max_connections=8) as server, contextlib.ExitStack() as silent:
        for _ in range(40):
            silent.enter_context(socket.create_connection(("127.0.0.1", server.config.port)))
        async with client_of(server) as client:
            answer = await client.get("/livez")
        assert answer.status_code == 200
        assert len(server.server_state.connections) <= 17


async def test_a_kept_connection_answers_head_and_get_in_turn(engine: FakeEngine) -> None:
    with serving(engine) as server:
        async with client_of(server) as client:
            got = await client.get("/models")
            for _ in range(2):
                head = await client.head("/models")
                assert (head.status_code, head.content) == (200, b"")
                assert head.headers["content-length"] == got.headers["content-length"]
                assert (await client.get("/models")).json() == got.json()
            events = await client.head((await job_of(client))["location"] + "/events")
            assert events.headers["content-type"].startswith("text/event-stream")
            assert (await client.get("/livez")).status_code == 200
        assert server.server_state.total_requests == 8


async def job_of(client: httpx.AsyncClient) -> httpx.Headers:
    answer = await client.post("/decode?steps=2", content=CDC, headers={"Prefer": "respond-async"})
    assert answer.status_code == 202
    return answer.headers


def test_headers_without_an_end_are_cut_off(engine: FakeEngine) -> None:
    with serving(engine) as server, socket.create_connection(("127.0.0.1", server.config.port), 10) as endless:
        endless.sendall(b"GET /livez HTTP/1.1\r\nX-Long: ")
        with contextlib.suppress(ConnectionError):
            for _ in range(1000):
                endless.sendall(b"x" * 1000)
        with contextlib.suppress(ConnectionError):
            assert endless.recv(1000).startswith(b"HTTP/1.1 431 ")


async def test_headers_of_some_length_and_refused_bodies_are_no_such_case(engine: FakeEngine) -> None:
    with serving(engine, max_body_bytes=1 << 20) as server:
        async with client_of(server) as client:
            for _ in range(3):
                assert (await client.get("/livez", headers={"X-Long": "x" * 30_000})).status_code == 200
                answer = await client.post("/encode?quality=0", content=bytes(1 << 20))  # refused before it is read
                check(answer, 422, "invalid-parameter")
        assert server.server_state.total_requests == 6


def test_a_line_of_the_log_says_when_it_is_ready(engine: FakeEngine, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"), serving(engine) as server:
        found = wait_for(lambda: [r for r in caplog.records if r.getMessage() == "ready to serve"])
        assert vars(found[0])["url"] == f"http://127.0.0.1:{server.config.port}/"
        assert vars(found[0])["models"] == "lite, other"


def test_idle_connections_outlive_those_of_a_proxy(engine: FakeEngine) -> None:
    assert config_of(create_app(Settings(), engine), Settings()).timeout_keep_alive > 60
    settings = Settings(keep_alive_s=9)
    assert config_of(create_app(settings, engine), settings).timeout_keep_alive == 9


async def test_addresses_behind_a_proxy_that_takes_a_prefix_away(engine: FakeEngine) -> None:
    with serving(engine, root_path="/codec", link_secrets="9f8a7b6c5d4e3f2a1b0c9d8e7f6a5b4c") as server:
        async with client_of(server) as client:
            location = (await job_of(client))["location"]
            assert location.startswith("/codec/jobs/")
            inside = location.removeprefix("/codec")

            async def ended() -> Any:
                found = (await client.get(inside)).json()
                return found if found["state"] == "succeeded" else None

            job = await eventually(ended)
            assert job["result"]["href"] == f"{location}/result"
            assert f'"href":"{location}/result"' in (await client.get(f"{inside}/events")).text
            link = (await client.post(f"{inside}/links")).json()["href"]
            assert link.startswith("/codec/links/")
            assert (await client.get(link.removeprefix("/codec"))).status_code == 200
            servers = (await client.get("/openapi.json")).json()["servers"]
            assert [server["url"] for server in servers] == ["/codec"]
            for path in ("/docs", "/"):
                assert '="/' not in (await client.get(path)).text
            check(await client.get("/nothing"), 404, "not-found")
