"""/decoder/: what decodes without the service."""

from __future__ import annotations

import hashlib
from pathlib import Path

import httpx
import pytest

from tests.service.conftest import MakeClient

pytestmark = pytest.mark.anyio
PLAIN, SMALL = {"Accept-Encoding": "identity"}, {"Accept-Encoding": "gzip"}


async def test_files_are_those_of_the_manifest_and_kept_for_ever(client: httpx.AsyncClient) -> None:
    manifest = await client.get("/decoder/decoder.json")
    assert manifest.headers["cache-control"] == "no-cache"
    assert manifest.headers["access-control-allow-origin"] == "*"
    for entry in manifest.json()["files"].values():
        answer = await client.get(f"/decoder/{entry['file']}", headers=PLAIN)
        assert hashlib.sha256(answer.content).hexdigest() == entry["sha256"]
        assert "immutable" in answer.headers["cache-control"]


async def test_they_are_compressed_where_that_is_accepted(client: httpx.AsyncClient) -> None:
    manifest = (await client.get("/decoder/decoder.json")).json()
    path = f"/decoder/{manifest['files']['denoiser']['file']}"
    plain, small = [await client.get(path, headers=headers) for headers in (PLAIN, SMALL)]
    assert plain.content == small.content
    assert "content-encoding" not in plain.headers
    assert small.headers["content-encoding"] == "gzip"
    assert int(small.headers["content-length"]) < len(plain.content)
    assert plain.headers["etag"] != small.headers["etag"]
    for first, headers in ((plain, PLAIN), (small, SMALL)):
        again = await client.get(path, headers={**headers, "If-None-Match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("name", ["nothing.js", "..%2Fdecoder.json", "decoder.json%00", "a" * 65])
async def test_nothing_else_is_served(client: httpx.AsyncClient, name: str) -> None:
    answer = await client.get(f"/decoder/{name}")
    assert answer.status_code in (404, 422)
    assert answer.headers["content-type"] == "application/problem+json"


async def test_scripts_are_served_where_they_have_been_built(make_client: MakeClient, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("no script")
    client = await make_client(browser_dir=tmp_path)
    assert (await client.get("/playground/about")).json()["decodes_here"] is False
    (tmp_path / "cdc-image.js").write_text("export {}")
    client = await make_client(browser_dir=tmp_path)
    assert (await client.get("/playground/about")).json()["decodes_here"] is True
    answer = await client.get("/decoder/cdc-image.js")
    assert answer.text == "export {}"
    assert answer.headers["cross-origin-embedder-policy"] == "require-corp"
    assert "'wasm-unsafe-eval'" in answer.headers["content-security-policy"]
    assert (await client.get("/decoder/secret.txt")).status_code == 404
