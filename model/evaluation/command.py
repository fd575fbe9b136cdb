"""The command `cdc evaluate`."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from model.errors import InvalidParameter

if TYPE_CHECKING:
    from model.evaluation.cache import Row
    from model.evaluation.coders import Coder
    from model.evaluation.datasets import DataSet

evaluate = typer.Typer(help="Measure models and rival codecs; draw the paper's figures.", no_args_is_help=True)

DataOption = Annotated[
    list[str] | None, typer.Option("--data", help="kodak, tecnick, div2k, coco2017, a folder or .tar; may be repeated.")
]
DataDir = Annotated[Path | None, typer.Option(help="Folder of the known data sets; also CDC_DATA, CDC_SHARED/data.")]
CodecOption = Annotated[
    list[str] | None, typer.Option("--codec", help="A model or rival by name, `models`, `rivals`; may be repeated.")
]
QualityOption = Annotated[list[int] | None, typer.Option("--quality", help="Qualities of the models.", min=1, max=100)]
StepsOption = Annotated[list[int] | None, typer.Option("--steps", help="Denoising steps.", min=1)]
GammaOption = Annotated[list[float] | None, typer.Option("--gamma", help="Standard deviations of the start noise.")]
SeedOption = Annotated[list[int] | None, typer.Option("--seed", help="Seeds of the noise; the file's own if unset.")]
MetricOption = Annotated[
    list[str] | None, typer.Option("--metric", help="A metric, or `all`; psnr and ms-ssim if unset; may be repeated.")
]
LimitOption = Annotated[int | None, typer.Option(help="The first so many pictures.", min=1)]
CacheOption = Annotated[
    Path | None, typer.Option("--cache", help="CDC_EVALUATION_CACHE, else ~/.cache/cdc/evaluation.")
]
WorkersOption = Annotated[int, typer.Option(help="Processes for the rivals; 0: one thing after the other.", min=0)]
ModelsDir = Annotated[Path | None, typer.Option(envvar="CDC_MODELS_DIR", help="Folder of further weights files.")]
DeviceOption = Annotated[str, typer.Option(help="Device of the models: cpu or cuda:N.")]
OutOption = Annotated[Path, typer.Option(help="Where the results go.", file_okay=False)]
QUALITIES = (5, 15, 30, 50, 70, 90)
ROOM = 2  # cores left to the models


@evaluate.command("run")
def run(
    data: DataOption = None,
    data_dir: DataDir = None,
    codec: CodecOption = None,
    quality: QualityOption = None,
    steps: StepsOption = None,
    gamma: GammaOption = None,
    seed: SeedOption = None,
    metric: MetricOption = None,
    limit: LimitOption = None,
    out: OutOption = Path("evaluation"),
    cache: CacheOption = None,
    workers: WorkersOption = 1,
    models_dir: ModelsDir = None,
    device: DeviceOption = "cpu",
) -> None:
    """Measure codecs on data sets; writes results.jsonl, summary.csv, bd_rates.csv, manifest.json, report.html, plots.

    What was measured before is taken from the cache: an interrupted run goes on where it stopped.
    """
    from model.evaluation import session
    from model.evaluation.cache import Cache, default_folder
    from model.evaluation.datasets import open_data

    start = time.perf_counter()
    sets = [open_data(name, data_dir, limit) for name in data or ["kodak"]]
    coders = session.coders_of(
        codec or ["cdc-lite", "jpeg", "webp", "avif"],
        qualities=quality or QUALITIES,
        modes=session.modes_of(steps or [1], gamma if gamma else [0.0], seed or [None]),
        models_dir=models_dir,
        device=device,
        say=_say,
    )
    metrics = session.metrics_of(metric or [], _say)
    store = Cache(cache or default_folder())
    out.mkdir(parents=True, exist_ok=True)
    rows = measured(sets, coders, metrics, store, out, workers)
    session.write_results(rows, sets, coders, metrics, store, out)
    _say(f"{len(rows)} results in {out}; {time.perf_counter() - start:.1f} s")


@evaluate.command("codecs")
def codecs(models_dir: ModelsDir = None) -> None:
    """List models and rivals, and why some cannot be used here."""
    from model.evaluation import session

    for name, state in session.list_codecs(models_dir):
        typer.echo(f"{name:<16} {state}")


@evaluate.command("metrics")
def metrics() -> None:
    """List the paper's metrics, and why some cannot be computed here."""
    from model.evaluation.metric_table import PAPER, metric_version

    for metric in PAPER:
        state = f"unavailable: {metric.missing}" if metric.missing else metric_version(metric)
        typer.echo(f"{metric.name:<8} {metric.label:<16} {metric.better:<7} {state}")


@evaluate.command("data")
def data(
    name: Annotated[list[str], typer.Argument(help="Data sets, folders or .tar files.")], data_dir: DataDir = None
) -> None:
    """Print a manifest as JSON: SHA-256 of every file and of its prepared pixels."""
    import json

    from model.evaluation.datasets import open_data
    from model.evaluation.session import manifest

    typer.echo(json.dumps([manifest(open_data(n, data_dir)) for n in name], indent=1))


def measured(
    sets: Sequence[DataSet], coders: Sequence[Coder], metrics: Sequence[str], cache: object, out: Path, workers: int
) -> list[Row]:
    """Run the measurement with a progress bar; rows are appended to OUT/results.jsonl as they come."""
    from model.evaluation.cache import Cache
    from model.evaluation.runner import measure

    assert isinstance(cache, Cache)
    rows: list[Row] = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with (
        Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress,
        (out / "results.jsonl").open("w") as file,
    ):
        for chosen in sets:
            total = len(chosen.items) * sum(len(c.points) for c in coders)
            task = progress.add_task(chosen.label, total=total)
            found = measure(
                chosen,
                coders,
                metrics,
                cache,
                workers=min(workers, os.cpu_count() or 1),
                progressed=lambda count, task=task: progress.advance(task, count),  # type: ignore[misc]
            )
            for row in found:
                rows.append(row)
                file.write(row.to_json() + "\n")
                file.flush()
    if not rows:
        raise InvalidParameter("nothing to measure")
    return rows


def _say(text: str) -> None:
    typer.echo(text, err=True)
