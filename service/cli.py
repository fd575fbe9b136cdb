"""What this package adds to the command `cdc`: serving, keys, weights, training, evaluation, benchmarks."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from cdc_client.command.backend import Backend, Precision
from cdc_client.command.transcode import ModelsDir, PrecisionOption
from model.errors import CodecError
from service.errors import ServiceError
from service.extras import Missing, missing, need_models, needs, refusing

# Name, where it is, and the extra that brings what it needs.
COMMANDS = (
    ("serve", "service.cli:serve", "serve"),
    ("worker", "service.cli:worker", "serve"),
    ("keys", "service.access.command:keys", "serve"),
    ("demo", "service.transcode:demo", "demo"),
    ("train", "model.training.command:train", "train"),
    ("evaluate", "model.evaluation.command:evaluate", "evaluate"),
    ("weights", "model.cli:weights", "model"),
    ("bench", "service.cli:bench", "serve"),
)
bench = typer.Typer(help="Measure speed.", no_args_is_help=True)


def add_to(app: typer.Typer) -> tuple[type[Exception], ...]:
    """Add the commands; one whose packages are not installed says so when it is called. Returns known errors."""
    for name, place, extra in COMMANDS:
        module, attribute = place.split(":")
        try:
            command = getattr(import_module(module), attribute)
        except ModuleNotFoundError as error:
            lacking = missing(error, f"cdc {name}", extra)
            settings = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}
            app.command(name, help=f"Not installed: {lacking}.", context_settings=settings)(refusing(lacking))
            continue
        if isinstance(command, typer.Typer):
            for registered in command.registered_commands:
                assert registered.callback is not None
                registered.callback = needs(extra, f"cdc {name}")(registered.callback)
            app.add_typer(command, name=name)
        else:
            app.command(name)(needs(extra, f"cdc {name}")(command))
    return CodecError, ServiceError, Missing


@needs("model", "work on this machine")
def local(models_dir: Path | None, precision: Precision, *, quiet: bool) -> Backend:
    """The models of this machine, for `cdc encode`, `cdc decode` and `cdc inspect`. Raises Missing."""
    from service.transcode import Local

    return Local(models_dir, precision, quiet=quiet)


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


def worker() -> None:
    """Take jobs from Redis (CDC_REDIS_URL) and run them here; one for each machine. Settings are CDC_ variables."""
    import asyncio

    from service.logs import configure_logging
    from service.settings import SettingsError, load_settings
    from service.tracing import configure, flush
    from service.worker import work

    need_models("cdc worker")
    try:
        settings = load_settings()
        configure_logging(settings.log_level)
        configure("cdc-worker")
        asyncio.run(work(settings))
        flush()
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

    need_models("cdc bench serve")
    options = DeviceOptions(models_dir=models_dir, precision=precision, device=device)
    figures = asyncio.run(load.run(options, quick=quick, say=lambda text: typer.echo(text, err=True)))
    typer.echo(load.table(figures))
    if out is not None:
        out.write_text(json.dumps(figures, indent=1))
