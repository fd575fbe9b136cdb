"""Baselines on Kodak against CompressAI's published points at the same settings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model.evaluation.coders.baselines import JPEG, WEBP, PillowCoder
from model.evaluation.figures.curves import curves_of
from model.evaluation.figures.published import published
from model.evaluation.runs.cache import Cache
from model.evaluation.runs.datasets import open_data
from model.evaluation.runs.runner import measure

PUBLISHED_QUALITIES = range(5, 100, 5)  # of both curves, in order of the rate


@pytest.mark.slow
@pytest.mark.parametrize(("coder", "tolerance_db"), [(WEBP, 0.05), (JPEG, 0.15)], ids=["webp", "jpeg"])
def test_kodak_points(coder: PillowCoder, tolerance_db: float, shared_data: Path, tmp_path: Path) -> None:
    data = open_data("kodak", shared_data / "data")
    points = tuple({"quality": q} for q in (10, 30, 50, 80))
    (curve,) = curves_of(measure(data, [replace(coder, points=points)], ["psnr"], Cache(tmp_path)))
    known = published(coder.name)
    for point in curve.points:
        i = list(PUBLISHED_QUALITIES).index(int(point.parameters["quality"]))
        assert point.bpp == pytest.approx(known.bpp[i], rel=0.005)
        assert np.abs(point.metrics["psnr"] - known.metrics["psnr"][i]) < tolerance_db
