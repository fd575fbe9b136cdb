"""The npm package under node: types, the decoder on the conformance files, the client against a service."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.server import running_server
from cdc_client.decoder.decoder import normal_noise
from model.container import Space
from model.shipped import decoder_folder
from service.images.spaces import space_to_srgb
from tests.conformance.make import FOLDER, VALID
from tests.programs import need
from tests.service.conftest import image_file, photograph

PACKAGE = Path(__file__).parents[2] / "client" / "js"
pytestmark = pytest.mark.slow


def run(argv: list[str | Path], **env: str) -> str:
    """Run a program in the package's folder and return what it printed."""
    environ = {**os.environ, **env}
    done = subprocess.run(argv, cwd=PACKAGE, env=environ, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-6000:]
    return done.stdout


@pytest.fixture(scope="module")
def built() -> None:
    """The tests, compiled under the compiler's strictest settings."""
    need("node")
    run([need("npm"), "ci", "--no-audit", "--no-fund", "--silent"])
    run(["node_modules/.bin/tsc", "-p", "tsconfig.test.json"])
    run(["node_modules/.bin/tsc"])


def colours() -> dict[str, object]:
    """RGBA pixels, and what they are in sRGB, for each space."""
    pixels = np.random.default_rng(9).integers(0, 256, (20, 20, 4), np.uint8)
    pixels[0, :, :3] = np.arange(20, dtype=np.uint8)[:, None]  # dark greys, where the curves are steepest
    made = []
    for space in Space:
        srgb = pixels.copy()
        srgb[..., :3] = space_to_srgb(np.ascontiguousarray(pixels[..., :3]), space)
        made.append(srgb.ravel().tolist())
    return {"pixels": pixels.ravel().tolist(), "srgb": made}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("CDC_MUTATIONS", raising=False)  # no setting of the service
        with running_server(threads="1") as (http, _):
            yield str(http.base_url).rstrip("/")


@pytest.mark.usefixtures("built")
def test_decoder(tmp_path: Path) -> None:
    """Symbols and errors of every conformance file, pixels and colours within a level, CDC_MUTATIONS mutated files."""
    for entry in VALID:
        if entry["image"]:
            with Image.open(FOLDER / entry["image"]) as image:
                pixels = np.asarray(image.convert("RGB"))
            (tmp_path / f"{entry['file'].replace('/', '_')}.rgb").write_bytes(pixels.tobytes())
    noise = normal_noise(0x1234567890ABCDEF, 2, 3).flatten().tolist()
    run(
        ["node", "--test", "dist-test/test/matrix.test.js", "dist-test/test/decoder.test.js"],
        CDC_CONFORMANCE=str(FOLDER),
        CDC_DECODER=str(decoder_folder()),
        CDC_IMAGES=str(tmp_path),
        CDC_NOISE=json.dumps(noise),
        CDC_COLOURS=json.dumps(colours()),
        CDC_MUTATIONS=os.environ.get("CDC_MUTATIONS", "1000"),
    )


@pytest.mark.usefixtures("built")
def test_client(url: str, tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(image_file(photograph(96, 64)))
    run(["node", "--test", "dist-test/test/client.test.js"], CDC_TEST_URL=url, CDC_PHOTO=str(tmp_path / "photo.png"))


@pytest.mark.usefixtures("built")
def test_package(tmp_path: Path) -> None:
    """What is published: code and types, no tests; the lock names no registry."""
    listing = json.loads(run([need("npm"), "pack", "--dry-run", "--json"]))
    paths = {file["path"] for file in listing[0]["files"]}
    assert paths >= {"dist/index.js", "dist/index.d.ts", "dist/decoder/index.js", "dist/element.js", "package.json"}
    assert not [path for path in paths if "test" in path or path.endswith(".wasm")]
    lock = (PACKAGE / "package-lock.json").read_text()
    assert "resolved" not in lock
    assert "://" not in lock.replace('"url": "https://', "")
