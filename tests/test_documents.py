"""Every command in the documents: those that need nothing but the service are run, the others are parsed."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import typer

from benchmarks.server import running_server
from cdc_client.command.app import make_app
from tests.service.conftest import image_file, photograph

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([ROOT / "README.md", ROOT / "SECURITY.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
COMMAND = re.compile(r"^(?:[A-Z_]+=\S+ )*(cdc|curl|make|python -m|python|pytest|docker|kubectl|redis-cli)\b")


def commands_of(path: Path) -> Iterator[str]:
    """Commands in indented and fenced blocks, continuation lines joined; and those in backticks that stand alone."""
    text = path.read_text().replace("\\\n", " ")
    fenced = False
    for line in text.splitlines():
        if line.startswith("```"):
            fenced = not fenced
        elif fenced or line.startswith("    "):
            for part in line.split("#")[0].split(";"):
                if COMMAND.match(part.strip()):
                    yield part.strip()
    for found in re.findall(r"`([^`\n]+)`", text):
        if COMMAND.match(found) and " " in found:
            yield found


LOCAL = (["cdc", "keys", "add"], ["cdc", "keys", "list"], ["cdc", "evaluate", "codecs"], ["cdc", "evaluate", "metrics"])
ALL = [(path, command) for path in DOCUMENTS for command in dict.fromkeys(commands_of(path))]


def words_of(command: str) -> list[str]:
    """The words without variables before and redirections after."""
    words = shlex.split(command.split(" > ")[0].split(" | ")[0])
    while re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    return words


def check_cdc(words: list[str], tmp_path: Path) -> None:
    """Parse a `cdc` command down to its last subcommand, without running it."""
    for word in words:  # files that must exist
        if re.fullmatch(r"[\w./-]+\.(jpg|png|cdc|safetensors|pt|tar|json)", word):
            (tmp_path / word).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / word).touch()
    command: click.Command = typer.main.get_command(make_app()[0])
    context, rest = None, words[1:]
    while isinstance(command, click.Group):
        assert rest, f"{words} lacks a subcommand"
        found = command.get_command(click.Context(command), rest[0])
        assert found is not None, f"there is no command {' '.join(words[: -len(rest) + 1] if rest[1:] else words)}"
        command, rest = found, rest[1:]
    context = command.make_context(command.name, list(rest), parent=context)
    context.close()


@pytest.mark.parametrize(("path", "command"), ALL, ids=[f"{p.name}: {c[:60]}" for p, c in ALL])
def test_commands_exist(path: Path, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = words_of(command)
    monkeypatch.chdir(tmp_path)
    if words[0] == "cdc":
        for folder in ("photos", "shards", "runs", "models"):
            (tmp_path / folder).mkdir(exist_ok=True)
        check_cdc([word for word in words if word != "..."], tmp_path)
    elif words[0] == "make":
        targets = re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert set(words[1:2]) <= set(targets)
    elif words[:2] == ["python", "-m"]:
        module = words[2].replace(".", "/")
        local = words[2].split(".")[0] in ("benchmarks", "tests", "service", "model")
        assert not local or (ROOT / f"{module}.py").exists() or (ROOT / module / "__init__.py").exists()
    elif words[0] == "python":
        assert (ROOT / words[1]).exists()
    elif words[0] == "curl":
        assert any(re.match(r"https?://|\$", word) for word in words)


def test_there_are_commands_to_check() -> None:
    assert len(ALL) > 40


ELSEWHERE = ("source=", "callback=", "/batches")


@pytest.mark.slow
def test_curl_commands_of_the_documents_and_all_examples(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for name in ("photo.jpg", "photos/one.jpg", "photos/two.png"):
        (tmp_path / name).write_bytes(image_file(photograph(96, 64), "PNG" if name.endswith("png") else "JPEG"))
    with running_server(threads="1", link_secrets="9f8a7b6c5d4e3f2a1b0c9d8e7f6a5b4c") as (client, _):
        url = str(client.base_url).rstrip("/")

        def run(argv: list[str]) -> str:
            done = subprocess.run(argv, cwd=tmp_path, capture_output=True, timeout=120, text=True, errors="replace")
            assert done.returncode == 0, (argv, done.stdout, done.stderr)
            return done.stdout

        assert "succeeded" in run(["sh", str(ROOT / "examples/roundtrip.sh"), "photo.jpg", url])
        assert "2 images" in run([sys.executable, str(ROOT / "examples/archive.py"), "photos", "archive", url])
        if shutil.which("node"):
            assert "step 6 of 6" in run(["node", str(ROOT / "examples/follow.mjs"), "photo.cdc", "out.png", url])
        for command in dict.fromkeys([*commands_of(ROOT / "README.md"), *commands_of(ROOT / "docs/api.md")]):
            words = words_of(command)
            if "--models-dir" in words:
                continue  # a published checkpoint, which is not here
            if words[:2] in (["cdc", "encode"], ["cdc", "decode"]):
                (tmp_path / words[3]).unlink(missing_ok=True)  # an earlier command's; nothing is replaced unasked
            if (words[0] == "cdc" and words[1] in ("encode", "decode", "inspect")) or words[:3] in LOCAL:
                run([sys.executable, "-m", "cdc_client", *words[1:]])
        photo = {"content": (tmp_path / "photo.jpg").read_bytes(), "headers": {"Prefer": "respond-async"}}
        encoded = client.post("/encode", **photo).json()["id"]
        while client.get(f"/jobs/{encoded}").json()["state"] != "succeeded":
            pass
        job = ""
        for path in (ROOT / "README.md", ROOT / "docs/api.md"):
            for command in dict.fromkeys(commands_of(path)):
                words = words_of(command)
                if words[0] != "curl" or "cdc_..." in command:
                    continue
                if any(word in command for word in ELSEWHERE):
                    continue  # tests/service: it needs hosts that are not here
                words = [
                    word.replace("http://127.0.0.1:8000", url)
                    .replace("/jobs/ID", job or "/jobs/ID")
                    .replace("/iiif/ID", f"/iiif/{encoded}")
                    for word in words
                ]
                if command.endswith("/result -o photo.png"):
                    while client.get(job).json()["state"] not in ("succeeded", "failed"):
                        pass
                answer = run([*words, "-sS", "--fail-with-body"])
                if found := re.search(r"^location: (/jobs/\S+)", answer, re.MULTILINE | re.IGNORECASE):
                    job = found[1]
