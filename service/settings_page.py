"""Writes docs/settings.md from the settings: `python -m service.settings_page [--check]`."""

from __future__ import annotations

import argparse
import sys
import types
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from service.settings import PREFIX, Settings

PATH = Path("docs/settings.md")
HEAD = """# Settings

Every setting is an environment variable, checked at the start; one out of range, or that names no setting, stops it
with a sentence. `python -m service.settings_page` makes this page.

| variable | default | what it is |
|---|---|---|
"""
TRACES = """
Traces (extra `otel`) have OpenTelemetry's own variables, above all `OTEL_EXPORTER_OTLP_ENDPOINT`; without it, or
`OTEL_TRACES_EXPORTER` (`otlp`, `console`, `none`), there are none. See [operations.md](operations.md).
"""


def render() -> str:
    """Return the page as Markdown."""
    return HEAD + "".join(_row(name, field) for name, field in Settings.model_fields.items()) + TRACES


def _row(name: str, field: FieldInfo) -> str:
    words = [field.description or "", _choices(field.annotation), _bounds(field)]
    return f"| `{PREFIX}{name.upper()}` | {_default(field)} | {' '.join(filter(None, words))} |\n".replace("||", "| |")


def _default(field: FieldInfo) -> str:
    value = field.default
    if value is PydanticUndefined or value in (None, (), ""):
        return "unset"
    if isinstance(value, Path):  # of the home that this runs in
        return f"`{value}`".replace(str(Path.home()), "~")
    if isinstance(value, tuple):
        return f"`{','.join(map(str, value))}`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _choices(kind: Any) -> str:
    if get_origin(kind) in (Union, types.UnionType):
        return " ".join(filter(None, map(_choices, get_args(kind))))
    if get_origin(kind) is Literal:
        return "One of " + ", ".join(f"`{choice}`" for choice in get_args(kind)) + "."
    return ""


def _bounds(field: FieldInfo) -> str:
    found = [
        f"{sign} {getattr(rule, name)}"
        for rule in field.metadata
        for name, sign in (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<"))
        if hasattr(rule, name)
    ]
    return f"({', '.join(found)})" if found else ""


def main(arguments: list[str] | None = None) -> int:
    """Write the page, or with `--check` compare it; return 1 when it is out of date."""
    parser = argparse.ArgumentParser(prog="python -m service.settings_page", description="Write docs/settings.md.")
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    parser.add_argument("path", nargs="?", type=Path, default=PATH)
    options = parser.parse_args(arguments)
    if not options.check:
        options.path.write_text(render())
        return 0
    if options.path.is_file() and options.path.read_text() == render():
        return 0
    sys.stderr.write(f"{options.path} is out of date; run: python -m service.settings_page\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
