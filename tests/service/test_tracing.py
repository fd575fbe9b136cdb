"""Traces: what is one, what is in it, what is never in it, and what it costs when it is off."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from benchmarks.server import running_server
from cdc_client import AsyncClient, Client
from service import tracing
from service.api.app import create_app
from service.engine import pool
from service.engine.messages import DeviceOptions, Finished, Started
from service.engine.pool import PoolEngine
from service.engine.port import EncodeRequest
from service.jobs.attempts import Attempts
from service.jobs.limits import JobLimits
from service.jobs.memory import MemoryStore
from service.jobs.records import JobRecord
from service.logs import JsonFormatter
from service.settings import Settings
from tests.service.conftest import Clock, MakeClient, image_file, photograph
from tests.service.fake_engine import FakeEngine, make_file
from tests.service.jobs.conftest import FakeExecutor, jobs_of, work_of
from tests.service.jobs.redis_server import RedisServer
from tests.service.jobs.test_cluster import ended, kill, running_worker
from tests.service.jobs.test_cluster import server as server
from tests.service.outside.test_webhooks import SETTINGS as WEBHOOKS
from tests.service.outside.test_webhooks import Receiver, until
from tests.service.outside.test_webhooks import receiver as receiver
from tests.service.test_batches import SETTINGS as BATCHES
from tests.service.test_batches import Site, jsonl, line
from tests.service.test_batches import ended as batch_ended
from tests.service.test_batches import site as site
from tests.service.test_pool_deaths import RESULT, FakeWorker, settle
from tests.service.tracing_collector import Collector, Seen, kept_spans

pytestmark = pytest.mark.anyio
ROOT = Path(__file__).parents[2]
PNG, CDC = image_file(photograph()), make_file(16, 16)
PARENT = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"
TRACE = PARENT.split("-")[1]
Spans = Callable[[], list[Seen]]


@pytest.fixture
def spans() -> Iterator[Spans]:
    with kept_spans() as kept:
        yield kept


def one(found: list[Seen], name: str) -> Seen:
    (span,) = [s for s in found if s.name == name]
    return span


async def test_a_trace_from_the_client_through_queue_and_attempt(spans: Spans, engine: FakeEngine) -> None:
    app = create_app(Settings(), engine)
    transport = httpx.ASGITransport(app)
    async with app.router.lifespan_context(app), AsyncClient("http://cdc.test", transport=transport) as cdc:
        job = await cdc.submit_decode(CDC, steps=3)
        await job.result()
    found = spans()
    sent = one(found, "cdc POST /decode")
    received = one(found, "POST /decode")
    assert received.parent == sent.id
    for name in ("queue", "attempt"):
        assert (one(found, name).trace, one(found, name).parent) == (sent.trace, received.id)
    assert one(found, "attempt").attributes == {"cdc.operation": "decode", "cdc.attempt": 1}
    assert received.attributes["http.response.status_code"] == 202


async def test_what_is_secret_is_in_no_span(spans: Spans, make_client: MakeClient) -> None:
    client = await make_client(link_secrets=("0f1e2d3c4b5a69788796a5b4c3d2e1f0",))
    await client.get("/links/a-token")
    await client.post("/encode", params={"source": "https://example.org/a?sig=a-secret"})
    await client.get("/jobs/an-id/result", headers={"Authorization": "Bearer a-key"})
    text = repr(spans())
    assert "POST /encode" in text
    for secret in ("a-token", "a-secret", "a-key", "an-id"):
        assert secret not in text


async def test_a_callers_trace_goes_on(spans: Spans, client: httpx.AsyncClient) -> None:
    answer = await client.post("/encode", content=PNG, headers={"traceparent": PARENT})
    assert answer.status_code == 200
    assert {s.trace for s in spans()} == {TRACE}


@pytest.mark.parametrize("header", ["", "x", "00-0-0-01", PARENT * 20, "00-" + "0" * 32 + "-" + "0" * 16 + "-01"])
async def test_a_traceparent_that_is_none(spans: Spans, client: httpx.AsyncClient, header: str) -> None:
    headers = {"traceparent": header, "tracestate": "," * 5000, "baggage": "a=b," * 5000}
    assert (await client.post("/encode", content=PNG, headers=headers)).status_code == 200
    assert len({s.trace for s in spans()}) == 1


async def test_health_checks_are_in_no_trace(spans: Spans, client: httpx.AsyncClient) -> None:
    for path in ("/livez", "/readyz", "/metrics"):
        assert (await client.get(path)).status_code == 200
    assert spans() == []


async def test_stages_of_the_engine_follow_one_another(spans: Spans, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeWorker, "living", [], raising=False)
    monkeypatch.setattr(pool, "WorkerProcess", FakeWorker)
    clock = Clock()
    monkeypatch.setattr(pool, "now", clock)
    engine = PoolEngine([DeviceOptions()])
    await engine.start()
    await settle()
    running = asyncio.create_task(engine.run(EncodeRequest(np.zeros((8, 8, 3), np.uint8), "a")))
    await settle()
    (worker,) = FakeWorker.living
    start, clock.now = clock.now, clock.now + 1
    worker.say(Started(worker.requests["a"], seconds=0.25))
    clock.now += 2
    worker.say(Finished(worker.requests.pop("a"), RESULT, seconds=0.125))
    await running
    await engine.stop(0)
    found = spans()
    whole = one(found, "engine")
    stages = [one(found, name) for name in ("wait", "prepare", "run", "finish")]
    assert {s.parent for s in stages} == {whole.id}
    times = [(round(s.begin - start, 3), round(s.end - start, 3)) for s in stages]
    assert times == [(0, 0.75), (0.75, 1), (1, 2.875), (2.875, 3)]


async def test_an_attempt_that_died_is_told_by_the_next_one(spans: Spans) -> None:
    clock, executor, limits = Clock(), FakeExecutor(), JobLimits()
    store = MemoryStore(limits, clock)
    jobs = jobs_of(store, executor, limits)
    with tracing.span("submission", PARENT):
        job = await jobs.submit(work_of(), "ann")
    record = (await store.read(f"job:{job.id}")).get(f"job:{job.id}", JobRecord)
    assert record is not None
    attempts = Attempts(store, executor, limits)
    clock.now += 2
    first = clock.now
    await attempts.begin(record.execution)  # and its worker dies
    clock.now += 5
    await attempts.execute(record.execution)
    found = spans()
    submission = one(found, "submission")
    queue = one(found, "queue")
    assert (queue.begin, queue.end) == (first - 2, first)
    died, done = (s for s in found if s.name == "attempt")
    assert (died.begin, died.end, died.failure) == (first, first + 5, "its worker died")
    assert (done.failure, died.attributes["cdc.attempt"], done.attributes["cdc.attempt"]) == ("", 1, 2)
    assert {(s.trace, s.parent) for s in (queue, died, done)} == {(TRACE, submission.id)}


async def test_a_webhook_is_in_the_trace_of_its_job(
    spans: Spans, make_client: MakeClient, receiver: Receiver, clock: Clock
) -> None:
    receiver.statuses = [500, 204]
    client = await make_client(**WEBHOOKS)
    headers = {"Prefer": "respond-async", "traceparent": PARENT}
    answer = await client.post("/decode", params={"callback": receiver.url}, content=CDC, headers=headers)
    await until(client, answer.json()["id"], "delivered", clock)
    failed, delivered = (s for s in spans() if s.name == "webhook")
    received = one([s for s in spans() if s.trace == TRACE], "POST /decode")
    assert {(s.trace, s.parent) for s in (failed, delivered)} == {(TRACE, received.id)}
    assert (failed.failure, delivered.failure) == ("OutsideFailed", "")
    assert answer.json()["id"] not in repr(spans())


async def test_lines_of_a_batch_have_traces_of_their_own(spans: Spans, make_client: MakeClient, site: Site) -> None:
    client = await make_client(**BATCHES)
    data = jsonl(line("good", "/decode", source=site.url + "/a.cdc"), line("bad", "/decode", source=site.url + "/none"))
    location = (await client.post("/batches", content=data, headers={"traceparent": PARENT})).headers["location"]
    await batch_ended(client, location)
    lines = [s for s in spans() if s.name == "batch line"]
    assert [s.links for s in lines] == [(TRACE,)] * 2
    assert len({s.trace for s in lines} | {TRACE}) == 3
    by_line = {s.attributes["cdc.line"]: s for s in lines}
    assert one(spans(), "attempt").parent == by_line[0].id
    assert (by_line[0].failure, by_line[1].failure) == ("", "/problems/source-failed")
    assert location.rsplit("/", 1)[1] not in repr(spans())


async def test_both_clients_send_their_span(spans: Spans) -> None:
    seen: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers["traceparent"])
        return httpx.Response(200, json={"models": []})

    with tracing.span("program", PARENT):
        Client("http://cdc.test", transport=httpx.MockTransport(answer)).models()
        async with AsyncClient("http://cdc.test", transport=httpx.MockTransport(answer)) as cdc:
            await cdc.models()
    sent = [s for s in spans() if s.name == "cdc GET /models"]
    assert [f"00-{TRACE}-{s.id}-01" for s in sent] == seen
    assert {s.parent for s in sent} == {one(spans(), "program").id}


async def test_a_job_that_joins_is_linked(spans: Spans) -> None:
    executor, limits = FakeExecutor(), JobLimits()
    jobs = jobs_of(MemoryStore(limits, Clock()), executor, limits)
    with tracing.span("first", PARENT):
        await jobs.submit(work_of(), "ann")
    with tracing.span("second"):
        await jobs.submit(work_of(), "bob")
    assert one(spans(), "second").links == (TRACE,)


async def test_a_failed_job_fails_its_attempt(spans: Spans, engine: FakeEngine, client: httpx.AsyncClient) -> None:
    engine.error = RuntimeError("a text with a secret")
    assert (await client.post("/encode", content=PNG)).status_code == 500
    assert one(spans(), "attempt").failure == "ServiceError"
    assert "secret" not in repr(spans())


async def test_histograms_lead_to_traces(spans: Spans, client: httpx.AsyncClient) -> None:
    await client.post("/decode", content=CDC, headers={"traceparent": PARENT})
    plain = await client.get("/metrics")
    assert plain.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert TRACE not in plain.text
    accept = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3"
    answer = await client.get("/metrics", headers={"Accept": accept})
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    samples = [s for family in text_string_to_metric_families(answer.text) for s in family.samples]
    named = {s.name for s in samples if s.exemplar and s.exemplar.labels == {"trace_id": TRACE}}
    assert named == {"cdc_request_duration_seconds_bucket", "cdc_work_seconds_bucket"}


@pytest.mark.parametrize(
    "accept", ["application/openmetrics-text; version=x", "application/openmetrics-text;escaping=x"]
)
async def test_an_odd_accept_header(client: httpx.AsyncClient, accept: str) -> None:
    assert (await client.get("/metrics", headers={"Accept": accept})).text.endswith("# EOF\n")


def test_log_lines_name_the_trace(spans: Spans) -> None:
    record = logging.makeLogRecord({"msg": "text"})
    with tracing.span("a", PARENT):
        assert json.loads(JsonFormatter().format(record))["trace_id"] == TRACE
    assert "trace_id" not in json.loads(JsonFormatter().format(record))


def run(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("OTEL_")}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=clean | env, capture_output=True, text=True, check=True
    )


CONFIGURE = """
import sys
from service import tracing
tracing.configure("cdc-api")
with tracing.span("a"):
    found = tracing.traceparent()
tracing.flush()
print("opentelemetry.sdk" in sys.modules, "opentelemetry.exporter" in sys.modules, bool(found))
"""
ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}


@pytest.mark.parametrize(
    "env",
    [{}, {**ENDPOINT, "OTEL_SDK_DISABLED": "true"}, {**ENDPOINT, "OTEL_TRACES_EXPORTER": "none"}],
)
def test_off_nothing_is_imported(env: dict[str, str]) -> None:
    assert run(CONFIGURE, **env).stdout == "False False False\n"


def test_the_client_imports_nothing() -> None:
    code = "import sys, cdc_client; print([m for m in sys.modules if m.startswith('opentelemetry')])"
    assert run(code).stdout == "[]\n"


def test_the_console_exporter_and_names() -> None:
    out = run(CONFIGURE, OTEL_TRACES_EXPORTER="console").stdout
    assert '"service.name": "cdc-api"' in out
    out = run(CONFIGURE, OTEL_TRACES_EXPORTER="console", OTEL_RESOURCE_ATTRIBUTES="service.name=mine").stdout
    assert '"service.name": "mine"' in out


def test_what_cannot_be_configured_is_told() -> None:
    done = run(CONFIGURE, OTEL_TRACES_EXPORTER="zipkin")
    assert (done.stdout, "must be otlp, console or none" in done.stderr) == ("False False False\n", True)
    hide = "import sys; sys.modules['opentelemetry.sdk'] = None\n"
    done = run(hide + CONFIGURE.replace('"opentelemetry.sdk" in sys.modules', "False"), **ENDPOINT)
    assert "pip install 'cdc-codec[otel]'" in done.stderr


@pytest.mark.redis
def test_one_trace_over_a_worker_that_is_killed(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it real: an API, a worker that dies with kill -9, another one, and OTLP."""
    collector = Collector()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
    headers = {"traceparent": PARENT, "Prefer": "respond-async"}
    params = {"steps": 250, "gamma": 0.8}
    with running_worker(server) as first:
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "3600000")  # the others export at their end
        with running_server(redis_url=server.url) as (client, _):
            file = client.post("/encode", content=image_file(photograph(96, 64))).raise_for_status().content
            location = client.post("/decode", content=file, params=params, headers=headers).headers["location"]
            until = time.monotonic() + 20
            while not any(s.name == "queue" and s.trace == TRACE for s in collector.spans):
                assert time.monotonic() < until
                time.sleep(0.02)
            kill(first)
            with running_worker(server):
                assert ended(client, location)["state"] == "succeeded"
    found = [s for s in collector.spans if s.trace == TRACE]
    received = one(found, "POST /decode")
    assert received.parent == PARENT.split("-")[2]
    died, done = sorted((s for s in found if s.name == "attempt"), key=lambda s: s.begin)
    assert (died.failure, done.failure) == ("its worker died", "")
    assert {died.parent, done.parent, one(found, "queue").parent} == {received.id}
    assert one(found, "engine").parent == done.id
    assert {s.name for s in found if s.parent == one(found, "engine").id} == {"wait", "prepare", "run", "finish"}
    assert collector.services == {"cdc-api", "cdc-worker"}
