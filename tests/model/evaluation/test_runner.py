"""Data sets, coders, the cache, and the command as a whole."""

from __future__ import annotations

import csv
import json
import pickle
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from model.errors import InvalidParameter
from model.evaluation.coders.baselines import AVIF, JPEG, JPEG2000, JPEG_XL, WEBP, PillowCoder, all_baselines
from model.evaluation.coders.vtm import rgb, ycbcr
from model.evaluation.command import evaluate
from model.evaluation.figures.crops import busiest_window
from model.evaluation.figures.curves import curves_of
from model.evaluation.runs import runner
from model.evaluation.runs.cache import Cache, Row
from model.evaluation.runs.datasets import DataSet, open_data, prepare
from model.evaluation.runs.session import ordered
from model.types import Pixels
from tests.programs import need

FEW = replace(JPEG, points=({"quality": 20}, {"quality": 80}))


def rows_of(data: DataSet, cache: Cache, metrics: tuple[str, ...] = ("psnr",), coder: PillowCoder = FEW) -> list[Row]:
    return list(runner.measure(data, [coder], list(metrics), cache))


def test_preparations(photograph: Pixels, tmp_path: Path) -> None:
    for name, count in (("tecnick", 100), ("div2k", 100)):
        (tmp_path / name).mkdir()
        for i in range(count):
            (tmp_path / name / f"{i:03}.png").symlink_to(tmp_path / "picture.png")
    (tmp_path / "coco2017").mkdir()
    Image.fromarray(photograph).resize((900, 600)).save(tmp_path / "picture.png")
    Image.fromarray(photograph).resize((900, 600)).save(tmp_path / "coco2017" / "large.jpg")
    Image.fromarray(photograph).resize((640, 480)).save(tmp_path / "coco2017" / "small.jpg")
    shapes = {n: prepare(open_data(n, tmp_path).items[0]).pixels.shape for n in ("tecnick", "div2k", "coco2017")}
    assert shapes == {"tecnick": (512, 512, 3), "div2k": (768, 768, 3), "coco2017": (384, 384, 3)}
    assert [i.name for i in open_data("coco2017", tmp_path).items] == ["large.jpg"]


def test_missing_data_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CDC_SHARED", raising=False)
    monkeypatch.delenv("CDC_DATA", raising=False)
    with pytest.raises(InvalidParameter, match=r"r0k\.us.*folder 'kodak'"):
        open_data("kodak", tmp_path)
    (tmp_path / "kodak").mkdir()
    Image.new("RGB", (768, 512)).save(tmp_path / "kodak" / "kodim01.png")
    with pytest.raises(InvalidParameter, match="has 24 images, here are 1"):
        open_data("kodak", tmp_path)
    with pytest.raises(InvalidParameter, match="no data set"):
        open_data("nothing")


def test_a_tar_is_the_same_as_its_folder(folder: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "own.tar", "w") as tar:
        for path in sorted(folder.iterdir()):
            tar.add(path, path.name)
    a, b = (open_data(str(p)) for p in (folder, tmp_path / "own.tar"))
    assert [prepare(i).pixels_sha256 for i in a.items] == [prepare(i).pixels_sha256 for i in b.items]


@pytest.mark.parametrize("coder", [JPEG, WEBP, AVIF, JPEG2000], ids=lambda c: c.name)
def test_rates_and_distortion_grow_together(coder: PillowCoder, pictures: list[Pixels]) -> None:
    if coder.missing:
        pytest.skip(coder.missing)
    sizes, errors = [], []
    for parameters in (coder.points[0], coder.points[-1]):
        data = coder.encode(pictures[1], parameters).data
        decoded = coder.decode(data, parameters).pixels
        assert decoded.shape == pictures[1].shape
        sizes.append(len(data))
        errors.append(float(np.square(decoded.astype(float) - pictures[1]).mean()))
    assert sizes[0] < sizes[1]
    assert errors[0] > errors[1]


def test_jpeg_xl_by_its_programs(pictures: list[Pixels]) -> None:
    need("cjxl")
    sizes = []
    for parameters in (JPEG_XL.points[0], JPEG_XL.points[-1]):
        data = JPEG_XL.encode(pictures[1], parameters).data
        decoded = JPEG_XL.decode(data, parameters).pixels
        assert np.abs(decoded.astype(int) - pictures[1]).mean() < 20
        sizes.append(len(data))
    assert sizes[0] < sizes[1]


def test_missing_baselines_say_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    baselines = all_baselines()
    assert "bpgenc" in (baselines["bpg"].missing or "")
    assert "EncoderApp" in (baselines["vtm"].missing or "")


def test_baselines_reach_other_processes() -> None:
    for baseline in all_baselines().values():
        assert pickle.loads(pickle.dumps(baseline)) == baseline  # noqa: S301


def test_ycbcr_and_back(pictures: list[Pixels]) -> None:
    error = np.abs(rgb(ycbcr(pictures[0])).astype(int) - pictures[0])
    assert error.max() <= 2


def test_a_second_run_codes_nothing(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, cache = open_data(str(folder)), Cache(tmp_path / "cache")
    first = rows_of(data, cache)
    assert len(first) == 4
    assert all(r.bpp == pytest.approx(8 * r.bytes / 192**2) for r in first)
    monkeypatch.setattr(runner, "work", lambda *a: pytest.fail("coded again"))
    assert rows_of(data, cache) == first


def test_a_further_metric_decodes_kept_files(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, cache = open_data(str(folder)), Cache(tmp_path / "cache")
    first = rows_of(data, cache)
    monkeypatch.setattr(PillowCoder, "encode", lambda *a: pytest.fail("coded again"))
    second = rows_of(data, cache, ("psnr", "gmsd"))
    assert [set(r.metrics) for r in second] == [{"psnr", "gmsd"}] * 4
    assert [r.coded_sha256 for r in second] == [r.coded_sha256 for r in first]


def test_kept_and_new_rows_form_one_curve(folder: Path, tmp_path: Path) -> None:
    data, cache = open_data(str(folder)), Cache(tmp_path / "cache")
    points = tuple({"quality": q, "optimize": 1, "progressive": 0} for q in (20, 80))  # not in alphabetical order
    coder = replace(FEW, points=points)
    rows_of(replace(data, items=data.items[:1]), cache, coder=replace(FEW, points=points[:1]))
    rows = rows_of(data, cache, coder=coder)
    (curve,) = curves_of(rows)
    assert [p.images for p in curve.points] == [2, 2]
    assert len(ordered(rows, [data], [coder])) == 4


def test_what_decides_a_result_is_in_its_key(folder: Path, tmp_path: Path) -> None:
    data, cache = open_data(str(folder)), Cache(tmp_path / "cache")
    rows_of(data, cache)
    before = len(list((tmp_path / "cache" / "rows").rglob("*.json")))
    rows_of(data, cache, coder=replace(FEW, options=(("optimize", True),)))
    assert len(list((tmp_path / "cache" / "rows").rglob("*.json"))) == 2 * before
    image = Image.open(folder / "0.png")
    image.putpixel((0, 0), (1, 2, 3))
    image.save(folder / "0.png")
    rows_of(open_data(str(folder)), cache)
    assert len(list((tmp_path / "cache" / "rows").rglob("*.json"))) == 2 * before + 2


def test_a_damaged_cache_is_measured_again(folder: Path, tmp_path: Path) -> None:
    data, cache = open_data(str(folder)), Cache(tmp_path / "cache")
    first = rows_of(data, cache)
    for path in (tmp_path / "cache").rglob("*"):
        if path.is_file():
            path.write_bytes(b"torn")
    again = rows_of(data, cache, ("psnr", "gmsd"))
    assert [r.metrics["psnr"] for r in again] == [r.metrics["psnr"] for r in first]


def test_busiest_window_finds_the_detail() -> None:
    pixels = np.full((400, 600, 3), 90, np.uint8)
    pixels[210:300, 310:420] = np.random.default_rng(0).integers(0, 255, (90, 110, 3))
    window = busiest_window(pixels, 128)
    assert window.of(pixels).std() > 20


@pytest.mark.slow
def test_the_command_writes_everything(folder: Path, tmp_path: Path) -> None:
    words = ["--data", str(folder), "--cache", str(tmp_path / "cache"), "--quality", "10", "--quality", "60"]
    words += ["--codec", "cdc-lite", "--codec", "jpeg", "--codec", "bpg", "--workers", "1"]
    out = tmp_path / "out"
    done = CliRunner().invoke(evaluate, ["run", *words, "--metric", "psnr", "--metric", "musiq", "--out", str(out)])
    assert done.exit_code == 0, done.output
    rows = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert len(rows) == 2 * (2 + len(JPEG.points))
    with (out / "bd_rates.csv").open() as file:
        pairs = {(r["anchor"], r["test"]): r["percent"] for r in csv.DictReader(file)}
    assert float(pairs["JPEG", "cdc-lite, 1 step, γ 0"]) < 0
    report = (out / "report.html").read_text()
    assert "MUSIQ unavailable" in report
    assert "http://" not in report.replace("http://www.w3.org", "")
    assert json.loads((out / "manifest.json").read_text())[0]["pictures"][0]["width"] == 192
    figure = tmp_path / "states.png"
    words = ["figure", "15", "--data", str(folder), "--steps", "3", "-o", str(figure), "--codec", "cdc-lite"]
    assert CliRunner().invoke(evaluate, words).exit_code == 0
    with Image.open(figure) as image:
        assert image.size[0] > 300
