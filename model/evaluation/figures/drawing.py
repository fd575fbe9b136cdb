"""From a figure of `figures` and what the command line replaces in it to a PNG."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from model.evaluation.coders.models import Coder
from model.evaluation.figures import crops
from model.evaluation.figures.catalogue import Figure
from model.evaluation.figures.curves import Curve, curves_of
from model.evaluation.figures.plane import draw_plane
from model.evaluation.figures.plots import rate_panels
from model.evaluation.figures.published import published
from model.evaluation.metrics.catalogue import metric_of
from model.evaluation.runs.cache import Cache, Row
from model.evaluation.runs.datasets import DataSet, open_data
from model.evaluation.runs.session import coders_of, metrics_of, modes_of, ordered

Measured = Callable[[Sequence[DataSet], Sequence[Coder], Sequence[str], Cache, Path | None, int], list[Row]]
Say = Callable[[str], None]
SEEDS = (0, 1, 2, 3)
CROPPED_PICTURES = 3
MIDDLE_QUALITY = 30


@dataclass(frozen=True)
class Choice:
    """A figure and what replaces its defaults; empty tuples keep them."""

    figure: Figure
    data: tuple[str, ...] = ()
    codecs: tuple[str, ...] = ()
    qualities: tuple[int, ...] = ()
    steps: tuple[int, ...] = ()
    gammas: tuple[float, ...] = ()
    metrics: tuple[str, ...] = ()
    data_dir: Path | None = None
    models_dir: Path | None = None
    device: str = "cpu"
    limit: int | None = None
    bpp: float = 0.3
    highest_bpp: float = 1.6
    workers: int = 1
    elsewhere: tuple[Curve, ...] = ()


def draw_figure(choice: Choice, cache: Cache, path: Path, measured: Measured, say: Say) -> None:
    """Measure what is not in the cache and write the PNG.

    Raises:
        InvalidParameter: a data set, codec or metric that is not here, see `open_data` and `coders_of`.
    """
    figure = choice.figure
    crops_only = figure.kind not in ("rate", "plane")
    limit = choice.limit or (CROPPED_PICTURES if crops_only else None)
    sets = [open_data(name, choice.data_dir, limit) for name in choice.data or figure.data]
    steps, gammas = choice.steps or figure.steps, choice.gammas or figure.gammas
    # One step from noise is no setting of the paper: with several steps and gammas, the plain pairs are kept.
    pairs = list(zip(steps, gammas, strict=True)) if len(steps) == len(gammas) > 1 else None
    modes = [m for n, g in pairs for m in modes_of([n], [g], [None])] if pairs else modes_of(steps, gammas, [None])
    coders = coders_of(
        choice.codecs or figure.codecs,
        qualities=choice.qualities or figure.qualities,
        modes=modes,
        models_dir=choice.models_dir,
        device=choice.device,
        say=say,
        eps_steps=0 if choice.steps else figure.eps_steps,
    )
    if figure.kind == "states":
        lines = [
            line
            for gamma in gammas
            for line in crops.states(sets[0], choice.models_dir, coders[0].name, MIDDLE_QUALITY, steps[0], gamma)
        ]
        crops.draw(lines, path, figure.title)
    elif figure.kind == "seeds":
        lines = crops.seeds(sets[0], coders[0], MIDDLE_QUALITY, steps[0], gammas[0], SEEDS)
        crops.draw(lines, path, figure.title)
    elif figure.kind == "crops":
        rows = ordered(measured(sets, coders, ["psnr"], cache, None, choice.workers), sets, coders)
        crops.draw(
            [line for d in sets for line in crops.compared(d, rows, coders, cache, choice.bpp, limit or 1)],
            path,
            figure.title,
        )
    elif figure.kind == "plane":
        metrics = list(dict.fromkeys(["psnr", *metrics_of(choice.metrics or figure.metrics, say)]))
        rows = ordered(measured(sets, coders, metrics, cache, None, choice.workers), sets, coders)
        draw_plane(rows, [metric_of(m) for m in metrics], path, f"{figure.title}: {_counts(sets)}")
    else:
        metrics = metrics_of(choice.metrics or figure.metrics, say)
        rows = ordered(measured(sets, coders, metrics, cache, None, choice.workers), sets, coders)
        whole = all(
            len(d.items) == (d.whole or len(d.items)) for d in sets
        )  # means over a part are not comparable with published ones
        rate_panels(
            [*curves_of(rows), *(c for c in choice.elsewhere if c.data in {d.name for d in sets})],
            [metric_of(m) for m in metrics],
            path,
            title=figure.title if whole else f"{figure.title} ({_counts(sets)})",
            references=[published(n) for n in figure.references] if whole else (),
            data_labels={d.name: d.label for d in sets},
            highest_bpp=choice.highest_bpp,
        )


def _counts(sets: Sequence[DataSet]) -> str:
    return ", ".join(f"{d.label}: {len(d.items)} of {d.whole or len(d.items)} images" for d in sets)
