"""docs/operations.md: its commands, settings, files and sections exist, and every alert is in it."""

from __future__ import annotations

import re
import shlex
from importlib.util import find_spec
from typing import Any

import pytest
import typer

from cdc_client.command.app import make_app
from service.settings import Settings
from tests.deploy.files import DEPLOY, ROOT, load, rules
from tests.deploy.test_compose import example

TEXT = (ROOT / "docs" / "operations.md").read_text()
CODE = re.findall(r"`([^`\n]+)`", TEXT) + re.findall(r"^ {4}(\S.*)$", TEXT, re.MULTILINE)


def commands(program: str) -> list[list[str]]:
    """The words of each command of that program, comments left out."""
    found = []
    for code in CODE:
        at = code.find(f"{program} ")
        if at >= 0 and (at == 0 or code[:at].endswith(("exec api ", " -- "))):
            found.append(shlex.split(code[at:].replace("[", "").replace("]", ""), comments=True))
    return found


def test_every_alert_is_explained_and_no_other() -> None:
    alerts = [rule["alert"] for rule in rules() if "alert" in rule]
    assert re.findall(r"^### (\w+)$", TEXT, re.MULTILINE) == alerts


def test_settings_exist() -> None:
    known = {f"CDC_{name.upper()}" for name in Settings.model_fields} | set(example())
    assert set(re.findall(r"\bCDC_[A-Z_]+", TEXT)) <= known
    files = [path for path in DEPLOY.rglob("*") if path.is_file()]
    for path in files:
        assert set(re.findall(r"\bCDC_[A-Z_]+\b(?!=)", path.read_text())) <= known | {"CDC_API_PORT"}, path


def test_commands_of_cdc_exist() -> None:
    root = typer.main.get_command(make_app()[0])
    found = commands("cdc")
    assert len(found) > 6
    for words in found:
        command: Any = root
        rest = words[1:]
        while hasattr(command, "commands"):
            assert rest, words
            name = rest.pop(0)
            assert name in command.commands, words
            command = command.commands[name]
        options = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in rest if word.startswith("--")} <= options, words


def test_modules_and_files_exist() -> None:
    for words in commands("python"):
        assert words[:2] == ["python", "-m"]
        assert find_spec(words[2]) is not None
    paths = [word for code in CODE for word in code.split() if re.match(r"(docker|deploy|tests)/", word)]
    assert len(paths) > 15
    for path in paths:
        assert (ROOT / path).exists() or path == "deploy/.env", path


def test_services_of_compose_exist() -> None:
    services = set(load(DEPLOY / "compose.yaml")["services"])
    found = [words for words in commands("docker") if words[1] == "compose"]
    assert len(found) > 6
    for words in found:
        assert words[2:4] == ["-f", "deploy/compose.yaml"]
        named = {w.split("=")[0].split(":")[0] for w in words[4:]} & {"api", "redis", "worker", "worker-gpu"}
        assert named <= services
        if "exec" in words:
            assert words[words.index("exec") + 1] in services


def test_targets_of_make_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for words in commands("make"):
        assert re.search(rf"^{words[1]}:", makefile, re.MULTILINE), words


def test_sections_of_the_benchmarks_that_are_cited_exist() -> None:
    benchmarks = (ROOT / "docs" / "benchmarks.md").read_text()
    cited = re.findall(r'\("([^":]+)"', TEXT)
    assert len(cited) >= 5
    for title in (" ".join(words.split()) for words in cited):
        assert f"\n## {title}\n" in benchmarks, title


@pytest.mark.parametrize(("path", "sentence"), [("README.md", "docs/operations.md"), ("Makefile", "docker build")])
def test_it_is_found_from_elsewhere(path: str, sentence: str) -> None:
    assert sentence in (ROOT / path).read_text()
