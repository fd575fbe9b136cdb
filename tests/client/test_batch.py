"""`cdc` over many files, through a service: what is taken, skipped, made again, refused, and what is printed."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from cdc_client import __main__ as program
from cdc_client import client as client_module
from cdc_client.command.report import Row, Totals, saved, size
from tests.client.conftest import Served
from tests.service.conftest import image_file, photograph
from tests.service.fake_engine import make_file

PHOTO = image_file(photograph(), "JPEG")
Cdc = Callable[..., tuple[int, list[str], list[str]]]


@pytest.fixture
def cdc(served: Served, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cdc:
    """Run `cdc` against the served application; returns exit code and lines of output and of errors."""
    inner = httpx.Client

    def connect(**options: object) -> httpx.Client:
        return inner(**{**options, "transport": httpx.HTTPTransport(uds=served.socket)})  # type: ignore[arg-type]

    monkeypatch.setattr(client_module.httpx, "Client", connect)
    monkeypatch.setenv("CDC_URL", "http://cdc")

    def run(*arguments: object) -> tuple[int, list[str], list[str]]:
        monkeypatch.setattr(sys, "argv", ["cdc", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            program.main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out.splitlines(), err.splitlines()

    return run


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three photographs, one in a folder below; beside them what is to be left out, and one that is broken."""
    folder = tmp_path / "photos"
    (folder / "below").mkdir(parents=True)
    for name in ("a.jpg", "b.JPG", "below/c.jpg"):
        (folder / name).write_bytes(PHOTO)
    (folder / "notes.txt").write_text("no image")
    (folder / ".hidden.jpg").write_bytes(PHOTO)
    (folder / "d.png").write_bytes(b"no image either")
    return folder


def test_a_folder(cdc: Cdc, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, lines, errors = cdc("encode", photos, "-o", out)
    assert code == 1
    assert sorted(str(p.relative_to(out)) for p in out.rglob("*.cdc")) == ["a.cdc", "b.cdc", "below/c.cdc"]
    (error,) = errors
    assert error.startswith(f"cdc: {photos / 'd.png'}: not an image of an accepted kind")
    assert lines[0].split() == ["file", "image", ".cdc", "saved", "bpp"]
    assert len(lines) == 5
    assert lines[-1].startswith("3 done, 0 up to date, 1 failed: ")
    assert " saved, in " in lines[-1]


def test_what_is_newer_is_skipped_and_what_is_older_made_again(cdc: Cdc, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (photos / "d.png").unlink()
    assert cdc("encode", photos, "-o", out)[0] == 0
    assert cdc("encode", photos, "-o", out)[1][-1].startswith("0 done, 3 up to date, 0 failed")
    os.utime(out / "a.cdc", (1, 1))
    assert cdc("encode", photos, "-o", out)[1][-1].startswith("1 done, 2 up to date")
    assert (out / "a.cdc").stat().st_mtime > 1
    assert cdc("encode", photos, "-o", out, "--force")[1][-1].startswith("3 done")


def test_an_older_image_may_be_an_original(cdc: Cdc, tmp_path: Path) -> None:
    (tmp_path / "a.cdc").write_bytes(make_file(8, 8))
    (tmp_path / "a.png").write_bytes(b"the original")
    os.utime(tmp_path / "a.png", (1, 1))
    code, _, errors = cdc("decode", tmp_path, "-o", tmp_path)
    assert code == 1
    assert errors == [f"cdc: {tmp_path / 'a.png'}: is there already; --force replaces it"]
    assert (tmp_path / "a.png").read_bytes() == b"the original"
    assert cdc("decode", tmp_path, "-o", tmp_path, "--force")[0] == 0
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_two_files_for_one_name(cdc: Cdc, photos: Path, tmp_path: Path) -> None:
    (photos / "a.png").write_bytes(image_file(photograph()))
    code, _, errors = cdc("encode", photos / "a.jpg", photos / "a.png", "-o", tmp_path / "out")
    assert code == 1
    assert len(errors) == 1
    assert errors[0].endswith(f"a.cdc is for {photos / 'a.jpg'}; give them another folder each")


def test_one_file(cdc: Cdc, photos: Path, tmp_path: Path) -> None:
    assert cdc("encode", photos / "a.jpg", "-o", tmp_path / "x.cdc")[1][0].split()[0] == "width"
    assert (tmp_path / "x.cdc").is_file()
    assert cdc("encode", photos / "a.jpg", "-o", tmp_path / "new")[0] == 0
    assert (tmp_path / "new" / "a.cdc").is_file()
    assert cdc("decode", tmp_path / "x.cdc", "-o", tmp_path / "x.webp", "--steps", "2")[0] == 0
    assert (tmp_path / "x.webp").read_bytes()[8:12] == b"WEBP"


def test_json_is_an_object_a_line(cdc: Cdc, photos: Path, tmp_path: Path) -> None:
    code, lines, errors = cdc("encode", photos, photos / "none.jpg", "-o", tmp_path / "out", "--json", "-j", 2)
    rows = [json.loads(line) for line in lines]
    assert (code, errors) == (1, [])
    assert [Path(row["file"]).name for row in rows[:-1]] == ["a.jpg", "b.JPG", "d.png", "c.jpg", "none.jpg"]
    assert rows[4]["error"].endswith("none.jpg: no such file or folder")
    assert rows[0]["bytes_in"] == len(PHOTO)
    assert {k: rows[-1][k] for k in ("done", "skipped", "failed")} == {"done": 3, "skipped": 0, "failed": 2}
    assert rows[-1]["saved"] == round(1 - rows[-1]["bytes_out"] / rows[-1]["bytes_in"], 4)


def test_decode_and_inspect(cdc: Cdc, tmp_path: Path) -> None:
    for n in range(3):
        (tmp_path / f"{n}.cdc").write_bytes(make_file(8 + n, 8))
    code, lines, _ = cdc("decode", *tmp_path.glob("*.cdc"), "-o", tmp_path / "out", "--format", "jpeg", "--steps", "2")
    assert code == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["0.jpg", "1.jpg", "2.jpg"]
    (tmp_path / "3.cdc").write_bytes(make_file(8, 8)[:-1])
    code, lines, errors = cdc("inspect", tmp_path)
    assert (code, len(lines), len(errors)) == (1, 4, 1)
    assert lines[3].split()[3] == "10x8"
    one = json.loads(cdc("inspect", tmp_path / "0.cdc", "--json")[1][0])
    assert (one["width"], one["sections"].keys()) == (8, {"hyper", "latent"})


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("encode a.jpg", "IN OUT"),
        ("encode a.jpg b.jpg c.jpg", "-o FOLDER"),
        ("encode a.jpg - -o out", "single file"),
        ("inspect - -", "single file"),
    ],
)
def test_wrong_usage(cdc: Cdc, line: str, reason: str) -> None:
    code, out, errors = cdc(*line.split())
    assert (code, out) == (2, [])
    assert reason in " ".join(errors)


def test_refusals(cdc: Cdc, photos: Path, tmp_path: Path) -> None:
    def reason(*arguments: object) -> str:
        code, out, (line,) = cdc(*arguments)
        assert (code, out) == (1, [])
        return line

    assert reason("encode", photos, "-o", photos / "notes.txt").endswith("is a file, not a folder")
    (tmp_path / "empty").mkdir()
    assert "no file to take" in reason("encode", tmp_path / "empty", "-o", tmp_path / "o")
    assert "no .cdc file" in reason("inspect", tmp_path / "empty")
    assert "-o FOLDER" in reason("encode", photos / "a.jpg", photos / "b.JPG")
    assert "--models-dir" in reason("encode", photos / "a.jpg", tmp_path / "x.cdc", "--models-dir", tmp_path)
    assert "http" in reason("encode", photos / "a.jpg", tmp_path / "x.cdc", "--url", "localhost:8000")


def test_sizes_and_sums() -> None:
    assert [size(n) for n in (0, 999, 1000, 999_949, 999_950, 12_345_678)] == [
        *("0 B", "999 B", "1.0 kB", "999.9 kB", "1.0 MB", "12.3 MB"),
    ]
    assert saved(200, 50) == 0.75
    assert saved(0, 5) == 0
    totals = Totals()
    for row in (Row("a", "b", 10, 5), Row("a", "b", skipped=True), Row("a", failure="no")):
        totals.add(row)
    assert vars(totals) == {"done": 1, "skipped": 1, "failed": 1, "bytes_in": 10, "bytes_out": 5}
