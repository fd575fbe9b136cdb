"""The command `cdc train`."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Annotated, Any

import typer

from model.training.config import resolve


def train(
    out: Annotated[Path, typer.Argument(help="Folder of the run: checkpoint, weights, record, samples.")],
    preset: Annotated[str, typer.Option(help="lite, paper-x or paper-eps.")] = "lite",
    data: Annotated[
        list[Path] | None, typer.Option(help="Folder of images, .tar shard, or Vimeo-90k folder; may be repeated.")
    ] = None,
    validation: Annotated[Path | None, typer.Option(help="Folder or .tar to evaluate on.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Stop after so many steps in all.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Stop after so many minutes in all.")] = None,
    initial: Annotated[Path | None, typer.Option(help="Weights to start from.")] = None,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Any other value; may be repeated.")
    ] = None,
    resume: Annotated[bool, typer.Option(help="Go on with the run in OUT.")] = False,
    show: Annotated[bool, typer.Option(help="Print the resolved configuration and stop.")] = False,
) -> None:
    """Train a model; `cdc weights export OUT FILE` then makes a weights file of it. See docs/training.md."""
    options: dict[str, Any] = {
        "data": tuple(data) if data else None,
        "validation": validation,
        "steps": steps,
        "minutes": minutes,
        "initial": initial,
    }
    given = {name: value for name, value in options.items() if value is not None}
    if resume:  # what the run was started with, but for what is given now
        from model.training.snapshot import recorded

        given = {**recorded(out), **given}
    config = resolve(preset, given, assignments or ())
    if show:
        typer.echo(config.model_dump_json(indent=1))
        return
    from model.training.loop import Trainer
    from model.training.report import Report

    trainer = Trainer(config, out, resume=resume)
    stopped = False

    def ask_to_stop(number: int, frame: object) -> None:
        nonlocal stopped
        stopped = True  # the step in work ends and a checkpoint is written

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, ask_to_stop)
    with Report(out if trainer.fabric.is_global_zero else None) as report:
        trainer.run(report, lambda: stopped)
    typer.echo(f"{trainer.step} steps; checkpoint and averaged weights in {out}", err=True)
