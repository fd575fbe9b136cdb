"""The command `cdc`: what it writes where. In this process, but for what only a real one shows."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from safetensors.torch import load_file

from model.architecture import ARCHITECTURES
from model.weights.registry import SHIPPED
from service.version import __version__
from tests.cli.command import Done, cdc, refused

Pixels = npt.NDArray[np.uint8]
WEIGHTS = SHIPPED / "cdc-lite.safetensors"


def test_encode_inspect_and_decode(image: Path, tmp_path: Path) -> None:
    made = cdc("encode", image, tmp_path / "x.cdc", "--quality", "80", "--json").report
    size = (tmp_path / "x.cdc").stat().st_size
    assert (made["width"], made["height"], made["bytes"], made["quality"]) == (64, 56, size, 80)
    assert made["bpp"] == pytest.approx(8 * size / (64 * 56), abs=1e-4)
    told = cdc("inspect", tmp_path / "x.cdc", "--json").report
    assert {k: told[k] for k in ("width", "height", "bytes", "bpp", "quality")} == {
        k: made[k] for k in ("width", "height", "bytes", "bpp", "quality")
    }
    assert list(told["sections"]) == ["hyper", "latent"]
    done = cdc("decode", tmp_path / "x.cdc", tmp_path / "out.png", "--steps", "2", "--gamma", "0.5", "--json")
    assert done.err == ""
    assert (done.report["steps"], done.report["gamma"]) == (2, 0.5)
    assert np.asarray(Image.open(tmp_path / "out.png")).shape == (56, 64, 3)


def test_text_output_names_the_same_values(file: Path) -> None:
    text = dict(line.split(maxsplit=1) for line in cdc("inspect", file).out.decode().splitlines())
    report = cdc("inspect", file, "--json").report
    assert text.keys() == report.keys()
    assert (text["width"], text["bytes"]) == ("64", str(report["bytes"]))


def test_standard_input_and_output(image: Path, file: Path, tmp_path: Path) -> None:
    encoded = cdc("encode", "-", "-", "--json", stdin=image.read_bytes())
    assert (encoded.code, encoded.out) == (0, file.read_bytes())
    assert json.loads(encoded.err)["bytes"] == len(encoded.out)
    decoded = cdc("decode", "-", "-", "--steps", "1", stdin=encoded.out)
    assert Image.open(io.BytesIO(decoded.out)).size == (64, 56)
    assert "steps" in decoded.err
    assert cdc("inspect", "-", "--json", stdin=encoded.out).report["width"] == 64


def test_the_seed_decides(file: Path) -> None:
    noisy = ("decode", file, "-", "--steps", "1", "--gamma", "0.8")
    default = cdc(*noisy, "--json")
    own = str(json.loads(default.err)["seed"])
    assert cdc(*noisy, "--seed", own).out == default.out
    assert cdc(*noisy, "--seed", "7").out != default.out


def test_defaults_are_those_of_the_model(file: Path) -> None:
    architecture = ARCHITECTURES["cdc-lite"]
    told = json.loads(cdc("decode", file, "-", "--json").err)
    assert (told["steps"], told["gamma"]) == (architecture.default_steps, architecture.default_gamma) == (1, 0.0)


@pytest.mark.parametrize(
    ("name", "options", "kind"),
    [
        ("a.jpg", (), "JPEG"),
        ("a.JPEG", (), "JPEG"),
        ("a.webp", (), "WEBP"),
        ("a.jpg", ("--format", "webp"), "WEBP"),
        ("a", ("--format", "png"), "PNG"),
    ],
)
def test_format_by_ending(file: Path, tmp_path: Path, name: str, options: tuple[str, ...], kind: str) -> None:
    assert cdc("decode", file, tmp_path / name, "--steps", "1", *options).code == 0
    with Image.open(tmp_path / name) as out:
        assert (out.format, out.size) == (kind, (64, 56))


def test_a_region_and_a_size(file: Path, tmp_path: Path) -> None:
    cdc("decode", file, tmp_path / "whole.png")
    part = cdc("decode", file, tmp_path / "part.png", "--region", "5,6,32,24", "--json").report
    assert (part["width"], part["height"]) == (32, 24)
    whole, cut = (np.asarray(Image.open(tmp_path / name)) for name in ("whole.png", "part.png"))
    np.testing.assert_array_equal(cut, whole[6:30, 5:37])
    cdc("decode", file, tmp_path / "small.webp", "--width", "16", "--height", "16", "--fit", "cover")
    with Image.open(tmp_path / "small.webp") as small:
        assert small.size == (16, 16)
    refused = cdc("decode", file, tmp_path / "none.png", "--region", "9000,0,5,5")
    assert refused.code == 1
    assert "no pixels" in refused.err


def test_transparency_and_metadata(crop: Pixels, tmp_path: Path) -> None:
    alpha = np.random.default_rng(0).integers(0, 256, (40, 64), np.uint8)
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    Image.fromarray(np.dstack([crop[:40, :64], alpha])).save(tmp_path / "in.png", exif=exif)
    assert cdc("encode", tmp_path / "in.png", tmp_path / "x.cdc", "--metadata", "keep").code == 0
    assert list(cdc("inspect", tmp_path / "x.cdc", "--json").report["sections"]) == ["hyper", "latent", "alpha", "exif"]
    assert cdc("decode", tmp_path / "x.cdc", tmp_path / "out.png", "--steps", "1").code == 0
    with Image.open(tmp_path / "out.png") as out:
        np.testing.assert_array_equal(np.asarray(out)[..., 3], alpha)
        assert out.getexif()[0x010F] == "Maker"
    assert cdc("encode", tmp_path / "in.png", tmp_path / "x.cdc", "--alpha", "drop", "--force").code == 0
    assert list(cdc("inspect", tmp_path / "x.cdc", "--json").report["sections"]) == ["hyper", "latent"]


def test_targets(image: Path, tmp_path: Path) -> None:
    largest = cdc("encode", image, tmp_path / "x.cdc", "--quality", "100", "--json").report["bytes"]
    made = cdc("encode", image, tmp_path / "x.cdc", "--force", "--max-bytes", str(largest // 2), "--json").report
    assert largest // 3 < made["bytes"] <= largest // 2
    assert made["bytes"] == (tmp_path / "x.cdc").stat().st_size
    aimed = cdc("encode", image, tmp_path / "x.cdc", "--force", "--target-bpp", "1", "--json").report
    assert aimed["bpp"] == pytest.approx(1, rel=0.1)
    assert refused(cdc("encode", image, tmp_path / "y.cdc", "--max-bytes", "20"))
    assert refused(cdc("encode", image, tmp_path / "y.cdc", "--max-bytes", "900", "--quality", "20"))
    assert not (tmp_path / "y.cdc").exists()


def test_an_animation_needs_a_flag(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "in.gif", save_all=True, append_images=frames[1:])
    assert "frames" in refused(cdc("encode", tmp_path / "in.gif", tmp_path / "x.cdc"))
    assert cdc("encode", tmp_path / "in.gif", tmp_path / "x.cdc", "--first-frame").code == 0


def test_demo(image: Path, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    told = cdc("demo", image, "--steps", "1", "--gamma", "0", "--quality", "90", "--folder", folder, "--json").report
    assert {p.name for p in folder.iterdir()} >= {"decoded.png", "demo.cdc", "original.png"}
    assert (told["picture"], told["bytes"]) == ("64x56", (folder / "demo.cdc").stat().st_size)
    assert told["psnr_db"] > 25
    np.testing.assert_array_equal(Image.open(folder / "original.png"), Image.open(image))
    assert np.asarray(Image.open(told["decoded"])).shape == (56, 64, 3)


@pytest.mark.parametrize("how", ["version", "--version"])
def test_version(how: str) -> None:
    assert cdc(how) == Done(0, f"{__version__}\n".encode(), "")


@pytest.mark.parametrize("words", ["", "encode", "weights", "weights verify", "train run", "keys add", "evaluate run"])
def test_help_has_a_short_name(words: str) -> None:
    short, long = (cdc(*words.split(), name) for name in ("-h", "--help"))
    assert short == long
    assert (short.code, short.err) == (0, "")
    assert b"Usage" in short.out


def test_the_shell_can_complete() -> None:
    assert b"--show-completion" in cdc("-h").out


def test_weights(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "models" / "mine.safetensors"
    out.parent.mkdir()
    shipped = cdc("weights", "verify", WEIGHTS, "--json").report
    assert (shipped["name"], shipped["codec_id"]) == ("cdc-lite", cdc("inspect", file, "--json").report["codec_id"])
    made = cdc("weights", "export", WEIGHTS, out, "--name", "mine", "--version", "3", "--json").report
    assert (made["name"], made["version"], made["codec_id"]) == ("mine", 3, shipped["codec_id"])
    assert cdc("weights", "verify", out, "--json").report == made
    assert load_file(out).keys() == load_file(WEIGHTS).keys()
    decoded = cdc("decode", file, "-", "--steps", "1", "--models-dir", out.parent, "--model", "mine", "--json")
    assert json.loads(decoded.err)["model"] == "mine"


def test_a_real_process(image: Path, file: Path) -> None:
    """The bar goes to what is taken for a terminal, standard error; the pipe carries nothing but the image."""
    argv = [sys.executable, "-m", "cdc_client"]
    env = {"FORCE_COLOR": "1", "TTY_COMPATIBLE": "1", "TERM": "xterm", "OMP_NUM_THREADS": "1"}
    decode = [*argv, "decode", "-", "-", "--steps", "3", "--gamma", "1"]
    done = subprocess.run(decode, input=file.read_bytes(), capture_output=True, env=env, check=True, timeout=120)
    assert b"decoding" in done.stderr
    assert re.search(rb"\d+%.*\d:\d\d", done.stderr)  # how far, and the time that is left
    assert done.stdout.startswith(b"\x89PNG\r\n\x1a\n")
    assert done.stdout.endswith(b"IEND\xaeB`\x82")
    failed = subprocess.run([*argv, "encode", "none", "-"], capture_output=True, text=True, check=False, timeout=120)
    assert (failed.returncode, failed.stdout) == (1, "")
    assert failed.stderr.startswith("cdc: ")
    assert len(failed.stderr.splitlines()) == 1
