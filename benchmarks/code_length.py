"""Coded size against ideal code length, and what the integer path costs, on every Kodak image and some rates.

    CDC_SHARED=FOLDER python -m benchmarks.code_length [--images N] [--models-dir FOLDER --model NAME] [--json FILE]

Exits with 1 when a file exceeds 1.01 times its ideal code length plus 40 bytes.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks import record
from model.config import rate_of_quality
from model.evaluation.coders.code_length import code_length
from model.weights.registry import Registry

QUALITIES = (1, 10, 30, 50, 70, 90, 100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--models-dir", type=Path)
    parser.add_argument("--model")
    options = record.parse(parser)
    folder = Path(os.environ["CDC_SHARED"]) / "data" / "kodak"
    codec = Registry(options.models_dir).get(options.model)
    rows = []
    for path in sorted(folder.glob("kodim*.png"))[: options.images]:
        latents = codec.analyse(np.asarray(Image.open(path).convert("RGB")))
        for quality in QUALITIES:
            rate = rate_of_quality(quality)
            length = code_length(codec, latents, rate)
            size = len(codec.pack(latents, rate))
            rows.append((quality, size * 8, *astuple(length)))
    table = np.array(rows)
    size, float_head, rounded_head, integer_head, ideal, tables = table[:, 1:7].T
    means = []
    for quality in (*QUALITIES, None):
        t = np.ones(len(table), bool) if quality is None else table[:, 0] == quality
        ratios = {
            "integer / float": integer_head[t].sum() / float_head[t].sum(),
            "integer / rounded float": integer_head[t].sum() / rounded_head[t].sum(),
            "tables / ideal": tables[t].sum() / ideal[t].sum(),
        }
        row: dict[str, Any] = {"quality": quality or "all", "file / ideal": round(size[t].sum() / ideal[t].sum(), 5)}
        row["file - ideal, bytes"] = round(((size - ideal)[t] / 8).mean(), 1)
        means.append(row | {name: round(ratio, 5) for name, ratio in ratios.items()})
    excess = size / 8 - (1.01 * ideal / 8 + 40)
    figures = {
        "lengths": means,
        "largest file / ideal": round((size / ideal).max(), 5),
        "files": len(table),
        "files beyond 1.01 x ideal + 40 bytes": int((excess > 0).sum()),
        "integer arithmetic, worst file, %": round(100 * (integer_head / rounded_head - 1).max(), 3),
        "integer arithmetic and rounding, worst file, %": round(100 * (integer_head / float_head - 1).max(), 3),
    }
    record.finish(options, figures)
    sys.exit(int((excess > 0).any()))


if __name__ == "__main__":
    main()
