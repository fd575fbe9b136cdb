"""cdc-x and cdc-eps behind the HTTP API, several models at once, fewer in memory than are installed."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.hostile_images import save
from benchmarks.server import running_server
from model.weights.published import import_checkpoint
from model.weights.registry import Registry
from tests.model.paper_oracle import published_checkpoint

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for variant in ("x", "eps"):
        torch.save(published_checkpoint(variant, 16)[1], folder / "source.pt")  # type: ignore[arg-type]
        import_checkpoint(folder / "source.pt", folder / f"{variant}.safetensors")
    return folder


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[httpx.Client]:
    settings = {"models_dir": str(folder), "models_memory_bytes": "1", "precision": "float32"}
    with running_server(**settings) as (client, _):
        yield client


def test_models_are_listed_with_their_limits(client: httpx.Client) -> None:
    models = {m["name"]: m for m in client.get("/models").json()["models"]}
    assert set(models) == {"cdc-lite", "cdc-x", "cdc-eps"}
    assert (models["cdc-x"]["default_steps"], models["cdc-eps"]["default_steps"]) == (17, 200)
    assert models["cdc-eps"]["max_steps"] == 20000
    assert [models[n]["fixed_rate"] for n in ("cdc-lite", "cdc-x")] == [False, True]


def test_all_models_serve_at_once(client: httpx.Client, folder: Path, crop: np.ndarray) -> None:
    image = save(Image.fromarray(crop))
    registry = Registry(folder, "float32")

    def round_trip(name: str) -> tuple[bytes, np.ndarray]:
        file = client.post("/encode", content=image, params={"model": name}).raise_for_status()
        assert file.headers["X-Cdc-Model"] == name
        assert ("X-Cdc-Quality" in file.headers) == (name == "cdc-lite")
        answer = client.post("/decode", content=file.content, params={"steps": "3"}).raise_for_status()
        assert answer.headers["X-Cdc-Model"] == name
        return file.content, np.asarray(Image.open(BytesIO(answer.content)))

    with ThreadPoolExecutor(6) as threads:
        names = ["cdc-x", "cdc-eps", "cdc-lite"] * 3
        results = list(threads.map(round_trip, names))
    for name, (file, pixels) in zip(names, results, strict=True):
        expected = registry.get(name).decode(file, 3)
        assert np.abs(pixels.astype(int) - expected).max() <= 1


def test_refusals_are_typed(client: httpx.Client, crop: np.ndarray) -> None:
    image = save(Image.fromarray(crop))

    def problem(answer: httpx.Response) -> tuple[int, str]:
        return answer.status_code, answer.json()["type"]

    def encode(body: bytes, **query: str) -> httpx.Response:
        return client.post("/encode", content=body, params={"model": "cdc-x", **query})

    assert problem(encode(image, quality="50")) == (422, "/problems/invalid-parameter")
    assert problem(encode(image, max_bytes="10")) == (422, "/problems/target-unreachable")
    wide = save(Image.fromarray(np.zeros((2049, 2048, 3), np.uint8)))
    assert problem(encode(wide)) == (422, "/problems/too-many-pixels")
    file = encode(image).content
    inspected = client.post("/inspect", content=file).json()
    assert inspected["quality"] is None
    assert inspected["models"] == ["cdc-x"]
    answer = client.post("/decode", content=file, params={"model": "cdc-eps"})
    assert problem(answer) == (422, "/problems/unknown-model")
