"""The HTML report of a run: one file with its plots, BD-rates, details side by side and all points."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from model.evaluation.coders.models import Coder
from model.evaluation.figures import crops
from model.evaluation.figures.curves import RATE_PARAMETERS, Curve
from model.evaluation.figures.plots import rate_panels
from model.evaluation.figures.published import published
from model.evaluation.metrics.catalogue import metric_of
from model.evaluation.runs.cache import Cache, Row
from model.evaluation.runs.datasets import DataSet

TEMPLATES = Path(__file__).with_name("templates")
REFERENCES = ("bpg", "vtm", "mbt2018-mean", "cheng2020-attn")
CROPS_BPP = 0.3
CROPPED_PICTURES = 3


def write_report(
    rows: Sequence[Row],
    sets: Sequence[DataSet],
    coders: Sequence[Coder],
    metrics: Sequence[str],
    curves: Sequence[Curve],
    rates: Sequence[dict[str, Any]],
    cache: Cache,
    out: Path,
    missing: Sequence[str] = (),
) -> Path:
    """Draw OUT/rate-DATA.png and OUT/crops-DATA.png and write OUT/report.html with them inside; returns its path.

    Args:
        curves, rates: of `curves_of` and `session.bd_rates`.
        missing: sentences about what was asked for and could not be measured.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    chosen = [metric_of(m) for m in metrics]
    sections = []
    for data in sets:
        own = [c for c in curves if c.data == data.name]
        plot = rate_panels(
            own,
            chosen,
            out / f"rate-{data.name}.png",
            title=f"{data.label}, {len(data.items)} images, real bytes",
            references=[published(n) for n in REFERENCES] if len(data.items) == data.whole else (),
        )
        lines = crops.compared(data, rows, coders, cache, CROPS_BPP, CROPPED_PICTURES)
        details = crops.draw(lines, out / f"crops-{data.name}.png")
        sections.append(
            {
                "label": data.label,
                "plot": _embedded(plot),
                "crops": _embedded(details),
                "bpp": CROPS_BPP,
                "metrics": [m.label for m in chosen],
                "bd": [
                    _bd_table([r for r in rates if r["data"] == data.name and r["metric"] == m.name], m.label)
                    for m in chosen
                ],
                "points": [_cells(c, p, metrics) for c in own for p in c.points],
            }
        )
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=False
    )
    text = environment.get_template("report.html").render(
        names=", ".join(d.label for d in sets),
        pictures=sum(len(d.items) for d in sets),
        rows=len(rows),
        sections=sections,
        missing=missing,
    )
    path = out / "report.html"
    path.write_text(text, encoding="utf-8")
    return path


def _bd_table(records: Sequence[dict[str, Any]], label: str) -> dict[str, Any]:
    tests = list(dict.fromkeys(r["test"] for r in records))
    found = {(r["anchor"], r["test"]): r["percent"] for r in records}
    lines = []
    for anchor in dict.fromkeys(r["anchor"] for r in records):
        values = [found.get((anchor, t)) for t in tests]
        lines.append((anchor, ["–" if v is None else f"{v:+.1f}" for v in values]))
    return {"metric": label, "tests": tests, "lines": lines}


def _cells(curve: Curve, point: Any, metrics: Sequence[str]) -> list[str]:
    setting = " ".join(f"{k} {v:g}" for k, v in point.parameters.items() if k in RATE_PARAMETERS)
    values = [f"{point.metrics[m]:.4f}" if m in point.metrics else "" for m in metrics]
    times = ["" if math.isnan(t) else f"{t:.3f}" for t in (point.encode_seconds, point.decode_seconds)]
    return [curve.label, setting, f"{point.bpp:.4f}", *values, *times, str(point.images)]


def _embedded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
