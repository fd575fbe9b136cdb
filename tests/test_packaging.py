"""What gets installed: the wheel's contents and dependencies, and the lock files."""

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
LOCKS = sorted((ROOT / "requirements").glob("*.lock"))
PINNED = re.compile(r"[a-z0-9][a-z0-9._-]*(\[[a-z0-9,._-]+\])?==[^\s;]+( ; .+)?")
PLACE = re.compile(r"://|^\s*(-i|-f|--index-url|--extra-index-url|--find-links)\b| @ ")
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


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


def faults_of_lock(text: str) -> list[str]:
    """What is wrong with a lock file: an index or address, a package without an exact version or without hashes."""
    faults = []
    entries = [e for e in text.replace("\\\n", " ").splitlines() if e.strip() and not e.lstrip().startswith("#")]
    for entry in entries:
        requirement, *hashes = re.split(r"\s+(?=--hash=)", entry.strip())
        if not PINNED.fullmatch(requirement.strip()):
            faults.append(f"not a pinned package: {requirement}")
        if not hashes or not all(HASH.fullmatch(h.strip()) for h in hashes):
            faults.append(f"no sound hashes: {requirement}")
    faults += [f"names a place: {line}" for line in text.splitlines() if PLACE.search(line)]
    return faults


@pytest.mark.parametrize("path", LOCKS, ids=lambda p: p.name)
def test_locks_name_no_host_and_pin_everything_with_hashes(path: Path) -> None:
    text = path.read_text()
    assert faults_of_lock(text) == []
    assert text.count("==") > (10 if path.name == "build.lock" else 20)


def test_locks_agree_on_versions() -> None:
    """The images' locks are parts of the serving one, which is a part of that for development."""
    assert [p.name for p in LOCKS] == ["api.lock", "build.lock", "dev.lock", "generator.lock", "serve.lock"]
    api, build, dev, _, serve = (
        {line.split(" ")[0] for line in path.read_text().splitlines() if re.match(r"[a-z0-9]", line)} for path in LOCKS
    )
    assert api | build <= serve <= dev
    assert not [name for name in api if name.startswith(("torch", "nvidia", "cuda", "constriction"))]


@pytest.mark.parametrize(
    "text",
    [
        "torch==2.0\n",
        "torch>=2.0 \\\n    --hash=sha256:" + "a" * 64 + "\n",
        "torch==2.0 \\\n    --hash=md5:" + "a" * 32 + "\n",
        "torch @ https://example.org/torch.whl \\\n    --hash=sha256:" + "a" * 64 + "\n",
        "--index-url example.org/simple\ntorch==2.0 \\\n    --hash=sha256:" + "a" * 64 + "\n",
        "torch==2.0 \\\n    --hash=sha256:" + "a" * 64 + "\n# from http://example.org\n",
    ],
)
def test_faults_of_locks_are_found(text: str) -> None:
    assert faults_of_lock("numpy==2.0 ; python_version < '3.13' \\\n    --hash=sha256:" + "b" * 64 + "\n") == []
    assert faults_of_lock(text)
