"""From rows to rate-distortion curves, and BD-rates between them."""

from __future__ import annotations

import csv
import math
import warnings
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from model.errors import InvalidParameter
from model.evaluation.coders.models import Value
from model.evaluation.figures.published import Published
from model.evaluation.runs.cache import Row

RATE_PARAMETERS = ("quality", "ratio", "distance", "qp")
METHOD = "pchip"


@dataclass(frozen=True)
class Point:
    """Means over the images of one codec at one setting: parameters, bits per pixel, metrics, seconds, images.

    Of a point measured elsewhere seconds are nan and images 0.
    """

    parameters: dict[str, Value]
    bpp: float
    metrics: dict[str, float]
    encode_seconds: float
    decode_seconds: float
    images: int


@dataclass(frozen=True)
class Curve:
    """Points of one codec in one mode on one data set, in order of the rate.

    Attributes:
        data, codec: names.
        mode: the parameters besides the rate's, e.g. {"steps": 17, "gamma": 0.8}.
    """

    data: str
    codec: str
    mode: dict[str, Value]
    points: tuple[Point, ...]

    @property
    def label(self) -> str:
        """Name for a legend: the codec and its mode."""
        return label_of(self.codec, self.mode)

    def values(self, metric: str) -> tuple[list[float], list[float]]:
        """Rates and values of a metric, where it was measured."""
        known = [p for p in self.points if metric in p.metrics]
        return [p.bpp for p in known], [p.metrics[metric] for p in known]


LABELS = {
    "jpeg": "JPEG",
    "webp": "WebP",
    "avif": "AVIF",
    "jpegxl": "JPEG XL",
    "jpeg2000": "JPEG 2000",
    "bpg": "BPG",
    "vtm": "VTM",
    "mbt2018-mean": "MS-Hyper",
    "cheng2020-attn": "DGML",
}


def label_of(codec: str, parameters: dict[str, Value]) -> str:
    """A codec as a reader sees it, with those of its parameters that do not steer its rate."""
    return ", ".join([LABELS.get(codec, codec), *mode_words(_mode(parameters))])


def mode_words(mode: dict[str, Value]) -> list[str]:
    """A mode as a reader sees it."""
    words = []
    for name, value in mode.items():
        if name == "steps":
            words.append(f"{value} step" + ("s" if value != 1 else ""))
        else:
            words.append(f"{'γ' if name == 'gamma' else name} {value:g}" if isinstance(value, float | int) else value)
    return words


def curves_of(rows: Iterable[Row]) -> list[Curve]:
    """Average rows over images and join the settings of each codec and mode, in the order in which they appear."""
    groups: dict[tuple[str, str, str], dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        groups[row.data, row.codec, repr(_mode(row.parameters))][repr(row.parameters)].append(row)
    found = []
    for (data, codec, _), settings in groups.items():
        points = [_point(members) for members in settings.values()]
        mode = _mode(points[0].parameters)
        found.append(Curve(data, codec, mode, tuple(sorted(points, key=lambda p: p.bpp))))
    return found


def bd_rate(anchor: tuple[Sequence[float], Sequence[float]], test: tuple[Sequence[float], Sequence[float]]) -> float:
    """Bjontegaard's mean difference of rate at equal quality, in percent: negative where `test` needs fewer bits.

    Each curve is (bits per pixel, value) with values growing with quality. The logarithm of the rate is interpolated
    over the value by PCHIP (monotone: no overshoot between wide points) and integrated where both curves have values.

    Raises:
        InvalidParameter: fewer than two points, or no common range.
    """
    import bjontegaard

    (rates_a, values_a), (rates_b, values_b) = _rising(*anchor), _rising(*test)
    if len(values_a) < 2 or len(values_b) < 2:
        raise InvalidParameter("a BD-rate needs two points a curve at least")
    if min(values_a[-1], values_b[-1]) <= max(values_a[0], values_b[0]):
        raise InvalidParameter("the curves have no quality in common")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of small overlap: the table states it
        rate = bjontegaard.bd_rate(
            rates_a, values_a, rates_b, values_b, METHOD, require_matching_points=False, min_overlap=0
        )
    return float(rate)


def overlap(anchor: Sequence[float], test: Sequence[float]) -> float:
    """Share of the union of two curves' value ranges that both cover, 0..1."""
    common = min(max(anchor), max(test)) - max(min(anchor), min(test))
    whole = max(*anchor, *test) - min(*anchor, *test)
    return max(0.0, common / whole) if whole else 0.0


def scaled(metric: str, values: Iterable[float], *, lower_is_better: bool = False) -> list[float]:
    """Values as a BD-rate takes them: similarities as -10 log10(1 - s), distances negated."""
    if metric.startswith(("ms-ssim", "ssim", "cw-ssim", "fsim", "vsi")):
        return [-10 * math.log10(max(1 - v, 1e-12)) for v in values]
    return [-v if lower_is_better else v for v in values]


def reference_curve(entry: Published, metric: str) -> tuple[list[float], list[float]]:
    """Rates and values of a published curve; empty where it has no such metric."""
    return (list(entry.bpp), list(entry.metrics[metric])) if metric in entry.metrics else ([], [])


def write_summary(curves: Sequence[Curve], path: Path) -> None:
    """Write one line for each data set, codec, mode and rate."""
    names = sorted({m for c in curves for p in c.points for m in p.metrics})
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["data", "codec", "parameters", "images", "bpp", *names, "encode_seconds", "decode_seconds"])
        for curve in curves:
            for p in curve.points:
                settings = " ".join(f"{k}={v}" for k, v in p.parameters.items())
                values = [f"{p.metrics[n]:.6g}" if n in p.metrics else "" for n in names]
                times = ["" if math.isnan(t) else f"{t:.4f}" for t in (p.encode_seconds, p.decode_seconds)]
                writer.writerow([curve.data, curve.codec, settings, p.images, f"{p.bpp:.6f}", *values, *times])


def _rising(rates: Sequence[float], values: Sequence[float]) -> tuple[list[float], list[float]]:
    """Points in order of the value; of equal values the cheaper one, as an interpolation over the value needs it."""
    cheapest = {value: rate for rate, value in sorted(zip(rates, values, strict=True), reverse=True)}
    ordered = sorted(cheapest.items())
    return [r for _, r in ordered], [v for v, _ in ordered]


def _mode(parameters: dict[str, Value]) -> dict[str, Value]:
    return {k: v for k, v in parameters.items() if k not in RATE_PARAMETERS}


def _point(rows: Sequence[Row]) -> Point:
    # A metric that some image lacks has no mean over the data set.
    names = set.intersection(*(set(r.metrics) for r in rows))
    count = len(rows)
    return Point(
        rows[0].parameters,
        sum(r.bpp for r in rows) / count,
        {n: sum(r.metrics[n] for r in rows) / count for n in sorted(names)},
        sum(r.encode_seconds for r in rows) / count,
        sum(r.decode_seconds for r in rows) / count,
        count,
    )
