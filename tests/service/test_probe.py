"""Health checks of containers: what is well, what is not, and a real worker that is asked."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
from prometheus_client import start_http_server

from service.engine.port import EngineStatus
from service.jobs.connection import connect
from service.jobs.fleet import Fleet, RemoteEngine
from service.jobs.store import Place
from service.metrics import Metrics
from service.probe import STALE_S, Unwell, main, probe_api, probe_worker
from service.settings import Settings
from service.worker import work
from tests.polling import eventually
from tests.service.conftest import MakeClient
from tests.service.fake_engine import FakeEngine


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


class Worker:
    """The metrics of a worker on a port, with a heartbeat and an engine state that tests set."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.ready = True
        metrics = Metrics()
        metrics.watch(lambda: EngineStatus(self.ready, False, 0, 0, 0))
        self.heartbeat = metrics.heartbeat()
        self.heartbeat.set(1000.0)
        self.server, self.thread = start_http_server(port, "127.0.0.1", metrics.registry)


@pytest.fixture
def worker() -> Iterator[Worker]:
    made = Worker(free_port())
    yield made
    made.server.shutdown()
    made.server.server_close()
    made.thread.join()


def test_a_worker_is_well_while_its_loop_turns(worker: Worker) -> None:
    probe_worker(worker.port, now=1000.0 + STALE_S)
    with pytest.raises(Unwell, match="has not turned for 31 seconds"):
        probe_worker(worker.port, now=1000.0 + STALE_S + 1)


def test_a_worker_that_loads_is_alive_and_not_ready(worker: Worker) -> None:
    probe_worker(worker.port, ready=True, now=1001.0)
    worker.ready = False
    probe_worker(worker.port, now=1001.0)
    with pytest.raises(Unwell, match="no work yet"):
        probe_worker(worker.port, ready=True, now=1001.0)


def test_nobody_there() -> None:
    port = free_port()
    with pytest.raises(Unwell, match=f"no answer from port {port}"):
        probe_worker(port)
    with pytest.raises(Unwell, match="ConnectionRefusedError"):
        probe_api(port)


def test_another_status_than_200_is_unwell(worker: Worker) -> None:
    probe_api(worker.port, "/metrics")

    def refuse(_: object, start: Callable[[str, list[tuple[str, str]]], object]) -> list[bytes]:
        start("503 Service Unavailable", [])
        return []

    worker.server.set_app(refuse)  # type: ignore[attr-defined]
    with pytest.raises(Unwell, match="/readyz answered 503"):
        probe_api(worker.port, "/readyz")


@pytest.mark.parametrize(
    "arguments", [[], ["redis"], ["api", "livez"], ["api", "/livez", "/readyz"], ["worker", "--well"], ["worker"]]
)
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    environment = {} if arguments == ["worker"] else {"CDC_METRICS_PORT": "9"}
    assert main(arguments, environment) == 2
    assert capsys.readouterr().err.startswith("usage: ")


def test_as_a_command(worker: Worker) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        env = os.environ | {"CDC_METRICS_PORT": str(worker.port), "CDC_PORT": str(worker.port)}
        command = [sys.executable, "-m", "service.probe", *arguments]
        return subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=30)

    assert run("api", "/metrics").returncode == 0
    stale = run("worker")  # its heartbeat is of 1970
    assert stale.returncode == 1
    assert stale.stderr.startswith("unwell: the event loop has not turned")


@pytest.mark.anyio
async def test_the_queue_and_its_workers_are_in_the_metrics(make_client: MakeClient) -> None:
    """An API with an engine of its own has neither; see tests/deploy for one with a queue."""
    text = (await (await make_client()).get("/metrics")).text
    assert "cdc_queue_reachable" not in text
    assert "cdc_worker_heartbeat" not in text


@pytest.mark.redis
def test_a_real_worker_is_well_until_it_stops(redis_url: str) -> None:
    port, engine = free_port(), FakeEngine()

    async def main() -> None:
        task = asyncio.create_task(work(Settings(redis_url=redis_url, metrics_port=port, grace_s=1), engine))
        await eventually(lambda: asyncio.to_thread(well, port), 20)
        engine.state = EngineStatus(False, False, 0, 0, 0)
        await asyncio.to_thread(probe_worker, port)
        with pytest.raises(Unwell, match="no work yet"):
            await asyncio.to_thread(probe_worker, port, True)
        engine.state = EngineStatus(True, False, 0, 0, 0)
        await asyncio.to_thread(probe_worker, port, True)
        assert await _fleet(redis_url) == (True, 1)
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(20):
            await task
        with pytest.raises(Unwell, match="no answer"):
            await asyncio.to_thread(probe_worker, port)
        assert await _fleet(redis_url, workers=0) == (True, 0)

    asyncio.run(main())


def well(port: int) -> bool:
    """Whether the worker that tells of itself there is ready."""
    try:
        probe_worker(port, True)
    except Unwell:
        return False
    return True


async def _empty(execution: str) -> Place:
    return Place(None, 0, 0, 0.0)


async def _fleet(url: str, workers: int = 1) -> tuple[bool, int]:
    """What an API process before that Redis knows of it, once it sees so many workers."""
    async with connect(url) as redis:
        remote = RemoteEngine(Fleet(redis), _empty)
        assert remote.fleet() == (False, 0)
        await remote.start()
        try:
            await eventually(lambda: remote.fleet() == (True, workers), 20)
            return remote.fleet()
        finally:
            await remote.stop(0)
