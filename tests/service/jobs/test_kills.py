"""API and workers killed together, again and again: batches are finished and webhooks arrive, each at least once."""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from benchmarks.jobs import retry
from benchmarks.server import free_port
from tests.programs import need
from tests.service.fake_engine import make_file
from tests.service.jobs.redis_server import RedisServer

pytestmark = [pytest.mark.slow, pytest.mark.redis, pytest.mark.anyio]
ROOT = Path(__file__).parents[3]
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
LINES, BATCH_KILLS = 150, 6
WEBHOOKS, WEBHOOK_KILLS = 300, 10


class Site(ThreadingHTTPServer):
    """A file to read, a place to put results, and a receiver of webhooks that refuses one in ten."""

    request_queue_size = 128

    def __init__(self) -> None:
        self.put: Counter[str] = Counter()
        self.told: Counter[str] = Counter()
        rng, lock, site, file = random.Random(3), threading.Lock(), self, make_file(16, 16)

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.answer(200, file)

            def do_PUT(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                with lock:
                    site.put[self.path] += 1
                self.answer(201)

            def do_POST(self) -> None:
                told = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    if refused := rng.random() < 0.1:
                        return self.answer(500)
                    site.told[f"{told['type']} {told['data']['id']}"] += 1
                return self.answer(500 if refused else 204)

            def answer(self, status: int, body: bytes = b"") -> None:
                try:
                    self.send_response(status)
                    self.end_headers()
                    self.wfile.write(body)
                except OSError:
                    pass  # the service was killed

            def log_message(self, format: str, *args: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request: object, client_address: object) -> None:
        pass


class Service:
    """One API process and two workers, that die together."""

    def __init__(self, redis_url: str) -> None:
        self._port = free_port()
        self._env = os.environ | {
            "CDC_REDIS_URL": redis_url,
            "CDC_PORT": str(self._port),
            "CDC_LEASE_S": "2",
            "CDC_SOURCE_HOSTS": "127.0.0.1",
            "CDC_SINK_HOSTS": "127.0.0.1",
            "CDC_PRIVATE_ADDRESSES": "true",
            "CDC_WEBHOOK_SECRETS": SECRET,
            "CDC_LOG_LEVEL": "warning",
        }
        self._processes: list[subprocess.Popen[bytes]] = []
        self.url = f"http://127.0.0.1:{self._port}"
        self.kills = 0

    def start(self) -> None:
        command = [sys.executable, "-m", "tests.service.jobs.mortal"]
        self._processes = [
            subprocess.Popen([*command, role], cwd=ROOT, env=self._env) for role in ("api", "worker", "worker")
        ]

    def kill(self) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()
        self.kills += 1

    async def die_at(self, done: Callable[[], float], kills: int) -> None:
        """Kill and start all of it, so often, as `done` goes from 0 to 1."""
        rng = random.Random(1)
        for number in range(kills):
            while done() < (number + rng.random()) / (kills + 1):
                await asyncio.sleep(0.05)
            await asyncio.to_thread(self.kill)
            self.start()


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    need("redis-server")
    redis = RedisServer(tmp_path)
    redis.start()
    found = Service(redis.url)
    found.start()
    yield found
    found.kill()
    redis.stop()


@pytest.fixture
async def client(service: Service) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=service.url, timeout=60) as client:
        yield client


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    found = Site()
    yield found
    found.shutdown()
    found.server_close()


async def executions(url: str) -> int:
    """How many there are: work that was done under two names would be two."""
    async with Redis.from_url(url) as redis:
        return len([key async for key in redis.scan_iter("cdc:exec:*", count=1000)])


async def test_a_batch_ends_whole(service: Service, client: httpx.AsyncClient, site: Site) -> None:
    body = {"source": f"{site.url}/a.cdc", "steps": 2}
    lines = [
        {"custom_id": str(k), "url": "/decode", "body": {**body, "seed": k, "result": f"{site.url}/{k}.png"}}
        for k in range(LINES)
    ]
    location = (await retry(client, "POST", "/batches", content="\n".join(map(json.dumps, lines)))).headers["location"]
    dying = asyncio.create_task(service.die_at(lambda: len(site.put) / LINES, BATCH_KILLS))
    batch: dict[str, Any] = {"state": "in_progress"}
    seen = 0
    async with asyncio.timeout(150):
        while batch["state"] == "in_progress":
            await asyncio.sleep(0.2)
            batch = (await retry(client, "GET", location)).json()
            done = (await retry(client, "GET", f"{location}/output")).text.splitlines()
            assert len(done) >= seen  # what a reader has seen stays
            seen = len(done)
    await dying
    assert service.kills == BATCH_KILLS
    assert (batch["state"], batch["completed"], batch["failed"]) == ("completed", LINES, 0)
    output = [json.loads(line) for line in done]
    assert [line["custom_id"] for line in output] == [str(k) for k in range(LINES)]
    jobs = [line["response"]["body"]["id"] for line in output]
    assert len(set(jobs)) == LINES
    for id in (jobs[0], jobs[-1]):
        assert (await retry(client, "GET", f"/jobs/{id}/result")).headers["content-type"] == "image/png"
    assert set(site.put) == {f"/{k}.png" for k in range(LINES)}
    assert sum(site.put.values()) <= LINES + 4 * BATCH_KILLS  # what was under way at a kill, at most
    assert await executions(str(service._env["CDC_REDIS_URL"])) == LINES


async def test_no_webhook_is_lost(service: Service, client: httpx.AsyncClient, site: Site) -> None:
    file, ids, free = make_file(16, 16), set[str](), asyncio.Semaphore(16)

    async def submit(k: int) -> None:
        async with free:
            headers = {"Prefer": "respond-async", "Idempotency-Key": str(k)}
            params = {"seed": k, "steps": 2, "callback": f"{site.url}/hook"}
            answer = await retry(client, "POST", "/decode", content=file, params=params, headers=headers)
            assert answer.status_code == 202, answer.text
            ids.add(answer.json()["id"])

    dying = asyncio.create_task(service.die_at(lambda: len(site.told) / WEBHOOKS, WEBHOOK_KILLS))
    async with asyncio.timeout(200):
        await asyncio.gather(*(submit(k) for k in range(WEBHOOKS)))
        while len(site.told) < WEBHOOKS:
            await asyncio.sleep(0.1)
    await dying
    assert service.kills == WEBHOOK_KILLS
    assert set(site.told) == {f"job.succeeded {id}" for id in ids}
    assert len(ids) == WEBHOOKS
    twice = sum(count > 1 for count in site.told.values())
    assert twice <= 16 * WEBHOOK_KILLS
    assert await executions(str(service._env["CDC_REDIS_URL"])) == WEBHOOKS
