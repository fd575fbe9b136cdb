"""The distortion-perception plane (Blau & Michaeli, CVPR 2018): decodes of the same files over gamma and steps."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from model.evaluation.figures.plots import pyplot
from model.evaluation.metrics.catalogue import Metric
from model.evaluation.runs.cache import Row

Panel = tuple[str, float]  # codec, quality
Line = dict[float, list[Row]]  # gamma -> rows


def draw_plane(rows: Sequence[Row], metrics: Sequence[Metric], path: Path, title: str = "", dpi: int = 110) -> Path:
    """Write a PNG of one row of panels for each metric but PSNR, a panel for each codec and quality; returns `path`.

    In each a line for each number of steps leads from gamma to gamma: PSNR to the right, the metric upwards.
    """
    plt = pyplot()
    panels: dict[Panel, dict[int, Line]] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for row in rows:
        p = row.parameters
        panels[row.codec, float(p.get("quality", 0))][int(p["steps"])][float(p["gamma"])].append(row)
    others = [m for m in metrics if m.name != "psnr"]
    figure, axes = plt.subplots(
        len(others),
        len(panels),
        figsize=(4.4 * len(panels), 3.8 * len(others)),
        squeeze=False,
        constrained_layout=True,
    )
    for line_of_axes, metric in zip(axes, others, strict=True):
        for axis, ((codec, quality), lines) in zip(line_of_axes, sorted(panels.items()), strict=True):
            for steps, line in sorted(lines.items()):
                points = [(_mean(r, "psnr"), _mean(r, metric.name), gamma) for gamma, r in sorted(line.items())]
                axis.plot([p[0] for p in points], [p[1] for p in points], "o-", label=f"{steps} steps")
                for x, y, gamma in points:
                    axis.annotate(f"{gamma:g}", (x, y), fontsize=7, xytext=(3, 3), textcoords="offset points")
            bpp = np.mean([r.bpp for line in lines.values() for members in line.values() for r in members])
            axis.set(title=f"{codec}, quality {quality:g}, {bpp:.3f} bpp", xlabel="PSNR (dB)")
            axis.ticklabel_format(useOffset=False)
            axis.grid(alpha=0.3)
        arrow = "↑" if metric.better == "higher" else "↓"
        line_of_axes[0].set_ylabel(f"{metric.label} {arrow}")
    axes[0, 0].legend(title="gamma at the points", fontsize=8)
    figure.suptitle(title)
    figure.savefig(path, dpi=dpi)
    plt.close(figure)
    return path


def _mean(rows: Sequence[Row], metric: str) -> float:
    values = [r.metrics[metric] for r in rows if metric in r.metrics]
    return float(np.mean(values)) if values else float("nan")
