"""The command `cdc evaluate`."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from model.errors import InvalidParameter

if TYPE_CHECKING:
    from model.evaluation.coders.models import Coder
    from model.evaluation.runs.cache import Cache, Row
    from model.evaluation.runs.datasets import DataSet

evaluate = typer.Typer(help="Measure models and baseline codecs; draw the paper's figures.", no_args_is_help=True)

DataOption = Annotated[
    list[str] | None, typer.Option("--data", help="kodak, tecnick, div2k, coco2017, a folder or .tar; may be repeated.")
]
DataDir = Annotated[Path | None, typer.Option(help="Folder of the known data sets; also CDC_DATA, CDC_SHARED/data.")]
CodecOption = Annotated[
    list[str] | None,
    typer.Option("--codec", help="A model or baseline, `models`, `baselines`; may be repeated."),
]
QualityOption = Annotated[list[int] | None, typer.Option("--quality", help="Qualities of the models.", min=1, max=100)]
StepsOption = Annotated[list[int] | None, typer.Option("--steps", help="Denoising steps.", min=1)]
GammaOption = Annotated[list[float] | None, typer.Option("--gamma", help="Standard deviations of the start noise.")]
SeedOption = Annotated[list[int] | None, typer.Option("--seed", help="Seeds of the noise; the file's own if unset.")]
MetricOption = Annotated[
    list[str] | None, typer.Option("--metric", help="A metric, or `all`; psnr and ms-ssim if unset; may be repeated.")
]
LimitOption = Annotated[int | None, typer.Option(help="The first so many images.", min=1)]
CacheOption = Annotated[
    Path | None, typer.Option("--cache", help="CDC_EVALUATION_CACHE, else ~/.cache/cdc/evaluation.")
]
WorkersOption = Annotated[int, typer.Option(help="Processes for the baselines; 0: one thing after the other.", min=0)]
ModelsDir = Annotated[Path | None, typer.Option(envvar="CDC_MODELS_DIR", help="Folder of further weights files.")]
DeviceOption = Annotated[str, typer.Option(help="Device of the models: cpu or cuda:N.")]
CurvesOption = Annotated[
    list[Path] | None,
    typer.Option("--curves", help="CSV or JSON of curves measured elsewhere, to stand beside ours; may be repeated."),
]
OutOption = Annotated[Path, typer.Option(help="Where the results go.", file_okay=False)]
QUALITIES = (5, 15, 30, 50, 70, 90)


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
    curves: CurvesOption = None,
    out: OutOption = Path("evaluation"),
    cache: CacheOption = None,
    workers: WorkersOption = 1,
    models_dir: ModelsDir = None,
    device: DeviceOption = "cpu",
) -> None:
    """Measure codecs on data sets; writes results.jsonl, summary.csv, bd_rates.csv, manifest.json, report.html, plots.

    What was measured before is taken from the cache: an interrupted run goes on where it stopped.
    """
    from model.evaluation.figures.elsewhere import read_curves
    from model.evaluation.runs import session
    from model.evaluation.runs.cache import Cache, default_folder
    from model.evaluation.runs.datasets import open_data

    start = time.perf_counter()
    missing: list[str] = []

    def note(text: str) -> None:
        missing.append(text)
        _say(text)

    elsewhere = [curve for path in curves or () for curve in read_curves(path)]
    sets = [open_data(name, data_dir, limit) for name in data or ["kodak"]]
    coders = session.coders_of(
        codec or ["cdc-lite", "jpeg", "webp", "avif"],
        qualities=quality or QUALITIES,
        modes=session.modes_of(steps or [1], gamma if gamma else [0.0], seed or [None]),
        models_dir=models_dir,
        device=device,
        say=note,
    )
    metrics = session.metrics_of(metric or [], note)
    store = Cache(cache or default_folder())
    out.mkdir(parents=True, exist_ok=True)
    rows = measured(sets, coders, metrics, store, out, workers)
    session.write_results(rows, sets, coders, metrics, store, out, missing, elsewhere)
    _say(f"{len(rows)} results in {out}; {time.perf_counter() - start:.1f} s")


@evaluate.command("figure")
def figure(
    name: Annotated[str, typer.Argument(help="2, 4, 5, 7, 14 .. 19, kodak, plane or crops; see docs/evaluation.md.")],
    out: Annotated[Path | None, typer.Option("-o", "--out", help="PNG to write; figure-NAME.png if unset.")] = None,
    data: DataOption = None,
    data_dir: DataDir = None,
    codec: CodecOption = None,
    quality: QualityOption = None,
    steps: StepsOption = None,
    gamma: GammaOption = None,
    metric: MetricOption = None,
    limit: LimitOption = None,
    bpp: Annotated[float, typer.Option(help="Rate of the details of figures 5 and crops.")] = 0.3,
    highest_bpp: Annotated[float, typer.Option(help="End of the rate axis.")] = 1.6,
    curves: CurvesOption = None,
    cache: CacheOption = None,
    workers: WorkersOption = 1,
    models_dir: ModelsDir = None,
    device: DeviceOption = "cpu",
) -> None:
    """Measure what a figure of the paper needs (from the cache where it is known) and draw it."""
    from model.evaluation.figures.catalogue import figure_of
    from model.evaluation.figures.drawing import Choice, draw_figure
    from model.evaluation.figures.elsewhere import read_curves
    from model.evaluation.runs.cache import Cache, default_folder

    chosen = Choice(
        figure_of(name),
        data=tuple(data or ()),
        codecs=tuple(codec or ()),
        qualities=tuple(quality or ()),
        steps=tuple(steps or ()),
        gammas=tuple(gamma or ()),
        metrics=tuple(metric or ()),
        data_dir=data_dir,
        models_dir=models_dir,
        device=device,
        limit=limit,
        bpp=bpp,
        highest_bpp=highest_bpp,
        workers=workers,
        elsewhere=tuple(curve for file in curves or () for curve in read_curves(file)),
    )
    path = out or Path(f"figure-{name}.png")
    path.parent.mkdir(parents=True, exist_ok=True)
    draw_figure(chosen, Cache(cache or default_folder()), path, measured, _say)
    _say(f"{path}: {path.stat().st_size // 1000} kB")


@evaluate.command("table")
def table(
    number: Annotated[int, typer.Argument(help="1.", min=1, max=1)],
    data: DataOption = None,
    data_dir: DataDir = None,
    codec: CodecOption = None,
    quality: QualityOption = None,
    steps: StepsOption = None,
    gamma: GammaOption = None,
    limit: LimitOption = 4,
    latex: Annotated[bool, typer.Option("--latex", help="A tabular with the rules of booktabs.")] = False,
    cache: CacheOption = None,
    models_dir: ModelsDir = None,
    device: DeviceOption = "cpu",
) -> None:
    """Print Table 1: parameters and seconds an image. Times are those of the first measurement: take a fresh cache."""
    from model.evaluation.coders.models import Mode
    from model.evaluation.figures.table import as_latex, as_markdown, lines_of
    from model.evaluation.runs import session
    from model.evaluation.runs.cache import Cache, default_folder
    from model.evaluation.runs.datasets import open_data, prepare

    sets = [open_data(name, data_dir, limit) for name in data or ["kodak"]]
    modes = [Mode(1, 0.0), Mode(17, 0.8)]
    if steps or gamma:
        modes = session.modes_of(steps or [1], gamma or [0.0], [None])
    coders = session.coders_of(
        codec or ["models"], qualities=quality or [50], modes=modes, models_dir=models_dir, device=device, say=_say
    )
    rows = measured(sets, coders, ["psnr"], Cache(cache or default_folder()), None, 0)
    write = as_latex if latex else as_markdown
    typer.echo(
        write(lines_of(session.ordered(rows, sets, coders), coders, models_dir, prepare(sets[0].items[0]).pixels))
    )


@evaluate.command("codecs")
def codecs(models_dir: ModelsDir = None) -> None:
    """List models and baselines, and why some cannot be used here."""
    from model.evaluation.runs import session

    for name, state in session.list_codecs(models_dir):
        typer.echo(f"{name:<16} {state}")


@evaluate.command("metrics")
def metrics() -> None:
    """List the paper's metrics and other conventions of some, and why some cannot be computed here."""
    from model.evaluation.metrics.catalogue import FURTHER, PAPER, metric_version

    for metric in (*PAPER, *FURTHER):
        state = f"unavailable: {metric.missing}" if metric.missing else metric_version(metric)
        typer.echo(f"{metric.name:<12} {metric.label:<22} {metric.better:<7} {state}")


@evaluate.command("data")
def data(
    name: Annotated[list[str], typer.Argument(help="Data sets, folders or .tar files.")], data_dir: DataDir = None
) -> None:
    """Print a manifest as JSON: SHA-256 of every file and of its prepared pixels."""
    import json

    from model.evaluation.runs.datasets import open_data
    from model.evaluation.runs.session import manifest

    typer.echo(json.dumps([manifest(open_data(n, data_dir)) for n in name], indent=1))


def measured(
    sets: Sequence[DataSet],
    coders: Sequence[Coder],
    metrics: Sequence[str],
    cache: Cache,
    out: Path | None,
    workers: int,
) -> list[Row]:
    """Run the measurement with a progress bar; rows are written to OUT/results.jsonl as they come.

    FID belongs to no image: it is added to the rows returned, and so to summary.csv, alone.

    Raises:
        InvalidParameter: there is nothing to measure, or an image or a codec fails.
    """
    from model.evaluation.metrics.catalogue import metric_of
    from model.evaluation.metrics.fid import with_fid
    from model.evaluation.runs.runner import measure

    single = [m for m in metrics if not metric_of(m).whole_set]
    rows: list[Row] = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with (
        Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress,
        ExitStack() as stack,
    ):
        file = None if out is None else stack.enter_context((out / "results.jsonl").open("w"))
        for chosen in sets:
            total = len(chosen.items) * sum(len(c.points) for c in coders)
            task = progress.add_task(chosen.label, total=total)
            for row in measure(chosen, coders, single, cache, workers=min(workers, os.cpu_count() or 1)):
                progress.advance(task)
                rows.append(row)
                if file is not None:
                    file.write(row.to_json() + "\n")
                    file.flush()
    if not rows:
        raise InvalidParameter("nothing to measure")
    return with_fid(rows, sets, coders, cache) if "fid" in metrics else rows


def _say(text: str) -> None:
    typer.echo(text, err=True)
