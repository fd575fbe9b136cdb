"""`cdc worker`: takes jobs from Redis and runs them in the engine of this machine. No HTTP but the metrics."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Awaitable, Callable

from prometheus_client import Gauge, start_http_server

from service.engine.pool import pool_of
from service.engine.port import Engine
from service.errors import ServiceError
from service.jobs.attempts import Attempts
from service.jobs.blobs import store_of
from service.jobs.connection import check_access, connect
from service.jobs.executor import executor_of
from service.jobs.fleet import REPORT_S, Fleet, WorkerReport
from service.jobs.limits import job_limits_of
from service.jobs.queue import Consumer, Enqueuer
from service.jobs.records import new_id
from service.jobs.redis import RedisStore
from service.jobs.store import Store
from service.metrics import Metrics
from service.settings import Settings, SettingsError

log = logging.getLogger(__name__)
SWEEP_S = 60.0
OVERDUE_LEASES = 2.0  # an execution without a sign of life for so many leases is delivered again
UNIT_COST = 1e6  # pixels x steps that the reported speed is read from


async def work(settings: Settings, engine: Engine | None = None) -> None:
    """Run until SIGTERM or SIGINT: then take nothing more, let running jobs end within the grace time, and hand the
    rest back to the queue.

    Args:
        settings: the configuration, with `redis_url`.
        engine: where the codec runs; None starts the worker pool.

    Raises:
        SettingsError: no `redis_url`, or one that Redis refuses.
    """
    if settings.redis_url is None:
        raise SettingsError("CDC_REDIS_URL: a worker needs one")
    url = settings.redis_url.get_secret_value()
    await check_access(url)
    metrics = Metrics()
    engine = engine or pool_of(settings, metrics.observe_tick)
    metrics.watch(engine.status)
    server = None
    if settings.metrics_port is not None:
        server, _ = start_http_server(settings.metrics_port, settings.host, metrics.registry)
    executor, limits = executor_of(settings, metrics, engine), job_limits_of(settings)
    async with connect(url) as redis:
        store = RedisStore(redis, Enqueuer(url), store_of(settings.blobs_url, redis))
        attempts = Attempts(store, executor, limits)
        consumer = Consumer(url, attempts.execute, settings.max_running_jobs, settings.grace_s, settings.lease_s)
        loop, stopping = asyncio.get_running_loop(), asyncio.Event()

        def stop() -> None:
            stopping.set()
            consumer.stop()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop)
        await engine.start()
        await store.start()
        name = new_id()
        helpers = [
            asyncio.create_task(_report(Fleet(redis), name, engine, metrics.heartbeat())),
            asyncio.create_task(_sweep(store.blobs.sweep)),
            asyncio.create_task(_deliver_again(store, OVERDUE_LEASES * settings.lease_s)),
        ]
        log.info("worker started", extra={"worker": name})
        try:
            await _until_ready(engine, stopping)
            await consumer.run()
            await attempts.close()
        finally:
            for helper in helpers:
                helper.cancel()
            with contextlib.suppress(ServiceError):
                await Fleet(redis).leave(name)
            await engine.stop(0.0)
            await store.stop(0.0)
            if server is not None:
                server.shutdown()
                server.server_close()
    log.info("worker stopped", extra={"worker": name})


async def _until_ready(engine: Engine, stopping: asyncio.Event) -> None:
    """Wait for the models, unless told to stop: before, every job would go back into the queue."""
    while not engine.models() and not stopping.is_set():
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.1):  # the engine has no event for it
                await stopping.wait()


async def _report(fleet: Fleet, name: str, engine: Engine, heartbeat: Gauge) -> None:
    while True:
        heartbeat.set_to_current_time()
        speed = max(0.0, (engine.seconds_of(UNIT_COST) - engine.seconds_of(0)) / UNIT_COST)
        with contextlib.suppress(ServiceError):
            await fleet.report(name, WorkerReport(engine.models(), engine.status(), speed))
        await asyncio.sleep(REPORT_S)


async def _deliver_again(store: Store, overdue_s: float) -> None:
    """Put into the queue what was promised and is not in it; what is in it already stays there once.

    The sender may have died between record and delivery; or a worker that was overtaken acknowledged a delivery, and
    the one that had overtaken it died.
    """
    while True:
        await asyncio.sleep(overdue_s / 2)
        with contextlib.suppress(ServiceError):
            for execution in await store.overdue(overdue_s):
                await store.deliver(execution, at_once=False)


async def _sweep(sweep: Callable[[], Awaitable[None]]) -> None:
    while True:
        await asyncio.sleep(SWEEP_S)
        try:
            await sweep()
        except Exception as error:  # a store's own kind; the next sweep may do better
            log.warning("old blobs could not be removed", extra={"error": type(error).__name__})
