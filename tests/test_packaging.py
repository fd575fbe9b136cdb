"""What gets installed: both wheels, their contents and dependencies, and each of them alone in a fresh environment."""

from __future__ import annotations

import email
import re
import subprocess
import sys
import tomllib
import venv
import zipfile
from email.message import Message
from pathlib import Path

import pytest

import cdc_client
from service.version import __version__

ROOT = Path(__file__).parents[1]
CLIENT_LIMIT = 100_000  # bytes of its wheel
pytestmark = pytest.mark.slow
MISSING = [
    ("serve", "uvicorn", "serve"),
    ("worker", "", "serve"),
    ("keys list", "", "serve"),
    ("demo", "", "demo"),
    ("train out", "", "train"),
    ("evaluate run", "", "evaluate"),
    ("weights verify photo.cdc", "", "model"),
    ("bench serve", "", "serve"),
    ("encode photo.png photo.cdc", "", "model"),
    ("inspect photo.cdc", "", "model"),
]


def run(argv: list[str | Path], cwd: Path = ROOT, timeout: float = 100) -> subprocess.CompletedProcess[str]:
    """Run a command without this environment's variables."""
    env = {"PATH": "/usr/bin:/bin", "HOME": str(cwd)}
    return subprocess.run(argv, cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=timeout)


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Both wheels, built from the working tree, by name."""
    out = tmp_path_factory.mktemp("wheels")
    for folder in (ROOT / "client", ROOT):
        argv = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(folder)]
        done = run(argv)
        assert done.returncode == 0, done.stdout + done.stderr
    found = {path.name.split("-")[0]: path for path in out.iterdir()}
    assert found["cdc_codec"].name == f"cdc_codec-{__version__}-py3-none-any.whl"
    assert found["cdc_client"].name == f"cdc_client-{cdc_client.__version__}-py3-none-any.whl"
    return found


def metadata_of(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as file:
        (name,) = (n for n in file.namelist() if n.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(file.read(name))


def required(metadata: Message, extra: str | None = None) -> set[str]:
    """Names of the packages it requires, without an extra or with that one."""
    lines = metadata.get_all("Requires-Dist") or []
    chosen = [line for line in lines if (f"'{extra}'" in line.split("extra ==")[-1] if extra else "extra" not in line)]
    return {re.split(r"[^A-Za-z0-9-]", line, maxsplit=1)[0] for line in chosen}


def locked(names: set[str], path: Path, lock: str = "serve") -> Path:
    """Write the entries of those packages in a lock, hashes included, and return the path."""
    entries = re.split(r"\n(?=[a-z0-9])", (ROOT / "requirements" / f"{lock}.lock").read_text().rstrip())
    path.write_text("\n".join(e for e in entries if re.split("[=\\[]", e)[0] in names) + "\n")
    return path


# What httpx, pydantic, rich and typer bring along.
BASE = {
    *("annotated-doc", "annotated-types", "anyio", "certifi", "h11", "httpcore", "httpx", "idna", "pydantic"),
    *("pydantic-core", "sniffio", "typing-extensions", "typing-inspection"),
}
CLI = {"click", "markdown-it-py", "mdurl", "pygments", "rich", "shellingham", "typer"}


def environment(folder: Path, packages: set[str] | Path, *wheels: Path) -> Path:
    """A fresh environment with these packages, or all of a lock, and these wheels; returns its bin."""
    venv.create(folder / "venv", with_pip=True)
    bin = folder / "venv" / "bin"
    install: list[str | Path] = [bin / "python", "-m", "pip", "install", "-q", "--no-deps"]
    lock = packages if isinstance(packages, Path) else locked(packages, folder / "lock.txt")
    for more in (["--require-hashes", "-r", lock], list(wheels)):
        done = subprocess.run([*install, *more], capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, done.stderr
    checked = run([bin / "python", "-m", "pip", "check"], folder)
    assert checked.returncode == 0, checked.stdout
    return bin


def test_the_wheel_of_the_codec_holds_all_that_is_needed_and_nothing_else(wheels: dict[str, Path]) -> None:
    wheel = zipfile.ZipFile(wheels["cdc_codec"])
    names = set(wheel.namelist())
    weights = "model/weights/cdc-lite.safetensors"
    assert names >= {weights, "model/container/FORMAT.md", "model/py.typed", "service/py.typed"}
    assert wheel.read(weights) == (ROOT / weights).read_bytes()
    assert {str(p.relative_to(ROOT)) for p in (ROOT / "model/weights/decoder").iterdir()} <= names
    page = {str(p.relative_to(ROOT)) for p in (ROOT / "service" / "playground").rglob("*") if p.is_file()}
    assert {p for p in page if "__pycache__" not in p} <= names
    sources = {str(p.relative_to(ROOT)) for top in ("model", "service") for p in (ROOT / top).rglob("*.py")}
    assert {n for n in names if n.endswith(".py")} == sources
    assert {n.split("/")[0] for n in names} == {"model", "service", f"cdc_codec-{__version__}.dist-info"}
    assert not [n for n in names if "test" in n or "__pycache__" in n]


def test_the_wheel_of_the_client_is_small_and_holds_it_alone(wheels: dict[str, Path]) -> None:
    wheel = zipfile.ZipFile(wheels["cdc_client"])
    names = set(wheel.namelist())
    own = f"cdc_client-{__version__}.dist-info"
    assert {n.split("/")[0] for n in names} == {"cdc_client", own}
    assert names >= {"cdc_client/py.typed", "cdc_client/decoder/profiles/display-p3.icc", f"{own}/licenses/LICENSE"}
    folder = ROOT / "client"
    assert {n for n in names if n.endswith(".py")} == {
        str(p.relative_to(folder)) for p in (folder / "cdc_client").rglob("*.py")
    }
    assert wheel.read(f"{own}/entry_points.txt").decode().split() == [
        "[console_scripts]",
        "cdc",
        "=",
        "cdc_client.__main__:main",
    ]
    assert wheels["cdc_client"].stat().st_size < CLIENT_LIMIT


def test_what_they_require(wheels: dict[str, Path]) -> None:
    client, codec = metadata_of(wheels["cdc_client"]), metadata_of(wheels["cdc_codec"])
    assert required(client) == {"httpx", "pydantic"}
    assert required(client, "cli") == {"rich", "typer"}
    assert required(client, "decode") == {"numpy", "onnxruntime", "pillow"}
    assert required(client, "pillow") == {"pillow"}
    assert required(codec) == {"cdc-client"}
    assert required(codec, "serve") == required(codec, "service") | required(codec, "model")
    assert required(codec, "service") >= {"fastapi", "uvicorn"}
    assert required(codec, "model") >= {"torch", "constriction", "pillow"}
    for metadata in (client, codec):
        assert metadata["Version"] == __version__ == cdc_client.__version__
        assert metadata["License-Expression"] == "Apache-2.0"
    assert tomllib.loads((ROOT / "client/pyproject.toml").read_text())["project"]["version"] == __version__
    assert (ROOT / "client/LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


def test_the_client_alone(wheels: dict[str, Path], tmp_path: Path) -> None:
    bin = environment(tmp_path, BASE, wheels["cdc_client"])
    code = "import cdc_client as c; print(c.__version__, c.Client, c.AsyncClient, c.CdcError)"
    done = run([bin / "python", "-W", "error", "-c", code], tmp_path)
    assert done.stdout.startswith(__version__), done.stderr
    done = run([bin / "cdc", "encode", "a", "b"], tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1].endswith("pip install 'cdc-client[cli]'")


def test_the_client_with_its_command(wheels: dict[str, Path], tmp_path: Path) -> None:
    bin = environment(tmp_path, BASE | CLI, wheels["cdc_client"])
    assert run([bin / "cdc", "--version"], tmp_path).stdout.strip() == __version__
    done = run([bin / "cdc", "encode", "a", "b"], tmp_path)
    (line,) = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (1, "")
    assert "--url" in line
    assert "pip install 'cdc-codec[model]'" in line
    (tmp_path / "a").write_bytes(b"x")
    done = run([bin / "cdc", "encode", "a", "b", "--url", "http://127.0.0.1:9"], tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "Connect" in done.stderr


def test_the_codec_without_an_extra_says_what_to_install(wheels: dict[str, Path], tmp_path: Path) -> None:
    bin = environment(tmp_path, BASE | CLI, wheels["cdc_client"], wheels["cdc_codec"])
    shown = run([bin / "cdc", "-h"], tmp_path)
    assert shown.returncode == 0, shown.stderr
    (tmp_path / "photo.png").write_bytes(b"x")
    (tmp_path / "photo.cdc").write_bytes(b"x")
    for command, module, extra in MISSING:
        done = run([bin / "cdc", *command.split(), *(["--force"] if "encode" in command else [])], tmp_path)
        assert (done.returncode, done.stdout) == (1, ""), (command, done.stderr)
        (line,) = done.stderr.splitlines()
        assert line.startswith("cdc: "), command
        assert line.endswith(f"pip install 'cdc-codec[{extra}]'"), (command, line)
        assert f"package {module}" in line, (command, line)


def test_a_service_without_the_packages_of_the_models_says_so(wheels: dict[str, Path], tmp_path: Path) -> None:
    bin = environment(tmp_path, ROOT / "requirements" / "api.lock", wheels["cdc_client"], wheels["cdc_codec"])
    for command in ("serve", "worker", "bench serve --quick"):
        done = run([bin / "cdc", *command.split()], tmp_path)
        assert (done.returncode, done.stdout) == (1, ""), (command, done.stderr)
        (line,) = done.stderr.splitlines()
        assert "needs the package torch, which is not installed: pip install 'cdc-codec[serve]'" in line, command


def test_the_client_decodes_without_torch(wheels: dict[str, Path], tmp_path: Path) -> None:
    """`cdc-client[cli,decode]`: the command and the Pillow plugin, with the decoder's files in a folder."""
    decode = {"flatbuffers", "numpy", "onnxruntime", "packaging", "pillow", "protobuf"}
    lock = locked(BASE | CLI | decode, tmp_path / "decode.txt", "dev")
    bin = environment(tmp_path, lock, wheels["cdc_client"])
    file = ROOT / "tests/conformance/4db9ad33bfa08c8e/65x63.cdc"
    setting = f"CDC_DECODER={ROOT / 'model/weights/decoder'}"
    done = run(["env", setting, bin / "cdc", "decode", file, tmp_path / "out.png"], tmp_path)
    assert done.returncode == 0, done.stderr
    code = (
        "import sys, cdc_client.pillow; from PIL import Image, ImageChops\n"
        "a, b, c = (Image.open(p).convert('RGB') for p in sys.argv[1:])\n"
        "print([max(high for _, high in ImageChops.difference(x, b).getextrema()) <= 1 for x in (a, c)])"
    )
    images = [tmp_path / "out.png", file.with_suffix(".png"), file]
    done = run(["env", setting, bin / "python", "-W", "error", "-c", code, *images], tmp_path)
    assert done.stdout.strip() == "[True, True]", done.stderr
