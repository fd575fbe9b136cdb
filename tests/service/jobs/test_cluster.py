"""An API process without an engine, a worker process with one, a Redis between them: all of them real."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from benchmarks.server import running_server
from tests.polling import wait_for
from tests.programs import need
from tests.service.conftest import image_file, photograph
from tests.service.jobs.redis_server import RedisServer

pytestmark = pytest.mark.redis
ROOT = Path(__file__).parents[3]
ASYNC = {"Prefer": "respond-async"}
LONG = {"steps": 250, "gamma": 0.8}  # without noise the steps of cdc-lite are one


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    need("redis-server")
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


@contextmanager
def running_worker(server: RedisServer, **settings: str) -> Iterator[subprocess.Popen[bytes]]:
    values = {"redis_url": server.url, "threads": "1", "lease_s": "3", "grace_s": "10", **settings}
    env = os.environ | {f"CDC_{name.upper()}": value for name, value in values.items()}
    process = subprocess.Popen([sys.executable, "-m", "cdc_client", "worker"], cwd=ROOT, env=env)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            kill(process)


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a worker and its engine at once, as a machine that loses power."""
    for child in psutil.Process(process.pid).children(recursive=True):
        child.kill()
    process.kill()
    process.wait()


@pytest.fixture(scope="module")
def client(server: RedisServer) -> Iterator[httpx.Client]:
    with running_worker(server), running_server(redis_url=server.url) as (client, _):
        yield client


@pytest.fixture(scope="module")
def file(client: httpx.Client) -> bytes:
    answer = client.post("/encode", content=image_file(photograph(96, 64)))
    return answer.raise_for_status().content


def ended(client: httpx.Client, location: str, seconds: float = 60) -> dict[str, object]:
    def job() -> dict[str, object] | None:
        answer = client.get(location)
        assert answer.status_code == 200, answer.text
        found: dict[str, object] = answer.json()
        return None if found["state"] in ("queued", "running") else found

    return wait_for(job, seconds)


def test_requests_and_jobs_have_the_same_answers(client: httpx.Client, file: bytes) -> None:
    params = {"steps": 3, "gamma": 0.8, "seed": 1, "deterministic": "true"}
    direct = client.post("/decode", content=file, params=params)
    assert direct.status_code == 200
    assert direct.headers["x-cdc-steps"] == "3"
    job = client.post("/decode", content=file, params=params, headers=ASYNC)
    assert job.status_code == 202
    assert ended(client, job.headers["location"])["state"] == "succeeded"
    result = client.get(f"{job.headers['location']}/result")
    assert result.content == direct.content
    assert result.headers["etag"] == direct.headers["etag"]


def test_the_api_knows_the_models_of_its_workers(client: httpx.Client, file: bytes) -> None:
    assert client.get("/models").json()["models"][0]["name"] == "cdc-lite"
    assert client.post("/inspect", content=file).json()["models"] == ["cdc-lite"]
    auto = client.post("/decode", content=file, params={"steps": "auto"}, headers={"X-Deadline-Ms": "30000"})
    assert 1 <= int(auto.headers["x-cdc-steps"]) <= 17


def test_a_damaged_file_has_its_own_problem(client: httpx.Client, file: bytes) -> None:
    broken = file[:-1] + bytes([file[-1] ^ 1])
    answer = client.post("/decode", content=broken)
    assert (answer.status_code, answer.json()["type"]) == (422, "/problems/checksum-mismatch")


def test_events_and_previews_cross_the_queue(client: httpx.Client, file: bytes) -> None:
    params = {"steps": 4, "gamma": 0.8, "seed": 2, "preview": "true"}
    location = client.post("/decode", content=file, params=params, headers=ASYNC).headers["location"]
    text = client.get(f"{location}/events").text
    data = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]
    assert [d["step"] for d in data if "image" in d] == [1, 2, 3, 4]
    assert data[-1]["state"] == "succeeded"


def test_cancel_frees_the_worker(client: httpx.Client, file: bytes) -> None:
    long = client.post("/decode", content=file, params={**LONG, "seed": 3}, headers=ASYNC).headers["location"]
    wait_for(lambda: (client.get(long).json()["step"] or 0) >= 2, 30)
    assert client.delete(long).json()["state"] == "cancelled"
    start = time.monotonic()
    assert client.post("/decode", content=file, params={"steps": 1, "seed": 4}).status_code == 200
    assert time.monotonic() - start < 10


@pytest.mark.slow
def test_a_killed_worker_loses_no_job(server: RedisServer, client: httpx.Client, file: bytes) -> None:
    params = {"seed": 77, "steps": 40, "gamma": 0.8, "deterministic": "true"}
    with running_worker(server) as doomed:
        jobs = [
            client.post("/decode", content=file, params={**params, "seed": seed}, headers=ASYNC).headers["location"]
            for seed in range(12)
        ]
        wait_for(lambda: all(client.get(job).json()["state"] == "running" for job in jobs), 60)
        kill(doomed)
        for job in jobs:
            assert ended(client, job, 120)["state"] == "succeeded"
    one = client.get(f"{jobs[5]}/result").content
    assert one == client.post("/decode", content=file, params={**params, "seed": 5}).content


@pytest.mark.slow
def test_a_redis_restart_is_answered_503_and_mended_by_itself(
    server: RedisServer, client: httpx.Client, file: bytes
) -> None:
    location = client.post("/decode", content=file, params={**LONG, "steps": 60, "seed": 9}, headers=ASYNC).headers[
        "location"
    ]
    server.stop(kill=True)
    refused = client.post("/decode", content=file, params={"steps": 1, "seed": 10})
    assert (refused.status_code, refused.json()["type"]) == (503, "/problems/queue-unavailable")
    assert int(refused.headers["retry-after"]) >= 1
    assert client.get("/livez").status_code == 200
    server.start()
    small = {"steps": 1, "seed": 10}
    wait_for(lambda: client.post("/decode", content=file, params=small).status_code == 200, 30, every=0.2)
    assert ended(client, location)["state"] == "succeeded"


@pytest.mark.slow
def test_a_key_a_304_and_the_end_of_events(client: httpx.Client, file: bytes) -> None:
    call = {"steps": 2, "gamma": 0.8, "seed": 77}
    first, again = (
        client.post("/decode", content=file, params=call, headers={"Idempotency-Key": "one"}) for _ in range(2)
    )
    assert (first.status_code, again.status_code) == (200, 200)
    assert again.headers["server-timing"] == first.headers["server-timing"]  # not only the same bytes: the same run
    other = client.post("/decode", content=file, params={"steps": 3}, headers={"Idempotency-Key": "one"})
    assert (other.status_code, other.json()["type"]) == (422, "/problems/idempotency-key-reused")
    auto = [
        client.post("/decode?steps=auto", content=file, headers={"Idempotency-Key": "two"}).headers for _ in range(2)
    ]
    assert auto[0]["etag"] == auto[1]["etag"]
    location = client.post("/decode", content=file, params=call, headers=ASYNC).headers["location"]
    assert ended(client, location)["state"] == "succeeded"
    known = client.get(f"{location}/result", headers={"If-None-Match": first.headers["etag"]})
    assert (known.status_code, known.content) == (304, b"")
    assert client.head(f"{location}/result").headers["content-length"] == str(len(first.content))
    last = re.findall(r"^id: (\d+)$", client.get(f"{location}/events").text, re.MULTILINE)[-1]
    assert client.get(f"{location}/events", headers={"Last-Event-ID": last}).status_code == 204


@pytest.mark.slow
def test_a_worker_told_to_stop_finishes_what_it_runs(server: RedisServer, client: httpx.Client, file: bytes) -> None:
    with running_worker(server) as other:
        wait_for(lambda: "cdc_workers 2.0" in client.get("/metrics").text, 60)
        jobs = [
            client.post("/decode", content=file, params={**LONG, "steps": 20, "seed": 100 + n}, headers=ASYNC)
            for n in range(8)
        ]
        other.send_signal(signal.SIGTERM)
        assert other.wait(30) == 0
    assert [job.text for job in jobs if job.status_code != 202] == []
    for job in jobs:
        assert ended(client, job.headers["location"])["state"] == "succeeded"


@pytest.mark.slow
def test_a_job_whose_sender_died_before_it_was_enqueued_runs_all_the_same(
    server: RedisServer, client: httpx.Client, file: bytes
) -> None:
    """The record and the upload are there, the delivery is not: a worker finds it after a while."""
    from service.jobs.blobs import RedisBlobs
    from service.jobs.connection import connect
    from service.jobs.limits import JobLimits
    from service.jobs.redis import RedisStore
    from service.jobs.service import Jobs
    from service.work import DecodeOptions, Work
    from tests.service.jobs.test_redis import Silent

    async def half_submit() -> str:
        async with connect(server.url) as redis:
            store = RedisStore(redis, Silent(""), RedisBlobs(redis))
            jobs = Jobs(store, JobLimits(), seconds_of=lambda _: 1.0, generation=lambda: "one")
            return (await jobs.submit(Work(DecodeOptions(seed=5), file, "digest", steps=2), "anonymous")).id

    id = asyncio.run(half_submit())
    assert ended(client, f"/jobs/{id}")["state"] == "succeeded"
