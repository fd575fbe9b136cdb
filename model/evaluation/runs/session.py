"""What a run is made of, from the words of the command line, and what it leaves behind."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from model.errors import InvalidParameter
from model.evaluation.coders.baselines import Baseline, all_baselines
from model.evaluation.coders.models import Coder, Mode, models
from model.evaluation.figures.curves import Curve, bd_rate, curves_of, overlap, reference_curve, scaled, write_summary
from model.evaluation.figures.latex import bd_rate_tables
from model.evaluation.figures.published import all_published
from model.evaluation.metrics.catalogue import DEFAULT, choose, metric_of
from model.evaluation.runs.cache import Cache, Row
from model.evaluation.runs.datasets import DataSet, prepare
from model.evaluation.runs.report import write_report

Say = Callable[[str], None]


def modes_of(steps: Sequence[int], gammas: Sequence[float], seeds: Sequence[int | None]) -> list[Mode]:
    """Every combination; with gamma 0 there is no noise, so one seed."""
    return [Mode(n, g, s) for n in steps for g in gammas for s in (seeds if g else [None])]


def coders_of(
    names: Sequence[str],
    *,
    qualities: Sequence[int],
    modes: Sequence[Mode],
    models_dir: Path | None,
    device: str,
    say: Say,
    eps_steps: int = 0,
) -> list[Coder]:
    """Coders by name: a baseline, a model, `models` for all installed, `baselines` for all that can be used here.

    A baseline asked for by name that cannot be used is reported and left out.

    Raises:
        UnknownModel: a name that is neither a baseline nor an installed model.
    """
    baselines = all_baselines()
    found: dict[str, Coder] = {}
    for name in names:
        if name == "baselines":
            found |= _usable(baselines.values(), say)
        elif name in baselines:
            found |= _usable([baselines[name]], say)
        else:
            wanted = "all" if name == "models" else name
            found |= {m.name: m for m in models([wanted], qualities, modes, models_dir, device, eps_steps)}
    if not found:
        raise InvalidParameter("none of these codecs can be used here")
    return list(found.values())


def metrics_of(names: Sequence[str], say: Say) -> list[str]:
    """Names of the metrics that can be computed here; the others are reported."""
    usable = []
    for name in choose(names or DEFAULT):
        missing = metric_of(name).missing
        if missing:
            say(f"{metric_of(name).label} unavailable: {missing}")
        else:
            usable.append(name)
    return usable


def list_codecs(models_dir: Path | None) -> list[tuple[str, str]]:
    """Name and state of every model and baseline."""
    from model.weights.registry import Registry

    listing = [(i.name, f"model, version {i.version}") for i in Registry(models_dir).infos()]
    for baseline in all_baselines().values():
        missing = baseline.missing
        listing.append((baseline.name, f"unavailable: {missing}" if missing else baseline.version))
    return listing


def _usable(baselines: Iterable[Baseline], say: Say) -> dict[str, Coder]:
    usable: dict[str, Coder] = {}
    for baseline in baselines:
        if missing := baseline.missing:
            say(f"{baseline.name} unavailable: {missing}")
        else:
            usable[baseline.name] = baseline
    return usable


def manifest(data: DataSet) -> dict[str, Any]:
    """What was measured on: every image with its size and the SHA-256 of its file and of its prepared pixels."""
    pictures = []
    for item in data.items:
        prepared = prepare(item)
        height, width = prepared.pixels.shape[:2]
        pictures.append(
            {
                "name": item.name,
                "width": width,
                "height": height,
                "preparation": item.preparation,
                "file_sha256": prepared.file_sha256,
                "pixels_sha256": prepared.pixels_sha256,
            }
        )
    return {"data": data.name, "pictures": pictures}


def manifest_of_rows(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The same from rows, which carry the hashes, without decoding an image again."""
    sets: dict[str, dict[str, dict[str, Any]]] = {}
    fields = ("width", "height", "preparation", "file_sha256", "pixels_sha256")
    for row in rows:
        sets.setdefault(row.data, {})[row.image] = {"name": row.image, **{f: getattr(row, f) for f in fields}}
    return [{"data": d, "pictures": [p[n] for n in sorted(p)]} for d, p in sets.items()]


def bd_rates(
    curves: Sequence[Curve], metrics: Sequence[str], *, against_published: bool = True
) -> list[dict[str, Any]]:
    """BD-rate of every curve against every other one on its data set and, on Kodak, against the published ones.

    Args:
        against_published: False where `curves` are not of all 24 images of Kodak.

    Returns:
        A record a pair: data, metric, anchor, test, percent (None where the curves have no quality in common), overlap.
    """
    names = [metric_of(m) for m in metrics]
    records = []
    for data in dict.fromkeys(c.data for c in curves):
        own = [c for c in curves if c.data == data]
        references = [e for e in all_published() if e.connected] if against_published and data == "kodak" else []
        for metric in names:
            table = [(c.label, *c.values(metric.name)) for c in own]
            tests = list(table)
            table += [(f"{e.label} (published)", *reference_curve(e, metric.name)) for e in references]
            lower = metric.better == "lower"
            for anchor, anchor_rates, anchor_values in table:
                for test, rates, values in tests:
                    if anchor == test or len(anchor_rates) < 2 or len(rates) < 2:
                        continue
                    a, b = (scaled(metric.name, v, lower_is_better=lower) for v in (anchor_values, values))
                    record = {"data": data, "metric": metric.name, "anchor": anchor, "test": test}
                    try:
                        percent: float | None = round(bd_rate((anchor_rates, a), (rates, b)), 2)
                    except InvalidParameter:
                        percent = None
                    records.append({**record, "percent": percent, "overlap": round(overlap(a, b), 3)})
    return records


def write_results(
    rows: Sequence[Row],
    sets: Sequence[DataSet],
    coders: Sequence[Coder],
    metrics: Sequence[str],
    cache: Cache,
    out: Path,
    missing: Sequence[str] = (),
    elsewhere: Sequence[Curve] = (),
) -> None:
    """Write summary.csv, bd_rates.csv and .tex, manifest.json, the plots and report.html.

    `elsewhere` are curves from other people's files; those on a measured data set stand beside the measured ones.
    """
    rows = ordered(rows, sets, coders)
    known = {d.name for d in sets}
    curves = [*curves_of(rows), *(c for c in elsewhere if c.data in known)]
    write_summary(curves, out / "summary.csv")
    whole = all(len(d.items) == d.whole for d in sets if d.name == "kodak")
    rates = bd_rates(curves, metrics, against_published=whole)
    with (out / "bd_rates.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["data", "metric", "anchor", "test", "percent", "overlap"])
        writer.writeheader()
        writer.writerows(rates)
    (out / "bd_rates.tex").write_text(bd_rate_tables(rates), encoding="utf-8")
    (out / "manifest.json").write_text(json.dumps(manifest_of_rows(rows), indent=1) + "\n")
    write_report(rows, sets, coders, metrics, curves, rates, cache, out, missing)


def ordered(rows: Sequence[Row], sets: Sequence[DataSet], coders: Sequence[Coder]) -> list[Row]:
    """Rows in the order of data sets, codecs, points and images, whatever the order in which they were finished."""
    places = {(c.name, json.dumps(dict(p))): (i, j) for i, c in enumerate(coders) for j, p in enumerate(c.points)}
    names = {d.name: i for i, d in enumerate(sets)}
    return sorted(rows, key=lambda r: (names[r.data], places[r.codec, json.dumps(r.parameters)], r.image))
