"""The whole topology: two API processes behind a proxy, two workers, a Redis."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from cdc_client import CdcError, Client
from tests.deploy.running_cluster import RunningCluster, running_cluster
from tests.programs import need
from tests.service.conftest import image_file, photograph

pytestmark = [pytest.mark.slow, pytest.mark.redis]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    need("redis-server")
    with running_cluster(tmp_path_factory.mktemp("cluster"), threads="1", lease_s="3") as cluster:
        yield cluster


def total(cluster: RunningCluster, member: str, metric: str, **labels: str) -> float:
    port = cluster.member(member)["port"]
    text = httpx.get(f"http://127.0.0.1:{port}/metrics").text
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == metric and labels.items() <= sample.labels.items()
    )


def requests_of(cluster: RunningCluster, route: str) -> float:
    return sum(total(cluster, api, "cdc_requests_total", route=route) for api in ("api-0", "api-1"))


def test_round_trip_jobs_events_and_metrics(cluster: RunningCluster) -> None:
    with Client(cluster.url) as cdc:
        before = requests_of(cluster, "/decode")
        small = cdc.encode(image_file(photograph(96, 64)))
        assert cdc.decode(small.data, steps=2, gamma=0.8).steps == 2
        job = cdc.submit_decode(small.data, steps=4, gamma=0.8, seed=3, previews=True)
        events = list(job.events())
        assert [event.step for event in events if event.type == "preview"] == [1, 2, 3, 4]
        assert job.result().media_type == "image/png"
        assert requests_of(cluster, "/decode") - before == 2
        assert sum(total(cluster, name, "cdc_bpp_count") for name in ("worker-0", "worker-1")) >= 1


def test_a_killed_worker_is_replaced_and_nothing_is_lost(cluster: RunningCluster) -> None:
    with Client(cluster.url) as cdc:
        small = cdc.encode(image_file(photograph(96, 64)))
        jobs = [cdc.submit_decode(small.data, steps=20, gamma=0.8, seed=seed) for seed in range(6)]
        told = len(cluster.states)
        os.killpg(cluster.member("worker-0")["pid"], signal.SIGKILL)
        assert all(job.wait(120).state == "succeeded" for job in jobs)
        cluster.wait_for(told + 1)


def test_a_rolling_restart_under_load(cluster: RunningCluster) -> None:
    failures: list[CdcError] = []
    done = threading.Event()

    def load(seed: int, file: bytes, cdc: Client) -> None:
        while not done.is_set():
            try:
                assert cdc.decode(file, steps=2, gamma=0.8, seed=seed).seed == seed
            except CdcError as error:
                failures.append(error)

    with Client(cluster.url, max_retries=8) as cdc:
        small = cdc.encode(image_file(photograph(64, 64)))
        threads = [threading.Thread(target=load, args=(seed, small.data, cdc)) for seed in range(4)]
        for thread in threads:
            thread.start()
        told = len(cluster.states)
        before = {name: state["pid"] for name, state in cluster.states[-1]["members"].items() if name != "redis"}
        cluster.process.send_signal(signal.SIGHUP)
        try:
            cluster.wait_for(told + 1, 240)
        finally:
            done.set()
            for thread in threads:
                thread.join()
    assert failures == []
    assert all(cluster.member(name)["pid"] != pid for name, pid in before.items())


def test_the_logs_are_kept(cluster: RunningCluster, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = next(Path(tmp_path_factory.getbasetemp()).glob("cluster*"))
    assert {path.name for path in folder.glob("*.log")} >= {"redis.log", "api-0.log", "worker-1.log"}
