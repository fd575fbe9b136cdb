"""Table 1: parameters and time an image. Published rows are labelled so."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from model.evaluation.coders.models import Coder, Model
from model.evaluation.figures.curves import label_of
from model.evaluation.figures.latex import tabular
from model.evaluation.runs.cache import Row
from model.types import Pixels

PAPER = "Table 1 of arXiv 2209.06950"


@dataclass(frozen=True)
class Line:
    """A codec in one mode: millions of parameters (None: no network), seconds an image, where the figures are from.

    `entropy_seconds` are those that a decode spends until its symbols are known; they are part of `decode_seconds`
    where this is measured, and not where it is the paper's, which times the networks alone.
    """

    codec: str
    parameters: float | None
    encode_seconds: float | None
    decode_seconds: float | None
    source: str
    entropy_seconds: float | None = None


PUBLISHED = (
    Line("CDC, 17 steps", 53.8, None, 1.04, f"{PAPER}: 768x512, RTX A6000"),
    Line("HiFiC", 181.0, None, None, PAPER),
    Line("MS-Hyper", 17.5, None, None, PAPER),
    Line("DGML", 26.5, None, None, PAPER),
    Line("MS-Hyper", None, 0.74, 0.96, "CompressAI's results: 768x512, CPU"),
)


def lines_of(rows: Sequence[Row], coders: Sequence[Coder], models_dir: Path | None, picture: Pixels) -> list[Line]:
    """Mean seconds over images and rates, as measured when each was first coded; then the published lines.

    Entropy decoding is timed on one image [H, W, 3] at the rate of a codec's first point.
    """
    entropy = {c.name: entropy_seconds(c, picture, models_dir) for c in coders if isinstance(c, Model)}
    sizes = parameters_of([c.name for c in coders], models_dir)
    groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        groups[row.codec, label_of(row.codec, row.parameters)].append(row)
    measured = []
    for (codec, label), members in groups.items():
        encode = [r.encode_seconds for r in members]
        decode = [r.decode_seconds for r in members]
        pictures = {(r.width, r.height) for r in members}
        size = "x".join(map(str, max(pictures))) if len({w * h for w, h in pictures}) == 1 else "several sizes"
        measured.append(
            Line(
                label,
                sizes.get(codec),
                sum(encode) / len(encode),
                sum(decode) / len(decode),
                f"measured: {size}",
                entropy.get(codec),
            )
        )
    return [*measured, *PUBLISHED]


def entropy_seconds(coder: Model, picture: Pixels, models_dir: Path | None, rounds: int = 3) -> float:
    """Least seconds of parsing a model's file and decoding its symbols."""
    from model.weights.registry import Registry

    file = coder.encode(picture, coder.points[0]).data
    codec = Registry(models_dir, "float32").get(coder.name)
    times = []
    for _ in range(rounds + 1):  # the first one loads
        start = time.perf_counter()
        codec.unpack(file)
        times.append(time.perf_counter() - start)
    return min(times)


def parameters_of(names: Sequence[str], models_dir: Path | None) -> dict[str, float]:
    """Millions of parameters of the installed models among these names."""
    from model.weights.registry import Registry

    registry = Registry(models_dir)
    installed = {i.name for i in registry.infos()}
    return {n: registry.get(n).parameters / 1e6 for n in names if n in installed}


HEADER = ("codec", "parameters, M", "encode, s", "decode, s", "of which entropy, s", "source")


def as_latex(lines: Sequence[Line]) -> str:
    """The table for LaTeX (booktabs)."""
    return tabular(HEADER, [_cells(line) for line in lines])


def as_markdown(lines: Sequence[Line]) -> str:
    """The table as Markdown."""
    rows = [HEADER, ["---"] * len(HEADER), *(_cells(line) for line in lines)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _cells(line: Line) -> list[str]:
    times = [
        f"{v:.3f}" if v is not None else "" for v in (line.encode_seconds, line.decode_seconds, line.entropy_seconds)
    ]
    return [line.codec, f"{line.parameters:.1f}" if line.parameters else "", *times, line.source]
