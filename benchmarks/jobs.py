"""Jobs over Redis under fire: what is lost, what is run twice, what the queue costs.

    python -m benchmarks.jobs [--quick] [--scenario NAME] [--out FILE]

Starts its own redis-server (AOF, `appendfsync always`), workers with the real engine and an API process without one.

    kills      300 jobs on 3 workers, 20 random kill -9 of whole workers, 2 kills of Redis: every result by hash
    lease      a job of ten lease lengths on a live worker, whose device process is stopped for two of them
    overhead   milliseconds from acceptance to start, and from the end to the waiting client
    clients    200 concurrent clients of one API process, and its memory
    cancel     milliseconds from DELETE to the start of the job that waited for its place
    drain      SIGTERM to a worker and to the API under load, clients that retry as documented
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import psutil
import redis

from benchmarks import record
from benchmarks.server import running_server
from tests.service.conftest import image_file, photograph
from tests.service.jobs.redis_server import RedisServer

ASYNC = {"Prefer": "respond-async"}
LEASE_S = 3
Figures = dict[str, Any]


class Cluster:
    """Redis, workers and one API process, all processes of their own."""

    def __init__(self, stack: ExitStack, workers: int, **settings: str) -> None:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        self.redis = RedisServer(folder)
        self.redis.start()
        stack.callback(self.redis.stop)
        self._settings = {"redis_url": self.redis.url, "threads": "1", "lease_s": str(LEASE_S), **settings}
        self.workers = [self.start_worker() for _ in range(workers)]
        stack.callback(lambda: [kill(w) for w in self.workers])
        self.client, self.api = stack.enter_context(running_server(**self._settings))
        png = image_file(photograph(64, 64))
        self.file = self.client.post("/encode", content=png).raise_for_status().content

    def start_worker(self) -> subprocess.Popen[bytes]:
        env = os.environ | {f"CDC_{name.upper()}": value for name, value in self._settings.items()}
        command = [sys.executable, "-m", "cdc_client", "worker"]
        return subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL)

    def start_api(self, port: int) -> subprocess.Popen[bytes]:
        env = os.environ | {f"CDC_{name.upper()}": value for name, value in self._settings.items()}
        command = [sys.executable, "-m", "cdc_client", "serve", "--port", str(port)]
        return subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL)

    def keys(self, pattern: str) -> int:
        client = redis.Redis.from_url(self.redis.url)
        found = len(list(client.scan_iter(pattern, count=1000)))
        client.close()
        return found


@contextmanager
def cluster(workers: int, **settings: str) -> Iterator[Cluster]:
    with ExitStack() as stack:
        yield Cluster(stack, workers, **settings)


def kill(worker: subprocess.Popen[bytes]) -> None:
    """Kill a worker with its device process, as a machine that loses power."""
    try:
        for child in psutil.Process(worker.pid).children(recursive=True):
            child.kill()
    except psutil.NoSuchProcess:
        pass
    worker.kill()
    worker.wait()


async def retry(client: httpx.AsyncClient, method: str, path: str, **arguments: Any) -> httpx.Response:
    """Call as documented: again after a connection error, a 429 or a 503, when Retry-After says, at most 60 times."""
    for _ in range(60):
        try:
            answer = await client.request(method, path, **arguments)
        except httpx.TransportError:
            await asyncio.sleep(0.5)
            continue
        if answer.status_code not in (429, 503):
            return answer
        await asyncio.sleep(min(2.0, float(answer.headers.get("retry-after", 1))))
    raise AssertionError(f"{method} {path}: no answer after 60 tries")


async def one_job(client: httpx.AsyncClient, file: bytes, seed: int, steps: int) -> tuple[int, str]:
    """Submit a job, follow it, fetch its result; returns how many results were delivered, and the hash."""
    params = {"seed": seed, "steps": steps, "gamma": 0.8, "deterministic": "true"}
    headers = {**ASYNC, "Idempotency-Key": f"job-{seed}"}
    location = (await retry(client, "POST", "/decode", content=file, params=params, headers=headers)).headers[
        "location"
    ]
    ends = 0
    while True:
        seen = await retry(client, "GET", location)
        assert seen.status_code == 200, seen.text
        job = seen.json()
        if job["state"] not in ("queued", "running"):
            ends += 1
            break
        await asyncio.sleep(1)
    assert job["state"] == "succeeded", job
    result = await retry(client, "GET", f"{location}/result")
    return ends, hashlib.sha256(result.content).hexdigest()


async def kills(quick: bool) -> Figures:
    jobs, deaths, restarts, steps = (24, 3, 1, 6) if quick else (300, 20, 2, 12)
    rng = random.Random(5)
    with cluster(3, job_result_ttl_s="120", job_gone_ttl_s="5") as c:
        expected = {}
        async with httpx.AsyncClient(base_url=c.client.base_url, timeout=120) as client:
            start = time.monotonic()
            tasks = [asyncio.create_task(one_job(client, c.file, seed, steps)) for seed in range(jobs)]
            done_restarts = 0
            for number in range(deaths):
                await asyncio.sleep(rng.uniform(2, 6))
                index = rng.randrange(3)
                await asyncio.to_thread(kill, c.workers[index])
                c.workers[index] = c.start_worker()
                if done_restarts < restarts and number >= (done_restarts + 1) * deaths // (restarts + 1):
                    done_restarts += 1
                    await asyncio.to_thread(c.redis.stop, kill=True)
                    await asyncio.sleep(1)
                    await asyncio.to_thread(c.redis.start)
            found = await asyncio.gather(*tasks)
            seconds = time.monotonic() - start
            for seed in range(jobs):
                params = {"seed": seed, "steps": steps, "gamma": 0.8, "deterministic": "true"}
                if seed % max(1, jobs // 20) == 0:  # checked against a direct answer of a worker that nobody kills
                    answer = await retry(client, "POST", "/decode", content=c.file, params={**params, "format": "png"})
                    expected[seed] = hashlib.sha256(answer.content).hexdigest()
        client_ends = sum(ends for ends, _ in found)
        await asyncio.sleep(130)
        return {
            "jobs": jobs,
            "kills": deaths,
            "redis_restarts": done_restarts,
            "results": len(found),
            "distinct": len({digest for _, digest in found}),
            "wrong": sum(found[seed][1] != digest for seed, digest in expected.items()),
            "ends_seen": client_ends,
            "seconds": round(seconds, 1),
            "blobs_after_ttl": c.keys("cdc:blob:*"),
            "records_after_ttl": c.keys("cdc:job:*") + c.keys("cdc:exec:*"),
            "stream_after_ttl": stream_length(c),
        }


def stream_length(c: Cluster) -> int:
    client = redis.Redis.from_url(c.redis.url)
    total = sum(int(client.xlen(key)) for key in client.scan_iter("streaq:cdc:*", _type="stream"))  # type: ignore[arg-type]
    client.close()
    return total


async def lease(quick: bool) -> Figures:
    with cluster(1) as c:
        probe = time.monotonic()
        c.client.post("/decode", content=c.file, params={"steps": 50, "gamma": 0.8, "seed": 1}).raise_for_status()
        per_step = (time.monotonic() - probe) / 50
        steps = min(8000, round((2 if quick else 10) * LEASE_S / per_step))
        os_settings = {"steps": min(steps, 250), "gamma": 0.8, "seed": 2}
        start = time.monotonic()
        location = c.client.post("/decode", content=c.file, params=os_settings, headers=ASYNC).headers["location"]
        await asyncio.sleep(1)
        device = max(psutil.Process(c.workers[0].pid).children(recursive=True), key=lambda p: p.memory_info().rss)
        device.suspend()  # the step loop is blocked: no step, no message
        await asyncio.sleep((1 if quick else 10) * LEASE_S)
        device.resume()
        job = await ended(c.client, location)
        client = redis.Redis.from_url(c.redis.url)
        attempts = [json.loads(client.get(k) or "{}").get("fence", 0) for k in client.scan_iter("cdc:exec:*")]
        client.close()
        return {
            "lease_s": LEASE_S,
            "job_s": round(time.monotonic() - start, 1),
            "state": job["state"],
            "attempts": max(attempts),
        }


async def ended(client: httpx.Client, location: str) -> dict[str, Any]:
    while True:
        job: dict[str, Any] = (await asyncio.to_thread(client.get, location)).json()
        if job["state"] not in ("queued", "running"):
            return job
        await asyncio.sleep(0.05)


async def overhead(quick: bool) -> Figures:
    with cluster(1) as c:
        to_start, to_client = [], []
        for seed in range(20 if quick else 200):
            headers = {"Prefer": "respond-async, wait=60"}
            params = {"steps": 1, "gamma": 0.8, "seed": seed}
            answer = c.client.post("/decode", content=c.file, params=params, headers=headers)
            received = time.time()
            client = redis.Redis.from_url(c.redis.url)
            record = json.loads(str(client.get(f"cdc:job:{answer.headers['location'].rsplit('/', 1)[1]}"), "utf-8"))
            execution = json.loads(str(client.get(f"cdc:exec:{record['execution']}"), "utf-8"))
            client.close()
            to_start.append(1000 * (execution["started_at"] - record["created_at"]))
            to_client.append(1000 * (received - execution["finished_at"]))
        return {
            "jobs": len(to_start),
            "accepted_to_start_p50_ms": round(statistics.median(to_start), 2),
            "end_to_client_p50_ms": round(statistics.median(to_client), 2),
            "accepted_to_start_p95_ms": round(statistics.quantiles(to_start, n=20)[18], 2),
            "end_to_client_p95_ms": round(statistics.quantiles(to_client, n=20)[18], 2),
        }


async def clients(quick: bool) -> Figures:
    with cluster(1, max_running_jobs="64") as c:
        memory: list[float] = []
        rounds = 3 if quick else 10
        async with httpx.AsyncClient(
            base_url=c.client.base_url, timeout=600, limits=httpx.Limits(max_connections=300)
        ) as client:
            served = 0
            for number in range(rounds):
                calls = [
                    retry(
                        client,
                        "POST",
                        "/decode",
                        content=c.file,
                        params={"steps": 1, "gamma": 0.8, "seed": 1000 * number + n},
                    )
                    for n in range(200)
                ]
                answers = await asyncio.gather(*calls)
                served += sum(a.status_code == 200 for a in answers)
                memory.append(c.api.memory_info().rss / 2**20)
        return {"clients": 200, "rounds": rounds, "served": served, "api_mib": [round(m, 1) for m in memory]}


async def cancel(quick: bool) -> Figures:
    """With room for one job only, the next one starts when the cancelled one has let go."""
    with cluster(1, max_running_jobs="1") as c:
        start = time.monotonic()
        c.client.post("/decode", content=c.file, params={"steps": 20, "gamma": 0.8, "seed": 1}).raise_for_status()
        step_ms = 1000 * (time.monotonic() - start) / 20
        waits = []
        for seed in range(5 if quick else 30):
            long, short = (
                c.client.post(
                    "/decode", content=c.file, params={"steps": n, "gamma": 0.8, "seed": 10 + seed}, headers=ASYNC
                )
                for n in (250, 1)
            )
            while (c.client.get(long.headers["location"]).json()["step"] or 0) < 1:
                await asyncio.sleep(0.01)
            stopped = c.client.delete(long.headers["location"]).json()["finished_at"]
            started = (await ended(c.client, short.headers["location"]))["started_at"]
            waits.append(1000 * (datetime.fromisoformat(started) - datetime.fromisoformat(stopped)).total_seconds())
        return {
            "cancels": len(waits),
            "step_ms": round(step_ms, 1),
            "cancel_to_next_start_p50_ms": round(statistics.median(waits), 1),
            "cancel_to_next_start_max_ms": round(max(waits), 1),
        }


async def drain(quick: bool) -> Figures:
    with cluster(2, grace_s="20") as c:
        port = c.client.base_url.port
        api = [c.start_api(port + 1)]  # a second API process, that comes and goes on a port of its own
        rounds = 1 if quick else 3
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port + 1}", timeout=120) as client:
            answers: list[int] = []

            async def caller(number: int) -> None:
                for n in range(3 if quick else 20):
                    params = {"steps": 3, "gamma": 0.8, "seed": 100 * number + n}
                    answers.append((await retry(client, "POST", "/decode", content=c.file, params=params)).status_code)

            tasks = [asyncio.create_task(caller(n)) for n in range(8)]
            for _ in range(rounds):
                await asyncio.sleep(3)
                for process in (c.workers[0], api[0]):
                    process.send_signal(signal.SIGTERM)
                    await asyncio.to_thread(process.wait, 60)
                c.workers[0] = c.start_worker()
                api[0] = c.start_api(port + 1)
            await asyncio.gather(*tasks)
        kill(api[0])
        return {
            "calls": len(answers),
            "answered_200": answers.count(200),
            "worker_restarts": rounds,
            "api_restarts": rounds,
        }


SCENARIOS = {"overhead": overhead, "cancel": cancel, "lease": lease, "clients": clients, "drain": drain, "kills": kills}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--scenario", choices=list(SCENARIOS), action="append")
    options = record.parse(parser)
    figures = {}
    for name in options.scenario or SCENARIOS:
        figures[name] = asyncio.run(SCENARIOS[name](options.quick))
        print(name, json.dumps(figures[name]), flush=True)
    record.finish(options, figures)


if __name__ == "__main__":
    main()
