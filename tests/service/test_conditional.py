"""HEAD wherever GET is, 304 for what the caller has, 204 for events that are over."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from service.api.app import create_app
from service.settings import Settings
from tests.service.conftest import client_of
from tests.service.fake_engine import FakeEngine, make_file
from tests.service.test_job_routes import ASYNC, ended, events_of
from tests.service.test_problems import check

pytestmark = pytest.mark.anyio

CDC = make_file(16, 16)
SECRET = "9f8a7b6c5d4e3f2a1b0c9d8e7f6a5b4c"


@pytest.fixture
async def job(client: httpx.AsyncClient) -> str:
    """The address of a job that has succeeded."""
    location = (await client.post("/decode?steps=2", content=CDC, headers=ASYNC)).headers["location"]
    assert (await ended(client, location))["state"] == "succeeded"
    return location


VARYING = ("x-request-id", "server-timing", "content-length")


@pytest.mark.parametrize(
    "path", ["/", "/models", "/livez", "/readyz", "/version", "/metrics", "/openapi.json", "/docs", "/docs/start.js"]
)
async def test_head_is_get_without_the_body(client: httpx.AsyncClient, path: str) -> None:
    got, head = await client.get(path), await client.head(path)
    assert (head.status_code, head.content) == (got.status_code, b"") == (200, b"")
    assert "content-length" in head.headers
    assert {n: v for n, v in head.headers.items() if n not in VARYING} == {
        n: v for n, v in got.headers.items() if n not in VARYING
    }
    if path != "/metrics":  # which count the first request
        assert head.headers["content-length"] == got.headers["content-length"]


async def test_head_of_a_job(client: httpx.AsyncClient, job: str) -> None:
    for path in (job, f"{job}/result", f"{job}/events"):
        got, head = await client.get(path), await client.head(path)
        assert (head.status_code, head.content) == (200, b"")
        assert {n: v for n, v in head.headers.items() if n != "x-request-id"} == {
            n: v for n, v in got.headers.items() if n != "x-request-id"
        }


async def test_head_of_what_is_not_there(client: httpx.AsyncClient) -> None:
    for path, status in (("/nothing", 404), ("/jobs/none", 404), ("/encode", 405)):
        answer = await client.head(path)
        assert (answer.status_code, answer.content) == (status, b"")
        assert answer.headers["content-type"] == "application/problem+json"
    assert "HEAD" not in answer.headers["allow"]
    metrics = (await client.get("/metrics")).text
    assert 'cdc_requests_total{route="/jobs/{id}",status="404"} 1.0' in metrics


async def test_head_of_a_stream_that_goes_on(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.delay = 60
    location = (await client.post("/decode", content=CDC, headers=ASYNC)).headers["location"]
    async with asyncio.timeout(5):
        answer = await client.head(f"{location}/events")
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert (await client.delete(location)).status_code == 200


async def test_a_result_the_caller_has_is_not_sent_again(client: httpx.AsyncClient, job: str) -> None:
    first = await client.get(f"{job}/result")
    etag = first.headers["etag"]
    for known in (etag, f'"other", W/{etag}', "*"):
        again = await client.get(f"{job}/result", headers={"If-None-Match": known})
        assert (again.status_code, again.content) == (304, b"")
        for name in ("etag", "cache-control", "vary"):
            assert again.headers[name] == first.headers[name]
    assert (await client.get(f"{job}/result", headers={"If-None-Match": '"other"'})).content == first.content


async def test_a_304_reads_no_bytes(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    app = create_app(Settings(link_secrets=SECRET), engine)
    async with app.router.lifespan_context(app), client_of(app) as client:
        location = (await client.post("/decode?steps=2", content=CDC, headers=ASYNC)).headers["location"]
        await ended(client, location)
        link = (await client.post(f"{location}/links")).json()["href"]
        etag = (await client.get(link)).headers["etag"]
        monkeypatch.setattr(app.state.parts.jobs, "result", None)
        for path in (f"{location}/result", link):
            assert (await client.get(path, headers={"If-None-Match": etag})).status_code == 304


async def test_a_job_without_a_result_has_none_to_compare(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.delay = 60
    location = (await client.post("/decode", content=CDC, headers=ASYNC)).headers["location"]
    answer = await client.get(f"{location}/result", headers={"If-None-Match": "*"})
    check(answer, 409, "job-not-finished")
    await client.delete(location)


async def test_events_that_are_over_end_an_event_source(client: httpx.AsyncClient, job: str) -> None:
    events = events_of((await client.get(f"{job}/events")).text)
    last = events[-1][0]
    for seen in (last, last + 1, 999_999_999_999):
        answer = await client.get(f"{job}/events", headers={"Last-Event-ID": str(seen)})
        assert (answer.status_code, answer.content) == (204, b"")
    resumed = await client.get(f"{job}/events", headers={"Last-Event-ID": str(last - 1)})
    assert events_of(resumed.text) == events[-1:]


async def test_events_that_go_on_are_waited_for(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.gate.clear()
    location = (await client.post("/decode?steps=1", content=CDC, headers=ASYNC)).headers["location"]
    asking = asyncio.create_task(client.get(f"{location}/events", headers={"Last-Event-ID": "2"}))
    await engine.until(lambda: engine.requests)
    engine.gate.set()
    answer = await asking
    assert answer.status_code == 200
    assert events_of(answer.text)[-1][2]["state"] == "succeeded"
