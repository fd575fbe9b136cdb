"""Schemathesis over the real service: what its document promises, it does."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from benchmarks.server import running_server
from service.access.keys import new_key
from service.access.stores import FileKeys
from tests.service.conftest import image_file, photograph

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
LINK_SECRET = "9f8a7b6c5d4e3f2a1b0c9d8e7f6a5b4c"


def play(url: str, files: Path, examples: int, *, headers: tuple[str, ...] = ()) -> int:
    """Run it; return the number of calls."""
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(HERE / "schemathesis.toml")]
    command += ["run", f"{url}/openapi.json", "--max-examples", str(examples), "--generation-database", "none"]
    command += [part for header in headers for part in ("--header", header)]
    env = os.environ | {"SCHEMATHESIS_HOOKS": "tests.contract.hooks", "CDC_CONTRACT_FILES": str(files)}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    found = re.search(r"(\d[\d,]*) generated", done.stdout)
    assert found, done.stdout[-2000:]
    return int(found[1].replace(",", ""))


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder for files of the served model."""
    folder = tmp_path / "files"
    folder.mkdir()
    return folder


def encode(client: httpx.Client, folder: Path, headers: dict[str, str]) -> None:
    for width, height, quality in ((1, 1, 1), (24, 16, 50), (70, 33, 90)):
        body = image_file(photograph(width, height))
        answer = client.post("/encode", content=body, params={"quality": quality}, headers=headers).raise_for_status()
        (folder / f"{width}.cdc").write_bytes(answer.content)


@pytest.mark.slow
def test_an_open_service(files: Path) -> None:
    with running_server(threads="1", link_secrets=LINK_SECRET) as (client, _):
        encode(client, files, {})
        assert play(str(client.base_url).rstrip("/"), files, 130) >= 2000
        assert client.get("/livez").status_code == 200


@pytest.mark.slow
def test_a_service_with_keys(files: Path, tmp_path: Path) -> None:
    key, token = new_key("contract", ("encode", "decode"))
    asyncio.run(FileKeys(tmp_path / "keys.json").add(key))
    with running_server(threads="1", keys=str(tmp_path / "keys.json"), link_secrets=LINK_SECRET) as (client, _):
        header = f"Bearer {token}"
        encode(client, files, {"Authorization": header})
        assert play(str(client.base_url).rstrip("/"), files, 15, headers=(f"Authorization: {header}",)) >= 300
