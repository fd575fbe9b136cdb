"""The command `cdc`.

Exit codes: 0 done, 1 refused or failed (the reason is on standard error), 2 wrong usage, 130 interrupted.
Pictures and files go through standard input and output where `-` is given; all messages go to standard error.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from model import cli as model_cli
from model.errors import CodecError
from model.evaluation.command import evaluate
from model.terminal import Refused, plain
from model.training import command as training
from service import transcode
from service.access import command as access
from service.errors import ServiceError
from service.transcode import ModelsDir, PrecisionOption
from service.version import __version__

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(transcode.encode)
app.command()(transcode.decode)
app.command()(transcode.demo)
app.command()(model_cli.inspect)
app.command()(training.train)
app.add_typer(model_cli.weights, name="weights")
app.add_typer(access.keys, name="keys")
app.add_typer(evaluate, name="evaluate")
bench = typer.Typer(help="Measure speed.", no_args_is_help=True)
app.add_typer(bench, name="bench")


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """CDC: compress images with a conditional-diffusion codec."""


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on; CDC_HOST, else 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Port; CDC_PORT, else 8000.")] = None,
    root_path: Annotated[
        str | None, typer.Option(help="Path prefix that a proxy takes away, such as /codec; CDC_ROOT_PATH, else none.")
    ] = None,
) -> None:
    """Serve the HTTP API. Everything else is set by CDC_ variables, see docs/settings.md."""
    from service.api.server import run
    from service.settings import SettingsError

    try:
        given = {"host": host, "port": port, "root_path": root_path}
        run({name: value for name, value in given.items() if value is not None})
    except SettingsError as error:
        typer.echo(f"cdc: {error}", err=True)
        raise typer.Exit(1) from None


@app.command()
def worker() -> None:
    """Take jobs from Redis (CDC_REDIS_URL) and run them here; one for each machine. Settings are CDC_ variables."""
    import asyncio

    from service.logs import configure_logging
    from service.settings import SettingsError, load_settings
    from service.worker import work

    try:
        settings = load_settings()
        configure_logging(settings.log_level)
        asyncio.run(work(settings))
    except SettingsError as error:
        typer.echo(f"cdc: {error}", err=True)
        raise typer.Exit(1) from None


@bench.command("serve")
def bench_serve(
    out: Annotated[Path | None, typer.Option(help="Where to write the figures as JSON.")] = None,
    quick: Annotated[bool, typer.Option(help="A few rounds only.")] = False,
    device: Annotated[str, typer.Option(help="cpu or cuda:N.")] = "cpu",
    precision: PrecisionOption = "auto",
    models_dir: ModelsDir = None,
) -> None:
    """Measure the engine under load, beside the same code running one request at a time."""
    import asyncio
    import json

    from service import bench as load
    from service.engine.messages import DeviceOptions

    options = DeviceOptions(models_dir=models_dir, precision=precision, device=device)
    figures = asyncio.run(load.run(options, quick=quick, say=lambda text: typer.echo(text, err=True)))
    typer.echo(load.table(figures))
    if out is not None:
        out.write_text(json.dumps(figures, indent=1))


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(__version__)


def main() -> None:
    """Run the command; known errors become one line on standard error and exit code 1."""
    try:
        app()
    except BrokenPipeError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # else Python complains at its end that it cannot flush
        _fail(plain(error))
    except OSError as error:
        _fail(plain(error))
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] in ("", "model", "service"):
            raise
        _fail(f"this command needs the package {error.name}, which is not installed")
    except (CodecError, ServiceError, Refused) as error:
        _fail(str(error))
    except KeyboardInterrupt:
        sys.exit(130)


def _fail(reason: str) -> NoReturn:
    typer.echo(f"cdc: {reason}", err=True)
    sys.exit(1)


if __name__ == "__main__":
    main()
