"""Jobs over HTTP."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import replace
from typing import Any

import httpx
import pytest

from model.errors import CorruptStream
from service.api.jobs import Preferences, preferences
from service.engine.port import WEIGHT
from tests.service.conftest import Clock, MakeClient, image_file, photograph
from tests.service.fake_engine import FakeEngine, make_file

pytestmark = pytest.mark.anyio

ASYNC = {"Prefer": "respond-async"}
FILE = make_file(40, 30)


async def ended(client: httpx.AsyncClient, location: str, headers: dict[str, str] | None = None) -> dict[str, Any]:
    """Follow a job to its end and return it."""
    async with asyncio.timeout(5):
        await client.get(f"{location}/events", headers=headers)
    job: dict[str, Any] = (await client.get(location, headers=headers)).raise_for_status().json()
    assert job["state"] not in ("queued", "running")
    return job


def events_of(text: str) -> list[tuple[int, str, Any]]:
    found = re.findall(r"id: (\d+)\nevent: (\w+)\ndata: (.*)\n\n", text)
    return [(int(id), kind, json.loads(data)) for id, kind, data in found]


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], Preferences(False, 0)),
        (["respond-async"], Preferences(True, 0)),
        (["Respond-Async, wait=10"], Preferences(True, 10)),
        (["respond-async", 'wait = "7"; x=1, handling=lenient'], Preferences(True, 7)),
        (["respond-async, wait=999999"], Preferences(True, 300)),
        (["respond-async; foo=bar, wait=soon"], Preferences(True, 0)),
    ],
)
def test_preferences(headers: list[str], expected: Preferences) -> None:
    assert preferences(headers) == expected


@pytest.mark.parametrize("route", ["/encode", "/decode"])
async def test_a_job_gives_what_the_request_would_have(client: httpx.AsyncClient, route: str) -> None:
    body = image_file(photograph()) if route == "/encode" else FILE
    params = {"quality": 70} if route == "/encode" else {"steps": 3, "seed": 5, "format": "webp"}
    direct = await client.post(route, content=body, params=params)
    accepted = await client.post(route, content=body, params=params, headers=ASYNC)
    assert accepted.status_code == 202
    assert accepted.headers["preference-applied"] == "respond-async"
    location = accepted.headers["location"]
    assert location == f"/jobs/{accepted.json()['id']}"
    job = await ended(client, location)
    assert job["state"] == "succeeded"
    assert job["operation"] == route[1:]
    assert job["result"] == {
        "href": f"{location}/result",
        "media_type": direct.headers["content-type"],
        "bytes": len(direct.content),
    }
    result = await client.get(job["result"]["href"])
    assert result.content == direct.content
    names = {n for n in direct.headers if n.startswith("x-cdc") or n in ("etag", "content-type", "content-disposition")}
    assert {n: result.headers[n] for n in names} == {n: direct.headers[n] for n in names}


async def test_wait_answers_at_once_what_is_done_in_time(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    quick = await client.post("/decode", content=FILE, headers={"Prefer": "respond-async, wait=5"})
    assert quick.status_code == 200
    assert quick.headers["content-type"] == "image/png"
    assert "wait=5" in quick.headers["preference-applied"]
    engine.delay = 60
    slow = await client.post("/decode", content=make_file(41, 30), headers={"Prefer": "respond-async, wait=0"})
    assert slow.status_code == 202
    assert slow.json()["state"] in ("queued", "running")


async def test_wait_answers_a_failure_as_its_problem(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.error = CorruptStream("no sense")
    answer = await client.post("/decode", content=FILE, headers={"Prefer": "respond-async, wait=5"})
    assert (answer.status_code, answer.json()["type"]) == (422, "/problems/corrupt-stream")


async def test_a_failed_job_tells_its_problem(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.error = CorruptStream("words are left over")
    accepted = await client.post("/decode", content=FILE, headers=ASYNC)
    job = await ended(client, accepted.headers["location"])
    assert job["state"] == "failed"
    assert job["error"]["type"] == "/problems/corrupt-stream"
    result = await client.get(f"{accepted.headers['location']}/result")
    assert (result.status_code, result.json()["type"]) == (422, "/problems/corrupt-stream")


@pytest.mark.parametrize(
    ("path", "body", "status", "problem"),
    [
        ("/decode", FILE[:-3], 422, "truncated-file"),
        ("/decode", FILE[:-1] + b"?", 422, "checksum-mismatch"),
        ("/decode", make_file(40_000, 40_000), 422, "too-many-pixels"),
        ("/decode?steps=201", FILE, 422, "invalid-parameter"),
        ("/encode", b"GIF89a", 422, "broken-image"),
        ("/encode", b"no image", 415, "unsupported-image"),
    ],
)
async def test_what_its_header_tells_refuses_a_job_at_the_door(
    client: httpx.AsyncClient, path: str, body: bytes, status: int, problem: str
) -> None:
    headers = {"Prefer": "respond-async", "Content-Type": "application/octet-stream"}
    answer = await client.post(path, content=body, headers=headers)
    assert (answer.status_code, answer.json()["type"]) == (status, f"/problems/{problem}")


async def test_the_estimate_counts_encodes(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    """The fake engine needs 1 microsecond a pixel and step; an encode costs what its passes do."""
    engine.delay = 60
    body = image_file(photograph(512, 512))
    headers = {"Prefer": "respond-async", "Content-Type": "image/png"}
    job = (await client.post("/encode", content=body, headers=headers)).json()
    assert job["estimate_seconds"] == pytest.approx(WEIGHT["analyse"] * 512 * 512 * 1e-6, abs=1e-3)
    await client.delete(f"/jobs/{job['id']}")


async def test_cancel_reaches_the_engine(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.delay = 60
    location = (await client.post("/decode", content=FILE, headers=ASYNC)).headers["location"]
    await engine.until(lambda: engine.requests)
    unfinished = await client.get(f"{location}/result")
    assert (unfinished.status_code, unfinished.json()["type"]) == (409, "/problems/job-not-finished")
    assert (await client.delete(location)).json()["state"] == "cancelled"
    await engine.until(lambda: engine.cancelled)
    gone = await client.get(f"{location}/result")
    assert (gone.status_code, gone.json()["type"]) == (409, "/problems/job-cancelled")


async def test_events_are_followed_and_resumed(client: httpx.AsyncClient) -> None:
    location = (await client.post("/decode", params={"steps": 4}, content=FILE, headers=ASYNC)).headers["location"]
    stream = await client.get(f"{location}/events")
    assert stream.headers["content-type"].startswith("text/event-stream")
    events = events_of(stream.text)
    assert [id for id, _, _ in events] == list(range(1, len(events) + 1))
    assert [data["step"] for _, kind, data in events if kind == "progress"] == [1, 2, 3, 4]
    assert [data["state"] for _, kind, data in events if kind == "state"] == ["queued", "running", "succeeded"]
    resumed = await client.get(f"{location}/events", headers={"Last-Event-ID": "3"})
    assert events_of(resumed.text) == events[3:]
    assert (await client.get(f"{location}/events", headers={"Last-Event-ID": "x"})).status_code == 422


async def test_idempotency_keys(client: httpx.AsyncClient) -> None:
    headers = {**ASYNC, "Idempotency-Key": "one"}
    first = await client.post("/decode", content=FILE, headers=headers)
    again = await client.post("/decode", content=FILE, headers=headers)
    assert first.json()["id"] == again.json()["id"]
    other = await client.post("/decode", params={"steps": 2}, content=FILE, headers=headers)
    assert (other.status_code, other.json()["type"]) == (422, "/problems/idempotency-key-reused")
    for bad in ("", "a b", "k" * 256):
        answer = await client.post("/decode", content=FILE, headers={**ASYNC, "Idempotency-Key": bad})
        assert answer.status_code == 400, bad


async def test_a_direct_call_with_a_key_is_done_once(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    headers = {"Idempotency-Key": "one"}
    plain = await client.post("/decode", params={"steps": 2}, content=FILE)
    first = await client.post("/decode", params={"steps": 3}, content=FILE, headers=headers)
    assert first.status_code == 200
    assert first.headers.keys() == plain.headers.keys()
    done = len(engine.requests)
    again = await client.post("/decode", params={"steps": 3}, content=FILE, headers=headers)
    assert (again.content, again.headers["etag"]) == (first.content, first.headers["etag"])
    assert len(engine.requests) == done
    for path, body in (("/decode?steps=4", FILE), ("/decode?steps=3", make_file(8, 8))):
        other = await client.post(path, content=body, headers=headers)
        assert (other.status_code, other.json()["type"]) == (422, "/problems/idempotency-key-reused")
    for bad in ("", "a b", "k" * 256):
        assert (await client.post("/decode", content=FILE, headers={"Idempotency-Key": bad})).status_code == 400, bad


async def test_a_key_replays_what_the_caller_did_not_wait_for(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.gate.clear()
    headers = {"Idempotency-Key": "one"}
    late = await client.post("/decode", content=FILE, headers={**headers, "X-Deadline-Ms": "50"})
    assert (late.status_code, late.json()["type"]) == (504, "/problems/deadline-exceeded")
    engine.gate.set()
    assert (await client.post("/decode", content=FILE, headers=headers)).status_code == 200
    assert len(engine.requests) == 1


async def test_a_key_does_not_wait_where_a_request_would_not(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.state = replace(engine.state, backlog_seconds=500)
    answer = await client.post("/decode", content=FILE, headers={"Idempotency-Key": "one"})
    assert (answer.status_code, answer.json()["type"]) == (429, "/problems/busy")
    assert answer.headers["retry-after"] == "500"
    assert engine.requests == []


async def test_a_key_replays_a_failure(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.error = CorruptStream("no sense")
    for _ in range(2):
        answer = await client.post("/decode", content=FILE, headers={"Idempotency-Key": "one"})
        assert (answer.status_code, answer.json()["type"]) == (422, "/problems/corrupt-stream")
    assert len(engine.requests) == 1


async def test_a_key_with_steps_auto_keeps_to_the_deadline(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    """The fake engine needs 1 microsecond a pixel and step: 25 ms a step of 160x156 pixels."""
    headers = {"Idempotency-Key": "one", "X-Deadline-Ms": "100"}
    first = await client.post("/decode?steps=auto", content=make_file(160, 156), headers=headers)
    assert int(first.headers["x-cdc-steps"]) <= 4
    assert first.headers["cache-control"] == "no-store"
    again = await client.post(
        "/decode?steps=auto", content=make_file(160, 156), headers={**headers, "X-Deadline-Ms": "9000"}
    )
    assert again.headers["etag"] == first.headers["etag"]
    assert len(engine.requests) == 1


async def test_a_job_is_visible_to_its_bearer_alone(client: httpx.AsyncClient) -> None:
    ann, bob = ({"Authorization": f"Bearer {name}"} for name in ("ann-secret", "bob-secret"))
    accepted = await client.post("/decode", content=FILE, headers={**ASYNC, **ann, "Idempotency-Key": "k"})
    location = accepted.headers["location"]
    for path in (location, f"{location}/result", f"{location}/events"):
        for headers in (bob, {}):
            answer = await client.get(path, headers=headers)
            assert (answer.status_code, answer.json()["type"]) == (404, "/problems/unknown-job")
    assert (await client.delete(location, headers=bob)).status_code == 404
    assert (await client.get(location, headers=ann)).status_code == 200
    other = await client.post("/decode", content=FILE, headers={**ASYNC, **bob, "Idempotency-Key": "k"})
    assert other.json()["id"] != accepted.json()["id"]
    assert "secret" not in (await client.get(location, headers=ann)).text


async def test_unknown_and_expired_jobs(make_client: MakeClient, clock: Clock) -> None:
    client = await make_client(job_result_ttl_s=1)
    for path in ("/jobs/none", "/jobs/none/result", "/jobs/none/events"):
        answer = await client.get(path)
        assert (answer.status_code, answer.json()["type"]) == (404, "/problems/unknown-job")
    location = (await client.post("/decode", content=FILE, headers=ASYNC)).headers["location"]
    await ended(client, location)
    clock.now += 1.1
    for path in (location, f"{location}/result", f"{location}/events"):
        answer = await client.get(path)
        assert (answer.status_code, answer.json()["type"]) == (410, "/problems/job-expired")


async def test_large_decodes_are_refused_or_become_jobs(make_client: MakeClient) -> None:
    small, large = make_file(10, 10), make_file(100, 100)
    refusing = await make_client(max_sync_pixel_steps=5000)
    assert (await refusing.post("/decode", content=small)).status_code == 200
    answer = await refusing.post("/decode", content=large)
    assert (answer.status_code, answer.json()["type"]) == (413, "/problems/too-much-work")
    assert "respond-async" in answer.json()["detail"]
    assert (await refusing.post("/decode", content=large, headers=ASYNC)).status_code == 202
    deferring = await make_client(max_sync_pixel_steps=5000, over_sync="job")
    answer = await deferring.post("/decode", content=large)
    assert answer.status_code == 202
    assert (await ended(deferring, answer.headers["location"]))["state"] == "succeeded"


async def test_jobs_are_counted(client: httpx.AsyncClient) -> None:
    location = (await client.post("/decode", content=FILE, headers=ASYNC)).headers["location"]
    await ended(client, location)
    text = (await client.get("/metrics")).text
    assert 'cdc_jobs{state="succeeded"} 1.0' in text
    assert 'cdc_jobs{state="queued"} 0.0' in text
