"""A client that a public generator makes of openapi/openapi.json compiles and round-trips a picture."""

from __future__ import annotations

import subprocess
import sys
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.server import running_server
from tests.service.conftest import image_file, photograph

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
ROUND_TRIP = """
import sys
from pathlib import Path
from io import BytesIO
from cdc_client import Client
from cdc_client.api.codec import decode, encode, inspect, models
from cdc_client.api.jobs import job
from cdc_client.types import File

client = Client(base_url=sys.argv[1], raise_on_unexpected_status=True)
small = encode.sync_detailed(client=client, body=File(BytesIO(Path("photo.png").read_bytes())), quality=70)
assert small.status_code == 200, small
file = small.content
assert models.sync(client=client).models[0].name == "cdc-lite"
assert inspect.sync(client=client, body=File(BytesIO(file))).width == 96
picture = decode.sync_detailed(client=client, body=File(BytesIO(file)), steps=2, gamma=0.0)
assert picture.status_code == 200, picture
Path("decoded.png").write_bytes(picture.content)
accepted = decode.sync(client=client, body=File(BytesIO(file)), steps=1, prefer="respond-async")
assert job.sync(accepted.id, client=client).id == accepted.id
problem = decode.sync(client=client, body=File(BytesIO(file[:-1])))
assert problem.type_ == "/problems/truncated-file", problem
"""


@pytest.mark.slow
def test_a_generated_client_round_trips(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv/bin/python"
    lock = ROOT / "requirements/generator.lock"
    install = [
        python,
        "-m",
        "pip",
        "install",
        "-q",
        "--disable-pip-version-check",
        "--no-deps",
        "--require-hashes",
        "-r",
        lock,
    ]
    installed = subprocess.run(install, capture_output=True, text=True)
    assert installed.returncode == 0, installed.stderr
    generate: list[Path | str] = [tmp_path / "venv/bin/openapi-python-client", "generate", "--fail-on-warning"]
    generate += ["--path", ROOT / "openapi/openapi.json", "--config", HERE / "generator.yml"]
    generate += ["--output-path", tmp_path / "client"]
    made = subprocess.run(
        generate,
        capture_output=True,
        text=True,
        env={"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"},  # its formatter is ruff
    )
    assert made.returncode == 0, made.stdout + made.stderr
    subprocess.run([python, "-W", "error", "-m", "compileall", "-q", tmp_path / "client"], check=True)
    (tmp_path / "photo.png").write_bytes(image_file(photograph(96, 64)))
    (tmp_path / "round_trip.py").write_text(ROUND_TRIP)
    with running_server(threads="1") as (http, _):
        url = str(http.base_url).rstrip("/")
        done = subprocess.run(
            [python, "round_trip.py", url],
            cwd=tmp_path,
            env={"PYTHONPATH": str(tmp_path / "client")},
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stderr
    assert Image.open(BytesIO((tmp_path / "decoded.png").read_bytes())).size == (96, 64)
