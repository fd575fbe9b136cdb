"""Writes the OpenAPI document: `python -m service.api.openapi [--check] [path]`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from service.api.app import create_app
from service.engine.port import EngineStatus, ModelInfo
from service.settings import Settings

PATH = Path("openapi/openapi.json")


class _NoEngine:
    """An engine that is never ready: the document needs the routes alone."""

    async def start(self) -> None: ...

    async def stop(self, grace: float) -> None: ...

    async def run(self, order: Any, on_progress: Any = None) -> Any:
        """Never called."""
        raise NotImplementedError

    def seconds_of(self, cost: float) -> float:
        return 0.0

    def models(self) -> tuple[ModelInfo, ...]:
        return ()

    def status(self) -> EngineStatus:
        return EngineStatus(ready=False, draining=False, waiting=0, running=0, restarts=0)


def render() -> str:
    """Return the document of an application with default settings, as indented JSON."""
    defaults = {name: field.default for name, field in Settings.model_fields.items()}
    app = create_app(Settings.model_construct(**defaults), _NoEngine())
    return json.dumps(app.openapi(), indent=2, ensure_ascii=False) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Write the document, or with `--check` compare it; return 1 when the file is out of date."""
    parser = argparse.ArgumentParser(prog="python -m service.api.openapi", description="Write the OpenAPI document.")
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    parser.add_argument("path", nargs="?", type=Path, default=PATH)
    options = parser.parse_args(arguments)
    text = render()
    if not options.check:
        options.path.parent.mkdir(parents=True, exist_ok=True)
        options.path.write_text(text)
        return 0
    if options.path.is_file() and options.path.read_text() == text:
        return 0
    sys.stderr.write(f"{options.path} is out of date; run: python -m service.api.openapi\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
