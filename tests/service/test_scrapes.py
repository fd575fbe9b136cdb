"""Scrapes come from other threads than the one that changes what they read."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterator

import numpy as np
import pytest
from prometheus_client import generate_latest

from service.engine import pool
from service.engine.messages import DeviceOptions, Ticked
from service.engine.pool import PoolEngine
from service.engine.port import EncodeRequest
from service.jobs.limits import JobLimits
from service.metrics import Metrics
from tests.service.jobs.conftest import Clock, FakeExecutor, jobs_of, memory_store, work_of
from tests.service.test_pool_deaths import FakeWorker, settle

pytestmark = pytest.mark.anyio


@pytest.fixture
def switch_s(request: pytest.FixtureRequest) -> Iterator[float]:
    """How often threads take turns: so quickly that few scrapes find what takes a month, or as ever."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(request.param)
    yield request.param
    sys.setswitchinterval(before)


@pytest.mark.parametrize(
    ("scrapes", "switch_s"),
    [(100, 1e-6), pytest.param(10_000, 0.005, marks=pytest.mark.slow)],
    indirect=["switch_s"],
)
async def test_no_scrape_fails_under_load(scrapes: int, switch_s: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeWorker, "living", [], raising=False)
    monkeypatch.setattr(pool, "WorkerProcess", FakeWorker)
    limits = JobLimits(result_ttl_s=0, gone_ttl_s=0, max_queued=1000, max_running=100, max_bytes=1 << 40)
    metrics, executor, clock = Metrics(), FakeExecutor(), Clock()
    store = memory_store(executor, limits, clock)
    jobs = jobs_of(store, executor, limits)
    engine = PoolEngine([DeviceOptions()], max_waiting=1000)
    await engine.start()
    await settle()
    metrics.watch(engine.status)
    metrics.watch_jobs(jobs.counts)
    failures: list[Exception] = []

    def scrape() -> None:
        for _ in range(scrapes):
            try:
                text = generate_latest(metrics.registry)
            except Exception as error:
                failures.append(error)
                return
            assert b"cdc_engine_requests" in text

    thread = threading.Thread(target=scrape)
    thread.start()
    pixels = np.zeros((8, 8, 3), np.uint8)
    number = 0
    while thread.is_alive():
        tasks = [asyncio.create_task(engine.run(EncodeRequest(pixels))) for _ in range(50)]
        for _ in range(50):
            number += 1
            await jobs.submit(work_of(str(number).encode()), "ann")
            metrics.requests.labels(f"/route{number % 50}", "200").inc()
            metrics.observe_tick(Ticked("denoise", (64, 64), 1 + number % 32, 64, 0.1))
        await settle()
        await asyncio.sleep(switch_s)  # the scrapes' turn
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        clock.now += 1
        await store.sweep()
    thread.join()
    await engine.stop(0)
    await jobs.stop(0)
    assert failures == []
