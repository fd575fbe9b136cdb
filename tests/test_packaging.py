"""What gets installed: the wheel's contents and dependencies."""

from __future__ import annotations

import email
import re
import subprocess
import sys
import zipfile
from email.message import Message
from pathlib import Path

import pytest

from service.version import __version__

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built from the working tree."""
    out = tmp_path_factory.mktemp("wheel")
    argv = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = out.iterdir()
    assert path.name == f"cdc_codec-{__version__}-py3-none-any.whl"
    return zipfile.ZipFile(path)


@pytest.fixture(scope="module")
def metadata(wheel: zipfile.ZipFile) -> Message:
    return email.message_from_bytes(wheel.read(f"cdc_codec-{__version__}.dist-info/METADATA"))


@pytest.mark.slow
def test_the_wheel_holds_all_that_is_needed_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    weights = "model/weights/cdc-lite.safetensors"
    assert names >= {weights, "model/container/FORMAT.md", "model/py.typed", "service/py.typed"}
    assert wheel.read(weights) == (ROOT / weights).read_bytes()
    page = {str(p.relative_to(ROOT)) for p in (ROOT / "service" / "playground").iterdir() if p.is_file()}
    assert page <= names
    sources = {str(p.relative_to(ROOT)) for top in ("model", "service") for p in (ROOT / top).rglob("*.py")}
    assert {n for n in names if n.endswith(".py")} == sources
    assert {n.split("/")[0] for n in names} == {"model", "service", f"cdc_codec-{__version__}.dist-info"}
    assert not [n for n in names if "test" in n or "__pycache__" in n]


@pytest.mark.slow
def test_the_wheel_installs_the_command(wheel: zipfile.ZipFile) -> None:
    assert wheel.read(f"cdc_codec-{__version__}.dist-info/entry_points.txt").decode().split("\n")[:2] == [
        "[console_scripts]",
        "cdc = service.cli:main",
    ]


@pytest.mark.slow
def test_a_plain_install_has_neither_torch_nor_a_web_framework(metadata: Message) -> None:
    required = metadata.get_all("Requires-Dist") or []
    base = {re.split(r"[^A-Za-z0-9-]", line, maxsplit=1)[0] for line in required if "extra ==" not in line}
    assert base == {"httpx", "pydantic"}
    optional = {re.split(r"[^A-Za-z0-9-]", line, maxsplit=1)[0] for line in required if "extra ==" in line}
    assert optional >= {"torch", "fastapi", "constriction", "pillow", "uvicorn"}
    assert metadata["Version"] == __version__
    assert metadata["License-Expression"] == "Apache-2.0"
