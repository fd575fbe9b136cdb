"""examples/ray_data.py: what a worker does, resuming and the manifest without Ray; the whole of it with Ray."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import httpx
import pytest
from fsspec.implementations.memory import MemoryFile

from cdc_client import Client
from model.config import rate_of_quality
from model.container import parse
from service.api.app import create_app
from service.local import LocalService
from service.settings import Settings
from tests.service.conftest import image_file, photograph
from tests.service.fake_engine import FakeEngine

EXAMPLE = Path(__file__).parents[2] / "examples" / "ray_data.py"


def loaded() -> Any:
    spec = importlib.util.spec_from_file_location("ray_data", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["ray_data"] = module
    spec.loader.exec_module(module)
    return module


example = loaded()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for k in range(5):
        (folder / ("more" if k % 2 else ".") / f"{k}.PNG").write_bytes(image_file(photograph(32 + k, 24)))
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff no image")
    (folder / "notes.txt").write_text("no image either")
    return folder


@pytest.fixture
def cdc() -> Iterator[Client]:
    service = LocalService(create_app(Settings(), FakeEngine()))
    service.start()
    with Client("http://local", transport=httpx.HTTPTransport(uds=service.socket)) as client:
        yield client
    service.stop()


def run(monkeypatch: pytest.MonkeyPatch, cdc: Client, *arguments: str, stop_after: int = 100) -> list[int]:
    """The example with batches of two in this process; the numbers of files of each batch."""
    batches: list[int] = []

    def transcoded(names: list[str], job: Any, workers: int, batch: int) -> Iterator[dict[str, Any]]:
        transcoder = example.Transcoder(job, cdc)
        for start in range(0, len(names), batch):
            if len(batches) == stop_after:
                raise KeyboardInterrupt
            columns = transcoder({"name": names[start : start + batch]})
            batches.append(len(columns["name"]))
            yield from (dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True))

    monkeypatch.setattr(example, "transcoded", transcoded)
    assert example.main([*arguments, "--batch", "2"]) == int("encode" in arguments)
    return batches


def manifest(folder: Path) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in map(json.loads, (folder / "manifest.jsonl").read_text().splitlines())}


def test_there_and_back(photos: Path, tmp_path: Path, cdc: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    archive, images = tmp_path / "archive", tmp_path / "images"
    assert run(monkeypatch, cdc, "encode", str(photos), str(archive), "quality=80") == [2, 2, 2]
    rows = manifest(archive)
    assert set(rows) == {"0.PNG", "2.PNG", "4.PNG", "broken.jpg", "more/1.PNG", "more/3.PNG"}
    assert rows["broken.jpg"]["error"].startswith("DamagedFile: ")
    for name, row in rows.items():
        assert row["source_bytes"] == (photos / name).stat().st_size
        if not row["error"]:
            file = (archive / row["file"]).read_bytes()
            assert (row["file"], row["bytes"]) == (f"{name}.cdc", len(file))
            assert parse(file).header.width == 32 + int(name.removeprefix("more/")[0])
    run(monkeypatch, cdc, "decode", str(archive), str(images), "steps=1", "format=webp")
    assert sorted(p.name for p in images.rglob("*.webp")) == [f"{k}.PNG.cdc.webp" for k in range(5)]
    assert {row["error"] for row in manifest(images).values()} == {""}


def test_it_goes_on_where_it_stopped(
    photos: Path, tmp_path: Path, cdc: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = tmp_path / "archive"
    with pytest.raises(KeyboardInterrupt):
        run(monkeypatch, cdc, "encode", str(photos), str(archive), stop_after=1)
    first = {path: path.stat().st_mtime_ns for path in archive.rglob("*.cdc")}
    assert len(first) == 2
    assert not (archive / "manifest.jsonl").exists()
    assert run(monkeypatch, cdc, "encode", str(photos), str(archive)) == [2, 2]
    assert {path: path.stat().st_mtime_ns for path in first} == first
    assert len(manifest(archive)) == 6
    assert run(monkeypatch, cdc, "encode", str(photos), str(archive)) == [1]  # what failed is tried again
    assert len(manifest(archive)) == 6


def test_a_file_that_is_gone_fails_alone(photos: Path, tmp_path: Path, cdc: Client) -> None:
    job = example.Job("encode", str(photos), str(tmp_path / "archive"), {})
    found = example.Transcoder(job, cdc)({"name": ["0.PNG", "none.png", "2.PNG"]})
    assert [bool(error) for error in found["error"]] == [False, True, False]
    assert found["error"][1].startswith("FileNotFoundError")


def test_a_store_that_is_no_folder(photos: Path, cdc: Client) -> None:
    job = example.Job("encode", str(photos), "memory://archive", {})
    found = example.Transcoder(job, cdc)({"name": ["more/1.PNG"]})
    assert parse(fsspec.filesystem("memory").cat_file(f"/archive/{found['file'][0]}")).header.width == 33
    assert example.plan(job)[1][0]["bytes"] == found["bytes"][0]


def test_a_write_that_is_cut_short_leaves_nothing(
    photos: Path, tmp_path: Path, cdc: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = example.Job("encode", str(photos), str(tmp_path / "archive"), {})
    transcoder = example.Transcoder(job, cdc)

    class Torn:
        data = property(lambda self: 1 / 0)

    with pytest.raises(ZeroDivisionError):
        transcoder._row("0.PNG", b"", Torn())
    assert example.plan(job)[1] == []


def test_options_are_texts_where_they_are_no_numbers() -> None:
    pairs = ("quality=40", "alpha=drop", "region=pct:0,0,50,50", "deterministic=true", "model=7")
    assert dict(map(example.option_of, pairs)) == {
        "quality": 40,
        "alpha": "drop",
        "region": "pct:0,0,50,50",
        "deterministic": True,
        "model": "7",
    }
    with pytest.raises(SystemExit):
        example.main(["encode", "a", "b", "quality"])


def test_a_key_that_leads_out_of_the_target_is_passed_over(tmp_path: Path) -> None:
    store = fsspec.filesystem("memory")
    for key in ("/hostile/a.png", "/hostile/../../b.png"):
        store.store[key] = MemoryFile(store, key, b"x")
    try:
        assert list(example.sizes_of("memory://hostile", example.IMAGES)) == ["a.png"]
    finally:
        for key in ("/hostile/a.png", "/hostile/../../b.png"):
            store.store.pop(key)


@pytest.mark.slow
def test_with_ray(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A local Ray, two workers, the real codec."""
    pytest.importorskip("ray", reason="needs ray: pip install --no-deps -r requirements/ray.lock")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    archive = tmp_path / "archive"

    def out() -> str:
        command = [sys.executable, str(EXAMPLE), "encode", "photos", "archive", "quality=40"]
        command += ["--workers", "2", "--batch", "2"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 1, done.stderr  # broken.jpg
        return done.stdout

    text = out()
    assert "0 files are done, 6 are left" in text
    assert "5 files, " in text
    rows = manifest(archive)
    assert [name for name, row in rows.items() if row["error"]] == ["broken.jpg"]
    for path in archive.rglob("*.cdc"):
        assert parse(path.read_bytes()).header.rate == rate_of_quality(40)
    (archive / "0.PNG.cdc").unlink()
    assert "4 files are done, 2 are left" in out()
    assert manifest(archive)["0.PNG"] == rows["0.PNG"]
