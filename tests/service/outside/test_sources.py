"""`source=`: files that a request names."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from model.container import parse
from service.settings import Settings
from tests.service.conftest import MakeClient, image_file, photograph
from tests.service.fake_engine import make_file
from tests.service.test_problems import check

pytestmark = pytest.mark.anyio
PHOTO = image_file(photograph())


class Handler(BaseHTTPRequestHandler):
    """Some files, and what goes wrong with others."""

    def do_GET(self) -> None:
        files = {"/photo.png": PHOTO, "/a.cdc": make_file(16, 16), "/empty": b"", "/large": b"x" * 5000}
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/photo.png")
        elif self.path == "/slow":
            time.sleep(3)
            return
        elif self.path == "/endless":
            self.send_response(200)
            self.end_headers()
            for _ in range(100):
                self.wfile.write(b"x" * 1000)
            return
        elif self.path in files:
            self.send_response(200)
            self.send_header("Content-Length", str(len(files[self.path])))
        else:
            self.send_response(404)
        self.end_headers()
        self.wfile.write(files.get(self.path, b""))

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


async def test_encode_and_decode_what_an_address_has(make_client: MakeClient, site: str) -> None:
    client = await make_client(source_hosts=("127.0.0.1",), private_addresses=True)
    for path in ("photo.png", "moved"):
        answer = await client.post("/encode", params={"source": f"{site}/{path}", "quality": 80})
        assert answer.status_code == 200, answer.text
        assert parse(answer.content).header.width == 32
        assert answer.headers["x-cdc-quality"] == "80"
    decoded = await client.post("/decode", params={"source": f"{site}/a.cdc", "width": 8})
    assert decoded.headers["x-cdc-width"] == "8"
    job = await client.post("/encode", params={"source": f"{site}/photo.png"}, headers={"Prefer": "respond-async"})
    assert job.status_code == 202


@pytest.mark.parametrize("path", ["missing", "slow", "large", "endless"])
async def test_what_cannot_be_had(make_client: MakeClient, site: str, path: str) -> None:
    client = await make_client(
        source_hosts=("127.0.0.1",), private_addresses=True, max_body_bytes=2000, body_timeout_s=1.0
    )
    check(await client.post("/encode", params={"source": f"{site}/{path}"}), 422, "source-failed")


async def test_an_empty_source(make_client: MakeClient, site: str) -> None:
    client = await make_client(source_hosts=("127.0.0.1",), private_addresses=True)
    check(await client.post("/encode", params={"source": f"{site}/empty"}), 400, "empty-body")


@pytest.mark.parametrize("source", ["https://example.org/a.png", "s3://bucket/key", "http://127.0.0.1:1/a"])
async def test_sources_are_off_by_default(make_client: MakeClient, source: str) -> None:
    client = await make_client()
    check(await client.post("/encode", params={"source": source}), 422, "address-not-allowed")


async def test_loopback_is_refused_where_any_public_host_is_allowed(make_client: MakeClient, site: str) -> None:
    client = await make_client(source_hosts=("*",))
    check(await client.post("/encode", params={"source": site + "/photo.png"}), 422, "address-not-allowed")
    for address in (site.replace("http", "https"), "https://localhost/a", "https://169.254.169.254/latest"):
        check(await client.post("/encode", params={"source": address}), 422, "address-not-allowed")


@pytest.mark.parametrize("source", ["ftp://a/b", "", "https://", "https://a b", "https://é.example"])
async def test_what_is_no_address(make_client: MakeClient, source: str) -> None:
    client = await make_client(source_hosts=("*",))
    check(await client.post("/encode", params={"source": source}), 422, "invalid-parameter")


@pytest.mark.parametrize(
    "key",
    [
        "s3://other/key",
        "s3://photos/private/a",
        "s3://photos/open/../private/a",
        "s3://photos/",
        "s3://photos/open/a::https://x/1",
    ],
)
async def test_buckets_are_listed(make_client: MakeClient, key: str) -> None:
    client = await make_client(source_buckets=("photos/open",))
    check(await client.post("/encode", params={"source": key}), 422, "address-not-allowed")


async def test_a_body_or_a_source(make_client: MakeClient, site: str) -> None:
    client = await make_client(source_hosts=("127.0.0.1",), private_addresses=True)
    source = {"source": f"{site}/photo.png"}
    check(await client.post("/encode", params=source, content=PHOTO), 422, "invalid-parameter")
    form = {"file": ("a.png", PHOTO, "image/png")}
    check(await client.post("/encode", files=form, data=source), 422, "invalid-parameter")


def test_settings_take_names_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CDC_SOURCE_HOSTS", "a.example.org, *.b.example.org")
    assert Settings().source_hosts == ("a.example.org", "*.b.example.org")
