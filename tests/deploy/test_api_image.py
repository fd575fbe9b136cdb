"""The build of the API's image, step by step in a folder: what a machine without a container engine can do of it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.files import ROOT, environment, instructions
from tests.polling import wait_for
from tests.programs import need

pytestmark = pytest.mark.slow
DOCKERFILE = ROOT / "docker" / "api.Dockerfile"
LIMIT_MB = 265  # 12 of them are the decoder that devices fetch
BASE_MB = 125  # python:3.11-slim-bookworm, uncompressed; docs/operations.md says where this is from


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the steps of the build stage were done, with its /opt as `opt`; apt-get's step is left out."""
    need("strip")
    if sys.version_info[:2] != (3, 11):
        pytest.skip("the image has Python 3.11, this is another one")
    root = tmp_path_factory.mktemp("image")
    source = root / "src"
    source.mkdir()
    (root / "bin").mkdir()
    (root / "bin" / "python").symlink_to(Path(sys.base_prefix) / "bin" / "python3.11")
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV"))}
    env["PATH"] = f"{root / 'bin'}:{env['PATH']}"
    for step in instructions(DOCKERFILE):
        if step.stage != 1:
            continue
        if step.word == "COPY":
            *sources, target = step.value.split()
            for name in sources:
                _copy(ROOT / name, source / target)
        elif step.word == "RUN" and "apt-get" not in step.value:
            line = step.value.replace("/opt/", f"{root}/opt/")
            done = subprocess.run(["sh", "-ec", line], cwd=source, env=env, capture_output=True, text=True, timeout=500)
            assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    return root


def _copy(source: Path, target: Path) -> None:
    """As COPY does: the contents of a folder, or a file into the folder `target`."""
    if source.is_dir():
        not_built = shutil.ignore_patterns("__pycache__", "browser")  # of this tree alone
        shutil.copytree(source, target, ignore=not_built)
    else:
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)


def run(folder: Path, *arguments: str, **settings: str) -> str:
    """Run a program of the environment as the image would: its variables, nothing of ours, no bytecode written."""
    values = environment(DOCKERFILE) | {"PATH": f"{folder}/opt/cdc/bin:/usr/bin:/bin", "HOME": str(folder)} | settings
    done = subprocess.run(
        [str(folder / "opt/cdc/bin" / arguments[0]), *arguments[1:]],
        cwd="/",
        env=values,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_service_is_there_and_torch_is_not(folder: Path) -> None:
    code = (
        "import importlib.util as u, service.api.app, service.cli\n"
        "service.api.app.create_app()\n"
        "print([n for n in ('torch', 'constriction', 'safetensors', 'pip', 'hatchling') if u.find_spec(n)])\n"
        "print(service.api.app.__file__)"
    )
    found, place = run(folder, "python", "-c", code, CDC_REDIS_URL="redis://127.0.0.1:1/0").splitlines()
    assert found == "[]"
    assert place.startswith(f"{folder}/opt/cdc/")


def test_the_command_is_there(folder: Path) -> None:
    assert "serve" in run(folder, "cdc", "--help")
    assert run(folder, "cdc", "version").strip()


def test_it_serves_and_its_health_check_says_so(folder: Path) -> None:
    """As in the image, but for the ports; there is no Redis, which is no reason to look dead."""
    with socket.socket() as one, socket.socket() as two:
        for probe in (one, two):
            probe.bind(("127.0.0.1", 0))
        ports = {"CDC_PORT": str(one.getsockname()[1]), "CDC_METRICS_PORT": str(two.getsockname()[1])}
    settings = ports | {"CDC_REDIS_URL": "redis://127.0.0.1:1/0"}
    env = environment(DOCKERFILE) | {"PATH": f"{folder}/opt/cdc/bin:/usr/bin:/bin", "HOME": str(folder)} | settings
    command = [folder / "opt/cdc/bin/cdc", "serve"]
    with subprocess.Popen(command, cwd="/", env=env, stderr=subprocess.PIPE, text=True) as server:
        try:
            check = [folder / "opt/cdc/bin/python", "-m", "service.probe", "api"]

            def answers() -> bool:
                assert server.poll() is None
                return subprocess.run(check, env=env, cwd="/", check=False, capture_output=True).returncode == 0

            wait_for(answers, 60, every=0.2)
            ready = subprocess.run([*check, "/readyz"], env=env, cwd="/", check=False, capture_output=True, text=True)
            assert (ready.returncode, ready.stderr) == (1, "unwell: /readyz answered 503\n")
        finally:
            server.terminate()
            _, log = server.communicate(timeout=60)
    assert server.returncode in (0, -15), log


def test_the_image_is_small(folder: Path) -> None:
    size = int(
        subprocess.run(["du", "-sm", folder / "opt/cdc"], capture_output=True, text=True, check=True).stdout.split()[0]
    )
    print(f"environment {size} MB, with the base about {size + BASE_MB} MB")
    assert size + BASE_MB < LIMIT_MB
