"""What is not installed, in words: which extra of cdc-codec brings a package that a command lacks."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from importlib.metadata import requires
from importlib.util import find_spec
from typing import ParamSpec, TypeVar

import typer

P = ParamSpec("P")
T = TypeVar("T")
DISTRIBUTION = "cdc-codec"
PROJECT = ("model", "service", "cdc_client")
MODELS = ("torch", "constriction", "safetensors")
_PACKAGES = {"PIL": "pillow"}  # where a module's name is not that of its package
_LINE = re.compile(r"""([\w.-]+).*extra == ['"]([\w-]+)['"]""")


class Missing(Exception):
    """A package is not installed. The text says what to install."""


def extra_of(module: str, preferred: str) -> str:
    """Return the extra that brings a module: `preferred` if it does, else the first other one, else `preferred`."""
    package = _PACKAGES.get(module, module).replace("_", "-").lower()
    brings = [extra for name, extra in filter(None, map(_brought, requires(DISTRIBUTION) or ())) if name == package]
    return preferred if preferred in brings or not brings else brings[0]


def _brought(line: str) -> tuple[str, str] | None:
    """Package and extra of a line of the metadata such as `torch>=2.13; extra == 'model'`."""
    found = _LINE.match(line)
    return (found[1].lower(), found[2]) if found else None


def missing(error: ModuleNotFoundError, command: str, preferred: str) -> Missing:
    """Return what to tell the caller of `command`; an own module that is missing is a defect, and raised."""
    module = (error.name or "").split(".")[0]
    if module in ("", *PROJECT):
        raise error
    extra = extra_of(module, preferred)
    return Missing(
        f"{command} needs the package {module}, which is not installed: pip install '{DISTRIBUTION}[{extra}]'"
    )


def need_models(command: str) -> None:
    """Raises Missing where a package that runs the models is not installed; imports none of them."""
    lacking = next((name for name in MODELS if find_spec(name) is None), None)
    if lacking is not None:
        raise missing(ModuleNotFoundError(name=lacking), command, "serve")


def needs(extra: str, command: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Decorate what runs for `command`: words instead of a ModuleNotFoundError."""

    def decorate(run: Callable[P, T]) -> Callable[P, T]:
        @functools.wraps(run)
        def told(*arguments: P.args, **options: P.kwargs) -> T:
            try:
                return run(*arguments, **options)
            except ModuleNotFoundError as error:
                raise missing(error, command, extra) from error

        return told

    return decorate


def refusing(error: Missing) -> Callable[[typer.Context], None]:
    """Return a command that says what is missing, whatever it is given."""

    def refuse(context: typer.Context) -> None:
        raise error

    return refuse
