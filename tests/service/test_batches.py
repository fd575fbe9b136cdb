"""Batches: many requests in one file."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from model.container import parse
from service.jobs import batches, hooks
from service.jobs.records import BatchRecord
from tests.service.conftest import MakeClient, image_file, photograph
from tests.service.fake_engine import FakeEngine, make_file
from tests.service.test_problems import check

pytestmark = pytest.mark.anyio
FILES = {"/photo.png": image_file(photograph()), "/a.cdc": make_file(16, 16), "/broken.png": b"\x89PNG\r\n\x1a\nno"}
SETTINGS: dict[str, Any] = {
    "source_hosts": ("127.0.0.1",),
    "sink_hosts": ("127.0.0.1",),
    "private_addresses": True,
}


class Site:
    """Files to read, and what was put there."""

    def __init__(self) -> None:
        self.put: dict[str, tuple[str, bytes]] = {}
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                data = FILES.get(self.path)
                self.send_response(200 if data else 404)
                self.end_headers()
                self.wfile.write(data or b"")

            def do_PUT(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                site.put[self.path] = str(self.headers["Content-Type"]), body
                self.send_response(403 if self.path == "/refused" else 201)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(hooks, "POLL_S", 0.01)
    monkeypatch.setattr(batches, "YIELD_S", 0.0)
    found = Site()
    yield found
    found.server.shutdown()
    found.server.server_close()


def line(name: str, url: str, **body: Any) -> dict[str, Any]:
    return {"custom_id": name, "url": url, "body": body}


def jsonl(*lines: dict[str, Any]) -> bytes:
    return "\n".join(map(json.dumps, lines)).encode()


async def ended(client: httpx.AsyncClient, location: str) -> dict[str, Any]:
    async with asyncio.timeout(20):
        while True:
            found: dict[str, Any] = (await client.get(location)).json()
            if found["state"] != "in_progress":
                return found
            await asyncio.sleep(0.02)


async def lines_of(client: httpx.AsyncClient, address: str) -> dict[str, dict[str, Any]]:
    text = (await client.get(address)).text
    return {found["custom_id"]: found for found in map(json.loads, text.splitlines())}


async def test_a_batch_is_done(make_client: MakeClient, site: Site) -> None:
    client = await make_client(**SETTINGS)
    data = jsonl(
        *(line(f"e{k}", "/encode", source=site.url + "/photo.png", quality=10 + k) for k in range(6)),
        line("d", "/decode", source=site.url + "/a.cdc", width=8, format="webp", result=site.url + "/out.webp"),
        line("broken", "/encode", source=site.url + "/broken.png"),
        line("missing", "/decode", source=site.url + "/none"),
        line("refused", "/decode", source=site.url + "/a.cdc", result=site.url + "/refused"),
    )
    sent = await client.post("/batches", content=data, headers={"Content-Type": "application/jsonl"})
    assert sent.status_code == 202, sent.text
    assert sent.json()["total"] == 10
    found = await ended(client, sent.headers["location"])
    assert (found["state"], found["completed"], found["failed"]) == ("completed", 7, 3)
    output, errors = await lines_of(client, found["output"]), await lines_of(client, found["errors"])
    assert set(output) == {f"e{k}" for k in range(6)} | {"d"}
    job = output["e3"]["response"]["body"]
    result = await client.get(f"/jobs/{job['id']}/result")
    assert parse(result.content).header.width == 32
    assert result.headers["x-cdc-quality"] == "13"
    assert site.put["/out.webp"][0] == "image/webp"
    assert len((await client.get(found["output"])).text.splitlines()) == 7  # also when its parts are gone
    assert {name: found["error"]["type"] for name, found in errors.items()} == {
        "broken": "/problems/broken-image",
        "missing": "/problems/source-failed",
        "refused": "/problems/source-failed",
    }


async def test_a_batch_is_cancelled(make_client: MakeClient, site: Site, engine: FakeEngine) -> None:
    client = await make_client(**SETTINGS)
    engine.gate.clear()
    data = jsonl(*(line(f"d{k}", "/decode", source=site.url + "/a.cdc", seed=k) for k in range(20)))
    location = (await client.post("/batches", content=data)).headers["location"]
    await engine.until(lambda: engine.requests)
    assert (await client.delete(location)).json()["state"] == "cancelled"
    engine.gate.set()
    await asyncio.sleep(0.2)
    assert len(engine.requests) <= batches.SLICE
    assert (await client.delete(location)).json()["state"] == "cancelled"


async def test_who_waits_comes_first(make_client: MakeClient, site: Site, engine: FakeEngine) -> None:
    """While a job waits for its turn no line of a batch begins."""
    client = await make_client(**SETTINGS, max_running_jobs=1)
    engine.gate.clear()
    headers = {"Prefer": "respond-async"}
    for k in range(3):
        await client.post("/decode", params={"seed": 100 + k}, content=make_file(16, 16), headers=headers)
    data = jsonl(*(line(f"d{k}", "/decode", source=site.url + "/a.cdc", seed=k) for k in range(2)))
    location = (await client.post("/batches", content=data)).headers["location"]
    await asyncio.sleep(0.2)
    assert len(engine.requests) == 1
    engine.gate.set()
    assert (await ended(client, location))["completed"] == 2
    seeds = [getattr(request, "seed", None) for request in engine.requests]
    assert seeds[:2] == [100, 101]
    assert sorted(map(str, seeds)) == ["0", "1", "100", "101", "102"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (b"{", "line 1 must be"),
        (b"[]", "line 1 must be"),
        (b"[" * 5000, "line 1 must be"),
        (jsonl({"custom_id": "a", "url": "/models", "body": {}}), "line 1 must be"),
        (jsonl({"custom_id": "a", "url": [], "body": {}}), "line 1 must be"),
        (jsonl({"custom_id": "a", "url": "/encode", "body": {}}), "body.source"),
        (jsonl(line("a", "/encode", source="https://a/b", callback="https://c/d")), "line 1: callback"),
        (jsonl(line("", "/encode", source="https://a/b")), "custom_id"),
        (jsonl(line("a", "/encode", source="https://a/b"), line("a", "/encode", source="https://a/b")), "line 2"),
        (jsonl(line("a", "/encode", source="https://a/b", quality=0)), "quality"),
        (jsonl(line("a", "/encode", source="https://a/b", qualty=1)), "qualty"),
        (jsonl(line("a", "/encode", source="https://a/b", model="x" * 9000)), "at most 8192 bytes"),
        (b"\n\n", "no lines"),
    ],
)
async def test_a_batch_that_cannot_begin(make_client: MakeClient, lines: bytes, message: str) -> None:
    client = await make_client(source_hosts=("a",))
    body = check(await client.post("/batches", content=lines), 422, "invalid-parameter")
    assert message in body["detail"]


@pytest.mark.parametrize(
    "body",
    [
        {"source": "https://a.example/b", "result": "https://example.org/put"},
        {"source": "https://a.example/b", "result": "s3://other/key"},
        {"source": "https://example.org/a"},
        {"source": "http://a.example/b"},
        {"source": "s3://other/key"},
        {"source": "https://a.example@example.org/b"},
    ],
)
async def test_lines_name_only_what_is_allowed(make_client: MakeClient, body: dict[str, str]) -> None:
    """Found before the batch is taken, whichever line it is."""
    client = await make_client(source_hosts=("a.example",), source_buckets=("photos",))
    good = line("a", "/encode", source="https://a.example/b")
    found = check(
        await client.post("/batches", content=jsonl(good, line("b", "/encode", **body))), 422, "address-not-allowed"
    )
    assert found["detail"].startswith("line 2: ")


async def test_output_is_whole_though_its_parts_go_meanwhile(make_client: MakeClient, site: Site) -> None:
    """A reader that found the batch in progress, and whose parts are removed before it has read them."""
    client = await make_client(**SETTINGS)
    data = jsonl(*(line(f"d{k}", "/decode", source=site.url + "/a.cdc", seed=k) for k in range(8)))
    location = (await client.post("/batches", content=data)).headers["location"]
    found: Any = client._transport
    kept: batches.Batches = found.app.state.parts.batches
    get, id = kept.get, location.rsplit("/", 1)[1]
    await ended(client, location)
    answers = [replace(await get(id, "anonymous"), state="in_progress")]

    async def stale(id: str, owner: str) -> BatchRecord:
        return answers.pop() if answers else await get(id, owner)

    kept.get = stale  # type: ignore[method-assign]
    assert len((await client.get(f"{location}/output")).text.splitlines()) == 8


async def test_output_is_whole_though_it_is_put_together_meanwhile(
    make_client: MakeClient, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader that found the batch cancelled, before output and errors were there."""
    client = await make_client(**SETTINGS)
    data = jsonl(*(line(f"d{k}", "/decode", source=site.url + "/a.cdc", seed=k) for k in range(8)))
    location = (await client.post("/batches", content=data)).headers["location"]
    await ended(client, location)
    found: Any = client._transport
    blobs = found.app.state.parts.batches._store.blobs
    get, missing = blobs.get, [True]

    async def late(name: str) -> bytes | None:
        return None if name.endswith("/output") and missing and missing.pop() else await get(name)

    monkeypatch.setattr(blobs, "get", late)
    assert len((await client.get(f"{location}/output")).text.splitlines()) == 8


async def test_a_batch_is_its_owners(make_client: MakeClient, site: Site) -> None:
    client = await make_client(**SETTINGS)
    mine = {"Authorization": "Bearer mine"}
    data = jsonl(line("a", "/encode", source=site.url + "/photo.png"))
    location = (await client.post("/batches", content=data, headers=mine)).headers["location"]
    for path in (location, f"{location}/output", f"{location}/errors"):
        check(await client.get(path), 404, "unknown-batch")
        assert (await client.get(path, headers=mine)).status_code == 200
    check(await client.delete(location), 404, "unknown-batch")
    check(await client.get("/batches/none"), 404, "unknown-batch")
