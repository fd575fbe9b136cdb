"""Curves measured elsewhere, from a file of the user's: drawn beside ours and in the same BD-rates.

CSV: a header `data,codec,bpp` and one column a metric, then a line a point; an empty cell is a value not known. JSON: a
list of objects with `data`, `codec`, `bpp` and metrics, the last two kinds as lists of equal length. Metrics have the
names of `cdc evaluate metrics`; values are means over the whole data set.
"""

from __future__ import annotations

import csv
import json
import math
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from model.errors import InvalidParameter
from model.evaluation.figures.curves import Curve, Point
from model.evaluation.metrics.catalogue import metric_of

NAMES = ("data", "codec", "bpp")
LIMIT_BYTES = 1 << 24


def read_curves(path: Path) -> list[Curve]:
    """Read the curves of a CSV or JSON file, each in order of its rate.

    Raises:
        InvalidParameter: unreadable, a column or value that is missing, unknown or no number; the message says where.
    """
    try:
        if path.stat().st_size > LIMIT_BYTES:
            raise InvalidParameter(f"{path.name}: more than {LIMIT_BYTES} bytes of curves")
        text = path.read_text(encoding="utf-8-sig")
        records = list(_of_json(json.loads(text)) if path.suffix == ".json" else _of_csv(text))
    except (OSError, ValueError, csv.Error) as error:
        raise InvalidParameter(f"{path.name}: {error}") from error
    except InvalidParameter as error:
        raise InvalidParameter(f"{path.name}: {error}") from error
    found: dict[tuple[str, str], list[Point]] = defaultdict(list)
    for where, record in records:
        try:
            found[str(record["data"]), str(record["codec"])].append(_point(record))
        except (InvalidParameter, KeyError, ValueError, TypeError) as error:
            wrong = f"{error.args[0]} is missing" if isinstance(error, KeyError) else str(error)
            raise InvalidParameter(f"{path.name}, {where}: {wrong}") from error
    return [Curve(d, c, {}, tuple(sorted(points, key=lambda p: p.bpp))) for (d, c), points in found.items()]


def _of_csv(text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    reader = csv.DictReader(text.splitlines(), strict=True)
    missing = [n for n in NAMES if n not in (reader.fieldnames or ())]
    if missing:
        raise InvalidParameter(f"there is no column {missing[0]!r}")
    for row in reader:
        if None in row:
            raise InvalidParameter(f"line {reader.line_num} has more cells than the header")
        yield f"line {reader.line_num}", {k: v for k, v in row.items() if v not in ("", None)}


def _of_json(content: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    if not isinstance(content, list) or not all(isinstance(entry, dict) for entry in content):
        raise InvalidParameter("a list of objects is needed")
    for number, entry in enumerate(content):
        lists = {k: v for k, v in entry.items() if isinstance(v, list)}
        lengths = {len(v) for v in lists.values()}
        if "bpp" not in lists or len(lengths) != 1:
            raise InvalidParameter(f"entry {number}: bpp and metrics are lists of one length")
        for i in range(lengths.pop()):
            yield f"entry {number}", {**entry, **{k: v[i] for k, v in lists.items()}}


def _point(record: dict[str, Any]) -> Point:
    values = {k: float(v) for k, v in record.items() if k not in ("data", "codec")}
    bad = [k for k, v in values.items() if not math.isfinite(v)]
    bpp = values.pop("bpp")
    if bad or bpp <= 0:
        raise InvalidParameter(f"{bad[0] if bad else 'bpp'} is out of range")
    for name in values:
        metric_of(name)
    return Point({}, bpp, values, math.nan, math.nan, 0)
