"""Rate against each metric, one panel a metric and data set, with published curves as thin lines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from model.evaluation.figures.curves import Curve
from model.evaluation.figures.published import Published
from model.evaluation.metrics.catalogue import Metric

COLOURS = {
    "cdc-lite": "#c0392b",
    "cdc-x": "#8e44ad",
    "cdc-eps": "#d35400",
    "jpeg": "#7f8c8d",
    "webp": "#2980b9",
    "avif": "#27ae60",
    "jpegxl": "#16a085",
    "jpeg2000": "#a0522d",
    "bpg": "#b7950b",
    "vtm": "#2c3e50",
    "mbt2018-mean": "#e67e9f",
    "cheng2020-attn": "#5dade2",
}
OTHER_COLOURS = ("#e84393", "#00b894", "#6c5ce7", "#fdcb6e", "#0984e3")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LINES = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 2)))
PUBLISHED_LINES = ("--", ":", "-.", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))
PANELS_A_ROW = 4
LEGEND_COLUMNS = 4


def rate_panels(
    curves: Sequence[Curve],
    metrics: Sequence[Metric],
    path: Path,
    *,
    title: str = "",
    references: Sequence[Published] = (),
    data_labels: dict[str, str] | None = None,
    highest_bpp: float | None = 2.0,
    dpi: int = 110,
) -> Path:
    """Draw a figure of one panel for each data set and metric and write it as PNG; returns `path`.

    Args:
        references: published curves, drawn on Kodak's panels alone; those without the metric are left out.
        data_labels: data set name -> printed name.
        highest_bpp: end of the rate axis; None shows all points.
    """
    plt = pyplot()
    sets = list(dict.fromkeys(c.data for c in curves))
    panels = [(d, m) for d in sets for m in metrics if any(c.data == d and c.values(m.name)[0] for c in curves)]
    columns = min(PANELS_A_ROW, max(len(panels), 1)) if len(panels) not in (5, 6, 9) else 3
    rows = max(1, math.ceil(len(panels) / columns))
    wide = 5.4 if columns <= 2 else 3.9
    figure, axes = plt.subplots(rows, columns, figsize=(wide * columns, 0.8 * wide * rows + 0.9), squeeze=False)
    legend: dict[str, Any] = {}
    for axis, panel in zip(axes.flat, panels, strict=False):
        data, metric = panel
        _references(axis, [r for r in references if data == "kodak"], metric, legend)
        for curve, style in _styled([c for c in curves if c.data == data]):
            rates, values = curve.values(metric.name)
            if rates:
                (line,) = axis.plot(rates, values, **style)
                legend.setdefault(curve.label, line)
        name = (data_labels or {}).get(data, data)
        arrow = "↑" if metric.better == "higher" else "↓"
        axis.set(xlabel="bits per pixel", ylabel=f"{metric.label} {arrow}", title=name if len(sets) > 1 else "")
        axis.grid(alpha=0.3)
        if highest_bpp is not None:
            _end_at(axis, highest_bpp)
    for axis in axes.flat[len(panels) :]:
        axis.axis("off")
    figure.suptitle(title)
    lines = math.ceil(len(legend) / LEGEND_COLUMNS)
    height = figure.get_size_inches()[1]
    figure.tight_layout(rect=(0, min(0.4, (0.25 * lines + 0.1) / height), 1, 1))
    figure.legend(
        list(legend.values()), list(legend), loc="lower center", ncols=LEGEND_COLUMNS, fontsize=8.5, frameon=False
    )
    figure.savefig(path, dpi=dpi)
    plt.close(figure)
    return path


def _end_at(axis: Any, highest_bpp: float) -> None:
    """End the rate axis, and the other one where the lines leave the panel."""
    heights: list[float] = []
    for line in axis.get_lines():
        rates, values = (np.asarray(v, dtype=float) for v in line.get_data())
        within = values[rates <= highest_bpp].tolist()
        if len(within) < len(values) and within:
            within.append(float(np.interp(highest_bpp, rates, values)))
        heights += within
    axis.set_xlim(0, highest_bpp)
    if heights:
        low, high = min(heights), max(heights)
        margin = 0.05 * (high - low) or 0.5
        axis.set_ylim(low - margin, high + margin)


def pyplot() -> Any:
    """matplotlib.pyplot, drawing into files."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def _styled(curves: Sequence[Curve]) -> list[tuple[Curve, dict[str, Any]]]:
    """A colour for each codec, a line and a marker for each of its modes."""
    modes: dict[str, int] = {}
    found, others = [], iter(OTHER_COLOURS * 4)
    unknown: dict[str, str] = {}
    for curve in curves:
        colour = COLOURS.get(curve.codec) or unknown.setdefault(curve.codec, "") or next(others)
        unknown[curve.codec] = colour
        mode = modes[curve.codec] = modes.get(curve.codec, -1) + 1
        several = sum(c.codec == curve.codec for c in curves) > 1
        marker = MARKERS[(mode if several else list(modes).index(curve.codec)) % len(MARKERS)]
        style = {"color": colour, "linestyle": LINES[mode % len(LINES)], "marker": marker, "markersize": 4.5}
        if several:  # modes of one codec: shades of its colour
            style["alpha"] = 1 - 0.13 * (mode % 6)
        if curve.codec.startswith("cdc"):
            style |= {"linewidth": 2.2, "zorder": 5}
        found.append((curve, style))
    return found


def _references(axis: Any, references: Sequence[Published], metric: Metric, legend: dict[str, Any]) -> None:
    for i, entry in enumerate(references):
        if metric.name not in entry.metrics:
            continue
        style = {"color": "0.45", "linewidth": 1.1, "linestyle": PUBLISHED_LINES[i % len(PUBLISHED_LINES)]}
        if not entry.connected:
            style = {"color": "0.25", "linestyle": "", "marker": MARKERS[i % len(MARKERS)], "markersize": 5}
        (line,) = axis.plot(entry.bpp, entry.metrics[metric.name], **style)
        legend.setdefault(f"{entry.label} (published)", line)
