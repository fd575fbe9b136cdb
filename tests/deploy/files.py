"""Reading the deployment's files: Dockerfiles, YAML, PromQL."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))
_STRING = re.compile(r'"[^"]*"')
_NAME = re.compile(r"\bcdc[_:][a-zA-Z0-9_:]*")


@dataclass(frozen=True)
class Instruction:
    """One instruction of a Dockerfile: `stage` counts FROMs, `word` is in capitals, continued lines are joined."""

    stage: int
    word: str
    value: str


def instructions(path: Path) -> list[Instruction]:
    """Return the instructions of a Dockerfile, without comments. ARGs before the first FROM are in stage 0."""
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    found, stage = [], 0
    for logical in re.sub(r"\\\n", " ", "\n".join(lines)).splitlines():
        if logical.strip():
            word, value = logical.split(None, 1)
            stage += word.upper() == "FROM"
            found.append(Instruction(stage, word.upper(), " ".join(value.split())))
    return found


def values_of(path: Path, word: str, stage: int | None = None) -> list[str]:
    """Return the values of all instructions of that word, in one stage if it is given."""
    return [i.value for i in instructions(path) if i.word == word and stage in (None, i.stage)]


def environment(path: Path) -> dict[str, str]:
    """Return what the last stage of a Dockerfile puts into the environment."""
    last = max(i.stage for i in instructions(path))
    pairs = [pair.split("=", 1) for value in values_of(path, "ENV", last) for pair in value.split()]
    return dict(pairs)


def load(path: Path) -> Any:
    """Return the one document of a YAML file."""
    return yaml.safe_load(path.read_text())


def load_all(path: Path) -> list[dict[str, Any]]:
    """Return the documents of a YAML file."""
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def rules() -> list[dict[str, Any]]:
    """Return all recording and alerting rules."""
    files = sorted((DEPLOY / "prometheus" / "rules").glob("*.yml"))
    return [rule for path in files for group in load(path)["groups"] for rule in group["rules"]]


def names_in(expression: str) -> set[str]:
    """Return the metrics of this project that a PromQL expression names, recorded ones (with a colon) too."""
    return set(_NAME.findall(_STRING.sub('""', expression)))


def selectors(expression: str) -> list[tuple[str, set[str]]]:
    """Return each metric of an expression that has matchers, with the labels they name."""
    found = re.findall(r"\b(\w+)\{([^}]*)\}", expression)
    return [(name, set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", _STRING.sub('""', body)))) for name, body in found]
