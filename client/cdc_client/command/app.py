"""The program: its commands, those that other packages add, and what becomes of errors.

A package adds commands by an entry point of the group `cdc_client.commands`: a function that takes the typer
application and returns the classes of its errors, whose text is all that the caller is shown.

Exit codes: 0 done, 1 refused or failed (the reason is on standard error), 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from importlib.metadata import entry_points
from typing import Annotated, NoReturn

import typer

from cdc_client.command import transcode
from cdc_client.command.terminal import Refused, plain
from cdc_client.errors import CdcError
from cdc_client.version import __version__

GROUP = "cdc_client.commands"


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(__version__)
        raise typer.Exit


def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """CDC: compress images with a conditional-diffusion codec."""


def version() -> None:
    """Print the version."""
    typer.echo(__version__)


def make_app() -> tuple[typer.Typer, tuple[type[Exception], ...]]:
    """Return the program with all commands that are installed, and the errors whose text is for the caller."""
    app = typer.Typer(
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(options)
    for command in (transcode.encode, transcode.decode, transcode.inspect, version):
        app.command()(command)
    failures: tuple[type[Exception], ...] = (CdcError, Refused)
    for entry in entry_points(group=GROUP):
        failures += entry.load()(app)
    return app, failures


def main() -> None:
    """Run the command; known errors become one line on standard error and exit code 1."""
    app, failures = make_app()
    try:
        app()
    except BrokenPipeError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # else Python complains at its end that it cannot flush
        _fail(plain(error))
    except OSError as error:
        _fail(plain(error))
    except failures as error:
        _fail(str(error))
    except KeyboardInterrupt:
        sys.exit(130)


def _fail(reason: str) -> NoReturn:
    typer.echo(f"cdc: {reason}", err=True)
    sys.exit(1)
