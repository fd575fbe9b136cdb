"""The command `cdc`: what it writes where, and its exit codes. In this process, but for what only a real one shows."""

from __future__ import annotations

import functools
import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from cdc_client import __main__ as cli
from cdc_client.command import batch
from cdc_client.command.terminal import plain
from cdc_client.command.transcode import MAX_STEPS
from model.architecture import ARCHITECTURES
from model.weights.registry import SHIPPED
from service import transcode
from service.settings import Settings
from service.version import __version__

Pixels = npt.NDArray[np.uint8]
WEIGHTS = SHIPPED / "cdc-lite.safetensors"


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    code: int
    out: bytes
    err: str

    @property
    def report(self) -> dict[str, Any]:
        """Standard output, which must be one JSON object and nothing else."""
        (line,) = self.out.decode().splitlines()
        return dict(json.loads(line))


def cdc(*arguments: str | Path, stdin: bytes = b"") -> Done:
    """Run `cdc` in this process."""
    out, err = io.BytesIO(), io.BytesIO()
    streams = [io.TextIOWrapper(raw, write_through=True) for raw in (io.BytesIO(stdin), out, err)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["cdc", *map(str, arguments)])
        for name, stream in zip(("stdin", "stdout", "stderr"), streams, strict=True):
            patch.setattr(sys, name, stream)
        with pytest.raises(SystemExit) as ended:
            cli.main()
    code = ended.value.code or 0
    assert isinstance(code, int)
    return Done(code, out.getvalue(), err.getvalue().decode())


@pytest.fixture(scope="module", autouse=True)
def _quick() -> Iterator[None]:
    """Load models once; one thread, as waiting for a second costs more than it gives on images this small."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transcode, "registry_of", functools.cache(transcode.registry_of))
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def image(crop: Pixels, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PNG file of 64x56 pixels."""
    path = tmp_path_factory.mktemp("cli") / "in.png"
    Image.fromarray(crop[:56, :64]).save(path)
    return path


@pytest.fixture(scope="module")
def file(image: Path) -> Path:
    """The image as a `.cdc` file."""
    path = image.with_name("x.cdc")
    assert cdc("encode", image, path).code == 0
    return path


def refused(done: Done) -> str:
    """The one line that says why, without its prefix; nothing is on standard output."""
    assert (done.code, done.out) == (1, b"")
    (line,) = done.err.splitlines()
    assert line.startswith("cdc: ")
    return line.removeprefix("cdc: ")


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


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("encode", "{image}", "{out}", "--model", "other"), "cdc-lite"),
        (("decode", "{file}", "{out}.png", "--models-dir", "{missing}"), "does not exist"),
        (("decode", "{file}", "{out}.png", "--models-dir", "{rubbish}"), "bad.safetensors"),
        (("inspect", "{image}"), "not a .cdc file"),
        (("weights", "verify", "{text}"), "not a readable safetensors file"),
        (("weights", "export", "{text}", "{out}"), "not a readable safetensors file"),
        (("weights", "export", "{text}", "{missing}/out"), "there is no folder"),
        (("weights", "import", "{text}", "-o", "{text}"), "is the input as well"),
    ],
)
def test_refusals(image: Path, file: Path, tmp_path: Path, arguments: tuple[str, ...], reason: str) -> None:
    paths = {"image": image, "file": file, "folder": tmp_path, "missing": tmp_path / "none", "out": tmp_path / "out"}
    for name in ("text", "rubbish"):
        paths[name] = tmp_path / name
    paths["text"].write_text("neither image nor model\n")
    paths["rubbish"].mkdir()
    (paths["rubbish"] / "bad.safetensors").write_bytes(b"rubbish")
    assert reason in refused(cdc(*(a.format(**paths) for a in arguments)))
    assert not list(tmp_path.glob("out*"))


REFUSED_EARLY = [
    ("encode {missing} {out}", "{missing}: no such file or folder"),
    ("encode {folder} {out}", "{folder}: is a folder, not a file"),
    ("encode {empty} {out}", "{empty}: is empty"),
    ("encode {text} {out}", "{text}: not an image of an accepted kind"),
    ("encode {cut} {out}", "{cut}: "),
    ("encode {text}/x {out}", "{text}/x: a part of the path is not a folder"),
    ("encode {long} {out}", "{long}: the name is too long"),
    ("encode {image} {out} --quality 20 --max-bytes 900", "choose one of --quality, --target-bpp and --max-bytes"),
    ("encode {image} {folder}", "{folder}: is a folder, not a file"),
    ("encode {image} {missing}/x.cdc", "{missing}/x.cdc: there is no folder {missing}"),
    ("encode {image} {out}.jpeg", "{out}.jpeg: an encode writes a .cdc file, and .jpeg is the ending of an image"),
    ("encode {image} {file}", "{file}: is there already; --force replaces it"),
    ("encode {text} {text} --force", "{text}: is the input as well"),
    ("encode {text} {link} --force", "{link}: is the input as well"),
    ("decode {missing} {out}.png", "{missing}: no such file or folder"),
    ("decode {empty} {out}.png", "{empty}: is empty"),
    ("decode {text} {out}.png", "{text}: this is not a .cdc file"),
    ("decode {image} {out}.png", "{image}: this is not a .cdc file"),
    ("decode {header} {out}.png", "{header}: "),
    ("decode {crc} {out}.png", "{crc}: CRC-32C mismatch: the file is damaged"),
    ("decode {file} {out}", "{out}: the name must end in .png, .webp, .jpg, .jpeg"),
    ("decode {file} {out}.gif", "{out}.gif: the name must end in .png, .webp, .jpg, .jpeg"),
    ("decode {file} {image}", "{image}: is there already; --force replaces it"),
    ("decode {file} {file} --format png --force", "{file}: is the input as well"),
    ("inspect {missing}", "{missing}: no such file or folder"),
    ("inspect {empty}", "{empty}: is empty"),
    ("inspect {image}", "{image}: this is not a .cdc file"),
    ("inspect {crc}", "{crc}: CRC-32C mismatch: the file is damaged"),
]


@pytest.fixture
def paths(image: Path, file: Path, tmp_path: Path) -> dict[str, Path]:
    """Inputs of every kind, by name; `out` and `missing` are not there."""
    found = {n: tmp_path / n for n in ("out", "missing", "empty", "text", "link", "header", "crc", "cut")}
    found |= {"image": image, "file": file, "folder": tmp_path, "long": tmp_path / ("n" * 300)}
    data = file.read_bytes()
    found["empty"].touch()
    found["text"].write_text("neither image nor file of ours\n")
    found["link"].symlink_to(found["text"])
    found["header"].write_bytes(data[:20])
    found["crc"].write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    found["cut"].write_bytes(image.read_bytes()[:200])
    return found


@pytest.mark.parametrize(("line", "reason"), REFUSED_EARLY, ids=[line for line, _ in REFUSED_EARLY])
def test_refused_before_any_work(
    paths: dict[str, Path], monkeypatch: pytest.MonkeyPatch, line: str, reason: str
) -> None:
    monkeypatch.setattr(transcode, "registry_of", None)
    inputs = [path for name, path in paths.items() if name not in ("out", "missing", "folder", "long")]
    before = [path.read_bytes() for path in inputs]
    assert refused(cdc(*(word.format(**paths) for word in line.split()))).startswith(reason.format(**paths))
    assert [path.read_bytes() for path in inputs] == before
    assert not list(paths["folder"].glob("out*"))


def test_input_errors_help_and_version_come_without_torch(paths: dict[str, Path]) -> None:
    """In one fresh interpreter, each below a second of CPU time, imports included."""
    lines = [line for line, _ in REFUSED_EARLY] + ["--version", "-h", "encode --help"]
    code = (
        "import json, sys, time\n"
        "start, spent = time.process_time(), []\n"
        "from cdc_client import __main__ as cli\n"
        "for argv in json.loads(sys.argv[1]):\n"
        "    sys.argv = ['cdc', *argv]\n"
        "    try: cli.main()\n"
        "    except SystemExit: pass\n"
        "    spent.append(time.process_time() - start)\n"
        "    start = time.process_time()\n"
        "print(json.dumps([max(spent), sorted({'torch', 'constriction'} & set(sys.modules))]))"
    )
    calls = [[word.format(**paths) for word in line.split()] for line in lines]
    argv = [sys.executable, "-c", code, json.dumps(calls)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60)
    seconds, found = json.loads(done.stdout.splitlines()[-1])
    assert found == []
    assert seconds < 1


def test_force_replaces_a_file_and_a_failure_leaves_it(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.png"
    out.write_bytes(b"old")
    assert refused(cdc("decode", file, out, "--force", "--model", "other"))
    assert out.read_bytes() == b"old"
    assert cdc("decode", file, out, "--steps", "1", "--force").code == 0
    with Image.open(out) as replaced:
        assert replaced.size == (64, 56)
    assert list(tmp_path.iterdir()) == [out]


def test_a_full_disk_is_told_in_words(file: Path) -> None:
    assert refused(cdc("decode", file, "/dev/full", "--steps", "1", "--format", "png")).endswith("the disk is full")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (FileNotFoundError(2, "No such file or directory", "a"), "a: no such file or folder"),
        (PermissionError(13, "Permission denied", b"a"), "a: permission denied"),
        (OSError(28, "No space left on device"), "the disk is full"),
        (OSError(5, "Input/output error", "a"), "a: input/output error"),
        (OSError("odd"), "odd"),
    ],
)
def test_errors_of_the_system_in_plain_words(error: OSError, words: str) -> None:
    assert plain(error) == words


def test_a_package_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    def without_torch(*_: object) -> None:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr(transcode, "registry_of", without_torch)
    assert refused(cdc("decode", file, "-")) == (
        "cdc decode on this machine needs the package torch, which is not installed: pip install 'cdc-codec[model]'"
    )


def test_steps_have_the_limit_of_the_service() -> None:
    assert Settings.model_fields["max_steps"].default == MAX_STEPS
    done = cdc("decode", "-", "-", "--steps", "251")
    assert (done.code, "250" in done.err) == (2, True)


def test_damaged_files_and_unknown_codecs(file: Path, tmp_path: Path) -> None:
    data = file.read_bytes()
    other = data[:9] + bytes(8) + data[17:-4]
    other += google_crc32c.value(other).to_bytes(4, "little")
    assert "codec id 0000000000000000" in refused(cdc("decode", "-", tmp_path / "out.png", stdin=other))
    assert cdc("inspect", "-", "--json", stdin=other).report["codec_id"] == "0" * 16
    for command in (("inspect", "-"), ("decode", "-", "-")):
        assert "damaged" in refused(cdc(*command, stdin=data[:-1] + bytes([data[-1] ^ 1])))
        assert "longer than the rest" in refused(cdc(*command, stdin=data[:30]))


@pytest.mark.parametrize(
    "arguments",
    [
        ("encode", "-"),
        ("encode", "-", "-", "--quality", "0"),
        ("encode", "-", "-", "--alpha", "some"),
        ("decode", "-", "-", "--steps", "0"),
        ("decode", "-", "-", "--gamma", "3"),
        ("decode", "-", "-", "--format", "bmp"),
        ("weights", "verify", "no such file"),
        ("serve", "--port", "70000"),
        ("nonsense",),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...]) -> None:
    done = cdc(*arguments)
    assert (done.code, done.out) == (2, b"")
    assert "Usage" in done.err


def test_a_wrong_setting_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CDC_MAX_PIXELS", "many")
    assert refused(cdc("serve")).startswith("CDC_MAX_PIXELS: ")


def test_an_interrupt_has_its_own_code(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(source: str) -> bytes:
        raise KeyboardInterrupt

    monkeypatch.setattr(batch, "read_bytes", interrupted)
    assert cdc("encode", "-", "-").code == 130


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
