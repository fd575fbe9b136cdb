"""Sources and results in an object store: moto's S3 server, reached with the service's own credentials."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
import s3fs

from benchmarks.server import running_server
from cdc_client import AsyncClient, ServiceSource
from model.container import parse
from service.jobs import hooks
from tests.service.conftest import BUCKET, MakeClient, image_file, photograph
from tests.service.fake_engine import make_file
from tests.service.test_batches import ended, jsonl, line, lines_of
from tests.service.test_problems import check

pytestmark = [pytest.mark.anyio, pytest.mark.slow]
PHOTO, CDC = image_file(photograph()), make_file(16, 16)
ALLOWED: dict[str, Any] = {"source_buckets": (f"{BUCKET}/in",), "sink_buckets": (f"{BUCKET}/out",)}


@pytest.fixture
def files(s3: dict[str, Any]) -> s3fs.S3FileSystem:
    found = s3fs.S3FileSystem(**s3)
    for name, data in (("in/photo.png", PHOTO), ("in/a*[1]?#b.cdc", CDC), ("private/photo.png", PHOTO)):
        found.pipe_file(f"{BUCKET}/{name}", data)
    return found


async def test_a_source(make_client: MakeClient, files: s3fs.S3FileSystem) -> None:
    client = await make_client(**ALLOWED)
    answer = await client.post("/encode", params={"source": f"s3://{BUCKET}/in/photo.png"})
    assert answer.status_code == 200, answer.text
    assert parse(answer.content).header.width == 32
    files.pipe_file(f"{BUCKET}/in/photo.png", image_file(photograph(64, 48)))  # read anew each time
    answer = await client.post("/encode", params={"source": f"s3://{BUCKET}/in/photo.png"})
    assert parse(answer.content).header.width == 64


async def test_a_key_is_taken_as_it_is(make_client: MakeClient, files: s3fs.S3FileSystem) -> None:
    """No pattern, no query, no fragment."""
    client = await make_client(**ALLOWED)
    answer = await client.post("/decode", params={"source": f"s3://{BUCKET}/in/a*[1]?#b.cdc", "steps": 1})
    assert answer.headers["x-cdc-width"] == "16"
    check(await client.post("/decode", params={"source": f"s3://{BUCKET}/in/*.cdc"}), 422, "source-failed")


async def test_a_source_that_is_not_given(make_client: MakeClient, files: s3fs.S3FileSystem) -> None:
    client = await make_client(**ALLOWED, max_body_bytes=1024)
    files.pipe_file(f"{BUCKET}/in/large", bytes(1025))
    files.pipe_file(f"{BUCKET}/in/empty", b"")
    for name in ("none", "large"):
        check(await client.post("/encode", params={"source": f"s3://{BUCKET}/in/{name}"}), 422, "source-failed")
    check(await client.post("/encode", params={"source": f"s3://{BUCKET}/in/empty"}), 400, "empty-body")
    for name in ("private/photo.png", "in/../private/photo.png", "out/photo.png", "in"):
        check(await client.post("/encode", params={"source": f"s3://{BUCKET}/{name}"}), 422, "address-not-allowed")


async def test_a_store_that_cannot_be_reached(make_client: MakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "a-secret")
    s3fs.S3FileSystem.clear_instance_cache()
    client = await make_client(**ALLOWED, body_timeout_s=2.0)
    found = check(await client.post("/encode", params={"source": f"s3://{BUCKET}/in/photo.png"}), 422, "source-failed")
    assert "a-secret" not in str(found)
    s3fs.S3FileSystem.clear_instance_cache()


async def test_a_batch_from_bucket_to_bucket(
    make_client: MakeClient, files: s3fs.S3FileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hooks, "POLL_S", 0.01)
    client = await make_client(**ALLOWED)
    source, out = f"s3://{BUCKET}/in/photo.png", f"s3://{BUCKET}/out"
    lines = [line(str(k), "/encode", source=source, quality=20 + k, result=f"{out}/{k}.cdc") for k in range(6)]
    lines.append(line("none", "/encode", source=f"s3://{BUCKET}/in/none", result=f"{out}/none.cdc"))
    location = (await client.post("/batches", content=jsonl(*lines))).headers["location"]
    found = await ended(client, location)
    assert (found["completed"], found["failed"]) == (6, 1)
    assert set(await lines_of(client, found["errors"])) == {"none"}
    assert sorted(files.ls(f"{BUCKET}/out", refresh=True, detail=False)) == [f"{BUCKET}/out/{k}.cdc" for k in range(6)]
    assert parse(files.cat_file(f"{BUCKET}/out/3.cdc")).header.width == 32


async def test_over_real_http_with_the_real_codec(files: s3fs.S3FileSystem) -> None:
    """A server process, whose credentials and endpoint are AWS's own variables."""
    settings = {name: ",".join(values) for name, values in ALLOWED.items()}
    with running_server(**settings, threads="1") as (server, _):
        source, out = f"s3://{BUCKET}/in/photo.png", f"s3://{BUCKET}/out/real.cdc"
        async with AsyncClient(str(server.base_url)) as cdc:
            small = (await cdc.encode(ServiceSource(source))).data
        body = json.dumps(line("a", "/encode", source=source, result=out)).encode()
        location = server.post("/batches", content=body).raise_for_status().headers["location"]
        async with httpx.AsyncClient(base_url=server.base_url) as client:
            found = await ended(client, location)
        assert (found["completed"], found["failed"]) == (1, 0)
        assert files.cat_file(f"{BUCKET}/out/real.cdc") == small
        assert parse(small).header.width == 32
