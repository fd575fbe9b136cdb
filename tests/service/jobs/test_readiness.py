"""What /readyz says while Redis or the workers come and go, and who is let in by Redis."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from service.api.app import create_app
from service.engine.port import EngineStatus, ModelInfo
from service.jobs.connection import check_access
from service.settings import Settings, SettingsError
from service.worker import work
from tests.polling import eventually
from tests.programs import need
from tests.service.conftest import client_of
from tests.service.fake_engine import FakeEngine, make_file
from tests.service.jobs.redis_server import RedisServer

pytestmark = [pytest.mark.anyio, pytest.mark.redis]
WITHIN_S = 5.0
PASSWORD = "p@ss/w:rd %41#é"  # as many characters that an address must escape as possible


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    need("redis-server")
    server = RedisServer(tmp_path, "--requirepass", PASSWORD)
    server.password = PASSWORD
    server.start()
    yield server
    server.stop()


@asynccontextmanager
async def running_api(url: str) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(Settings(redis_url=url))
    async with app.router.lifespan_context(app), client_of(app) as client:
        yield client


async def becomes(client: httpx.AsyncClient, status: int) -> str:
    """Wait until /readyz answers `status`, and return its text; fail after five seconds."""

    async def text() -> str | None:
        answer = await client.get("/readyz")
        return answer.text if answer.status_code == status else None

    return await eventually(text, WITHIN_S)


async def test_it_follows_redis_and_the_workers(redis: RedisServer) -> None:
    """Also with a password that the address must escape: API and worker read it alike."""
    async with running_api(redis.url) as client:
        assert "models are still being loaded" in await becomes(client, 503)
        working = asyncio.create_task(work(Settings(redis_url=redis.url, grace_s=0, lease_s=2), FakeEngine()))
        await becomes(client, 200)
        answer = await client.post("/decode?steps=1", content=make_file(32, 24), timeout=20)
        assert answer.status_code == 200, answer.text
        redis.stop(kill=True)
        assert "Redis cannot be reached" in await becomes(client, 503)
        redis.start()
        await becomes(client, 200)
        redis.pause()
        assert "Redis cannot be reached" in await becomes(client, 503)
        redis.resume()
        await becomes(client, 200)
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        assert "no worker takes work" in await becomes(client, 503)


async def test_a_worker_that_is_killed_is_missed(redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """It cannot say goodbye."""
    monkeypatch.setattr("service.jobs.fleet.Fleet.leave", lambda *_: asyncio.sleep(0))
    async with running_api(redis.url) as client:
        working = asyncio.create_task(work(Settings(redis_url=redis.url, grace_s=0), FakeEngine()))
        await becomes(client, 200)
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        assert "no worker takes work" in await becomes(client, 503)


async def test_a_wrong_password_stops_the_start_in_words(redis: RedisServer) -> None:
    wrong = redis.url.replace(quote(PASSWORD, safe=""), "guessed")
    for url in (wrong, f"redis://127.0.0.1:{redis.port}/0"):
        with pytest.raises(SettingsError, match="refuses this user name or password") as refused:
            await check_access(url)
        assert "guessed" not in str(refused.value)
    with pytest.raises(SettingsError, match="not an address"):
        await check_access("http://example.org")
    await check_access(redis.url)
    redis.stop()
    await check_access(redis.url)  # not there now: it may come


@pytest.mark.parametrize("command", ["serve", "worker"])
def test_the_command_says_that_the_password_is_wrong(redis: RedisServer, command: str) -> None:
    env = os.environ | {"CDC_REDIS_URL": f"redis://:guessed@127.0.0.1:{redis.port}/0"}
    argv = [sys.executable, "-m", "cdc_client", command]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "cdc: CDC_REDIS_URL: Redis refuses this user name or password"
    assert "guessed" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


class LoadingEngine(FakeEngine):
    """Never through with its models."""

    def models(self) -> tuple[ModelInfo, ...]:
        return ()


async def test_sigterm_ends_a_worker_that_still_loads_its_models(redis: RedisServer) -> None:
    engine = LoadingEngine()
    engine.state = EngineStatus(False, False, 0, 0, 0)
    task = asyncio.create_task(work(Settings(redis_url=redis.url, grace_s=30), engine))
    while not engine.starts:
        await asyncio.sleep(0)
    os.kill(os.getpid(), signal.SIGTERM)
    async with asyncio.timeout(2):
        await task


def test_sigterm_ends_a_worker_process_that_loads(redis: RedisServer) -> None:
    """With the real engine, whose process reads weights and measures for some seconds."""
    env = os.environ | {"CDC_REDIS_URL": redis.url, "CDC_GRACE_S": "30"}
    process = subprocess.Popen([sys.executable, "-m", "cdc_client", "worker"], env=env, stderr=subprocess.PIPE)
    assert process.stderr is not None
    try:
        while b"worker started" not in process.stderr.readline():
            assert process.poll() is None
        start = time.monotonic()
        process.terminate()
        assert process.wait(20) == 0
        assert time.monotonic() - start < 3
    finally:
        process.kill()
        process.stderr.close()
