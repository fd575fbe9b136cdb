"""The Dockerfiles: who runs, what is copied, that every command line is one. Nothing is built here."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from service.settings import load_settings
from service.version import __version__
from tests.deploy.files import DOCKERFILES, ROOT, environment, instructions, values_of

WORKERS = [path for path in DOCKERFILES if path.name.startswith("worker")]


def test_there_is_one_for_each_role() -> None:
    assert [path.name for path in DOCKERFILES] == ["api.Dockerfile", "worker-cpu.Dockerfile", "worker-cuda.Dockerfile"]


@pytest.fixture(params=DOCKERFILES, ids=lambda p: p.stem)
def dockerfile(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


def test_bases_are_pinned_by_tag_and_can_be_by_digest(dockerfile: Path) -> None:
    arguments = dict(value.split("=", 1) for value in values_of(dockerfile, "ARG", 0))
    assert re.fullmatch(r"[a-z/]+:\d+\.\d+-[a-z-]+", arguments["BASE"])
    assert arguments["BASE_DIGEST"] == '""'
    froms = [value.split(" ")[0] for value in values_of(dockerfile, "FROM")]
    assert froms == ["${BASE}${BASE_DIGEST}"] * 2


def test_the_process_is_nobody_and_needs_no_writable_root(dockerfile: Path) -> None:
    (user,) = values_of(dockerfile, "USER")
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", user)
    found = environment(dockerfile)
    assert found["HOME"] == "/tmp"  # noqa: S108
    assert found["PYTHONDONTWRITEBYTECODE"] == "1"
    assert found["CDC_CACHE_DIR"].startswith(("/tmp/", "/var/cache/"))  # noqa: S108
    assert values_of(dockerfile, "RUN", 2) == []  # the last stage only copies
    order = [i.word for i in instructions(dockerfile) if i.stage == 2]
    assert order.index("USER") > order.index("COPY")


def test_the_health_check_is_the_service_s_own(dockerfile: Path) -> None:
    (check,) = values_of(dockerfile, "HEALTHCHECK")
    role = "api" if dockerfile.stem == "api" else "worker"
    assert f'CMD ["python", "-m", "service.probe", "{role}"' in check
    assert "curl" not in dockerfile.read_text()


def test_labels_and_version(dockerfile: Path) -> None:
    labels = " ".join(values_of(dockerfile, "LABEL"))
    for name in ("title", "description", "version", "revision", "licenses"):
        assert f"org.opencontainers.image.{name}=" in labels
    assert f"VERSION={__version__}" in values_of(dockerfile, "ARG")


def test_the_environment_is_valid_for_the_settings(dockerfile: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment(dockerfile).items():
        if name.startswith("CDC_"):
            monkeypatch.setenv(name, value)
    settings = load_settings()
    assert (settings.host, settings.metrics_port) == ("0.0.0.0", 9100)  # noqa: S104
    exposed = " ".join(values_of(dockerfile, "EXPOSE")).split()
    assert "9100" in exposed
    assert ("8000" in exposed) == (dockerfile.stem == "api")


def test_what_is_copied_is_in_the_context(dockerfile: Path) -> None:
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for value in values_of(dockerfile, "COPY", 1):
        for source in value.split()[:-1]:
            assert (ROOT / source).exists(), source
            assert any(Path(source).match(pattern) for pattern in allowed), source


def test_every_command_line_can_be_parsed(dockerfile: Path) -> None:
    lines = values_of(dockerfile, "RUN")
    assert lines
    for line in lines:
        done = subprocess.run(["sh", "-n", "-c", line], capture_output=True, text=True, check=False, timeout=10)
        assert done.returncode == 0, f"{line}\n{done.stderr}"


def test_every_package_is_checked_by_hash_or_is_our_own(dockerfile: Path) -> None:
    installs = [
        part for line in values_of(dockerfile, "RUN") for part in re.findall(r"pip\b[^&;]*\binstall [^&;]*", line)
    ]
    assert len(installs) >= 3
    for install in installs:
        assert re.search(r"--require-hashes -r |--no-index|-r /tmp/torch\.txt", install), install
        assert "--no-cache-dir" in install


def test_commands_are_those_of_the_command_line(dockerfile: Path) -> None:
    (command,) = values_of(dockerfile, "CMD")
    assert command == ('["cdc", "serve"]' if dockerfile.stem == "api" else '["cdc", "worker"]')


def test_the_lock_without_torch(tmp_path: Path) -> None:
    """The awk of the CPU worker takes out torch and what torch alone needs, whole entries, and nothing else."""
    (line,) = [v for v in values_of(ROOT / "docker" / "worker-cpu.Dockerfile", "RUN") if "awk" in v]
    found = re.search(r"awk '[^']*' requirements/serve\.lock", line)
    assert found
    text = subprocess.run(
        ["sh", "-c", found[0]], cwd=ROOT, capture_output=True, text=True, check=True, timeout=10
    ).stdout
    names, all_names = (
        {entry.split("==")[0] for entry in content.splitlines() if re.match(r"[a-z0-9]", entry)}
        for content in (text, (ROOT / "requirements" / "serve.lock").read_text())
    )
    gone = all_names - names
    assert {"torch", "triton"} <= gone
    assert all(name in ("torch", "triton") or name.startswith(("nvidia-", "cuda-")) for name in gone)
    assert {"numpy", "safetensors", "sympy", "networkx", "filelock"} <= names  # torch's other needs stay
    entries = text.replace("\\\n", " ").splitlines()
    assert all("--hash=sha256:" in entry for entry in entries if entry.strip())
    version = re.search(r"grep -o '([^']*)' requirements/serve\.lock", line)
    assert version
    lock = (ROOT / "requirements" / "serve.lock").read_text()
    assert len(re.findall(version[1], lock, re.MULTILINE)) == 1


@pytest.mark.parametrize("index", ["", "https://torch.example/cpu"])
@pytest.mark.parametrize("digest", ["", "ab" * 32])
def test_where_the_cpu_worker_takes_torch_from(index: str, digest: str, tmp_path: Path) -> None:
    """The step is run with a `python` that only notes what it was asked for."""
    (line,) = [v for v in values_of(ROOT / "docker" / "worker-cpu.Dockerfile", "RUN") if "awk" in v]
    stub = tmp_path / "python"
    stub.write_text('#!/bin/sh\necho "$@" >> log\n')
    stub.chmod(0o755)
    shutil.copytree(ROOT / "requirements", tmp_path / "requirements")
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin", "TORCH_INDEX": index, "TORCH_SHA256": digest}
    step = line.replace("/tmp/", f"{tmp_path}/")  # noqa: S108
    subprocess.run(["sh", "-ec", step], cwd=tmp_path, env=env, check=True, timeout=10)
    installs = [asked for asked in (tmp_path / "log").read_text().splitlines() if " install " in asked]
    assert installs[-1].endswith(f"--require-hashes -r {tmp_path}/rest.lock")
    rest = (tmp_path / "rest.lock").read_text()
    assert ("\ntorch==" in rest) == (index == "")
    if index:
        assert f"--index-url {index} -r {tmp_path}/torch.txt" in installs[0]
        wanted = r"torch==[0-9.]+" + (f" --hash=sha256:{digest}" if digest else "")
        assert re.fullmatch(wanted, (tmp_path / "torch.txt").read_text().strip())
    else:
        assert len(installs) == 1


def hadolint() -> str | None:
    beside = Path(sys.executable).with_name("hadolint")
    return os.environ.get("HADOLINT") or shutil.which("hadolint") or (str(beside) if beside.exists() else None)


@pytest.mark.slow
def test_hadolint_has_nothing_to_say(dockerfile: Path) -> None:
    program = hadolint()
    if program is None:
        pytest.skip("there is no hadolint here")
    done = subprocess.run([program, str(dockerfile)], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, "")
