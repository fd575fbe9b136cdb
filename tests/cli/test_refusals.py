"""What the command `cdc` refuses, in which words, and with which exit code."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import google_crc32c
import pytest
from PIL import Image

from cdc_client.command import batch
from cdc_client.command.terminal import plain
from cdc_client.command.transcode import MAX_STEPS
from service import transcode
from service.settings import Settings
from tests.cli.command import cdc, refused


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
