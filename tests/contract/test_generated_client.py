"""Clients that public generators make of openapi/openapi.json, none of it told to them: they return bytes."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.server import running_server
from tests.programs import need
from tests.service.conftest import image_file, photograph

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
DOCUMENT = ROOT / "openapi" / "openapi.json"
pytestmark = pytest.mark.slow


def run(argv: list[str | Path], cwd: Path, **env: str) -> str:
    """Run a program and return what it printed."""
    done = subprocess.run(argv, cwd=cwd, env=env or None, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running_server(threads="1") as (http, _):
        yield str(http.base_url).rstrip("/")


def check(folder: Path) -> None:
    """The round trip has left an image, and what the API itself makes of the file."""
    assert Image.open(BytesIO((folder / "decoded.png").read_bytes())).size == (96, 64)


def test_python(url: str, tmp_path: Path) -> None:
    """openapi-python-client: packages as locked, in an environment of its own."""
    run([sys.executable, "-m", "venv", tmp_path / "venv"], tmp_path)
    python = tmp_path / "venv/bin/python"
    lock = ROOT / "requirements/generator.lock"
    pip: list[str | Path] = [python, "-m", "pip", "install", "-q", "--no-deps", "--require-hashes", "-r", lock]
    installed = subprocess.run(pip, capture_output=True, text=True)
    assert installed.returncode == 0, installed.stderr
    generator = tmp_path / "venv/bin/openapi-python-client"
    made: list[str | Path] = [generator, "generate", "--path", DOCUMENT, "--output-path", tmp_path / "client"]
    run(made, tmp_path, PATH=f"{Path(sys.executable).parent}:/usr/bin:/bin")  # its formatter is ruff
    run([python, "-W", "error", "-m", "compileall", "-q", tmp_path / "client"], tmp_path)
    (tmp_path / "photo.png").write_bytes(image_file(photograph(96, 64)))
    run([python, HERE / "round_trip.py.txt", url], tmp_path, PYTHONPATH=str(tmp_path / "client"))
    check(tmp_path)


def test_typescript(url: str, tmp_path: Path) -> None:
    """@hey-api/openapi-ts: packages as locked, checked by the compiler under its strictest settings."""
    need("node")
    npm = need("npm")
    for path in (HERE / "typescript").iterdir():
        shutil.copy(path, tmp_path)
    installed = subprocess.run([npm, "ci", "--no-audit", "--no-fund"], cwd=tmp_path, capture_output=True, text=True)
    assert installed.returncode == 0, installed.stderr
    (tmp_path / "photo.png").write_bytes(image_file(photograph(96, 64)))
    shutil.copy(DOCUMENT, tmp_path)
    run([npm, "run", "--silent", "generate"], tmp_path)
    run([npm, "run", "--silent", "compile"], tmp_path)
    assert run(["node", "out/round_trip.js", url], tmp_path).splitlines()[-1] == "done"
    check(tmp_path)
