"""A thousand webhooks through ten kills of the process that sends them: none is lost."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from service.jobs.limits import JobLimits
from tests.service.jobs.conftest import FakeExecutor, jobs_in_redis, work_of

pytestmark = [pytest.mark.redis, pytest.mark.anyio]
ROOT = Path(__file__).parents[3]
WEBHOOKS, KILLS = 1000, 10


class Receiver(ThreadingHTTPServer):
    """Takes webhooks, slowly; one in ten is refused."""

    request_queue_size = 128

    def __init__(self) -> None:
        self.taken: Counter[str] = Counter()
        rng, lock, server = random.Random(3), threading.Lock(), self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                with lock:
                    pause, refused = rng.random() / 50, rng.random() < 0.1
                time.sleep(pause)
                if not refused:
                    with lock:
                        server.taken[self.headers["webhook-id"]] += 1
                try:
                    self.send_response(500 if refused else 204)
                    self.end_headers()
                except OSError:
                    pass  # its sender was killed

            def log_message(self, format: str, *args: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        pass


def started(redis_url: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "tests.service.outside.sender", redis_url], cwd=ROOT)


async def test_none_is_lost(redis_url: str) -> None:
    receiver = Receiver()
    threading.Thread(target=receiver.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{receiver.server_port}/"
    rng, kills = random.Random(1), 0
    async with jobs_in_redis(redis_url, FakeExecutor(), JobLimits(max_queued=2000), None) as jobs:
        expected: set[str] = set()

        async def submit() -> None:
            for k in range(WEBHOOKS):
                job = await jobs.submit(work_of(str(k).encode()), "me", callback=address)
                expected.add(f"msg_{job.id}")

        submitting = asyncio.create_task(submit())
        sender = started(redis_url)
        try:
            async with asyncio.timeout(150):
                while not submitting.done() or len(receiver.taken) < WEBHOOKS:
                    await asyncio.sleep(0.05)
                    if kills < KILLS and len(receiver.taken) > (kills + rng.random()) * WEBHOOKS / (KILLS + 1):
                        sender.kill()
                        sender.wait()
                        kills += 1
                        sender = started(redis_url)
            await submitting
        finally:
            submitting.cancel()
            sender.kill()
            sender.wait()
            receiver.shutdown()
            receiver.server_close()
        states = Counter([(await jobs.hook(id.removeprefix("msg_"), "me")).state for id in expected])
    assert kills == KILLS
    assert set(receiver.taken) == expected
    twice = sum(count > 1 for count in receiver.taken.values())
    assert twice <= 16 * KILLS  # what was under way at a kill, at most
    assert states["delivered"] >= WEBHOOKS - 16  # the last ones may not have been written down yet
