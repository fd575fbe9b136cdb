"""Fetching from a hub: a local server speaks the least of its protocol, so that no network is needed."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

from model.errors import WeightsError
from model.weights import hub
from model.weights.published import import_checkpoint
from tests.model.paper_oracle import published_checkpoint

COMMIT = "1234567890abcdef1234567890abcdef12345678"


class Hub:
    """What the server holds and was asked; each of `cuts` says after how many bytes the next answer breaks off."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.digests = {k: hashlib.sha256(v).hexdigest() for k, v in files.items()}
        self.cuts: list[int] = []
        self.ranges: list[str | None] = []


def handler(state: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: Any) -> None:
            pass

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, *, body: bool) -> None:
            path = self.path.split("?")[0]
            if path.startswith("/api/models/"):
                siblings = [
                    {
                        "rfilename": k,
                        "size": len(v),
                        "lfs": {"sha256": state.digests[k], "size": len(v), "pointerSize": 1},
                    }
                    for k, v in state.files.items()
                ]
                info = {"id": "rhyang/CDC_params", "modelId": "rhyang/CDC_params", "sha": COMMIT, "siblings": siblings}
                self.send(json.dumps(info).encode(), {"Content-Type": "application/json"}, body=body)
                return
            name = path.rsplit("/", 1)[-1]
            if name not in state.files:
                self.send_error(404)
                return
            data = state.files[name]
            headers = {
                "X-Repo-Commit": COMMIT,
                "ETag": f'"{state.digests[name]}"',
                "X-Linked-ETag": f'"{state.digests[name]}"',
                "X-Linked-Size": str(len(data)),
                "Accept-Ranges": "bytes",
            }
            cut = None
            if body:
                state.ranges.append(self.headers.get("Range"))
                cut = state.cuts.pop(0) if state.cuts else None
            asked = re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
            start = int(asked[1]) if asked else 0
            if asked:
                headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            self.send(data[start:], headers, body=body, status=206 if asked else 200, cut=cut)

        def send(
            self, data: bytes, headers: dict[str, str], *, body: bool, status: int = 200, cut: int | None = None
        ) -> None:
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(key, value)
            self.end_headers()
            if body:
                self.wfile.write(data if cut is None else data[:cut])
            if cut is not None:
                self.close_connection = True

    return Handler


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    pytest.importorskip("huggingface_hub")
    _, checkpoint = published_checkpoint("eps", 8)
    torch.save(checkpoint, tmp_path / "source.pt")
    state = Hub({"eps.pt": (tmp_path / "source.pt").read_bytes(), "README.md": b"text"})
    listener = ThreadingHTTPServer(("127.0.0.1", 0), handler(state))
    thread = threading.Thread(target=listener.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{listener.server_address[1]}")
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    yield state
    listener.shutdown()
    listener.server_close()
    thread.join()


def test_a_checkpoint_is_listed_fetched_and_imported(server: Hub, tmp_path: Path) -> None:
    assert [(f.name, f.commit) for f in hub.list_files()] == [("eps.pt", COMMIT)]
    fetched = hub.fetch("paper", "eps.pt", tmp_path / "down")
    assert fetched.path.read_bytes() == server.files["eps.pt"]
    assert fetched.sha256 == server.digests["eps.pt"]
    info = import_checkpoint(fetched.path, tmp_path / "o.safetensors", origin=fetched.origin, sha256=fetched.sha256)
    assert info.architecture == "cdc-eps"
    assert fetched.sha256 in info.provenance
    assert f"rhyang/CDC_params@{COMMIT}/eps.pt" in info.provenance


def test_an_interrupted_download_continues(server: Hub, tmp_path: Path) -> None:
    """The client keeps whole chunks of 10 MiB, so the file must be longer than one."""
    large = bytes(1000) * 25_000
    server.files["large.pt"], server.digests["large.pt"] = large, hashlib.sha256(large).hexdigest()
    server.cuts = [15_000_000] + [0] * 100
    with pytest.raises(WeightsError, match="an interrupted download continues"):
        hub.fetch("paper", "large.pt", tmp_path / "down")
    server.cuts.clear()
    server.ranges.clear()
    assert hub.fetch("paper", "large.pt", tmp_path / "down").path.read_bytes() == large
    assert re.fullmatch(r"bytes=[1-9]\d*-", server.ranges[0] or "")  # not from the start


def test_bytes_other_than_stated_are_refused(server: Hub, tmp_path: Path) -> None:
    damaged = bytearray(server.files["eps.pt"])
    damaged[5000] ^= 1
    server.files["eps.pt"] = bytes(damaged)
    with pytest.raises(WeightsError, match="the hub states"):
        hub.fetch("paper", "eps.pt", tmp_path / "down")
    assert not (tmp_path / "down" / "eps.pt").exists()


def test_unknown_names_and_no_connection(server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WeightsError, match=r"no 'other.pt'; it holds: eps.pt"):
        hub.fetch("paper", "other.pt", tmp_path)
    with pytest.raises(WeightsError, match="known: paper"):
        hub.fetch("elsewhere", "eps.pt")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(WeightsError, match="cdc weights import FILE"):
        hub.list_files()
