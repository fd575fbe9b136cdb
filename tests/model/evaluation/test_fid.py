"""FID: the distance of known normal distributions, patches, and its way into rows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model.errors import InvalidParameter
from model.evaluation.coders.baselines import JPEG
from model.evaluation.metrics import fid
from model.evaluation.runs.cache import Cache
from model.evaluation.runs.datasets import open_data
from model.evaluation.runs.runner import measure
from model.types import Pixels


def test_frechet_of_normal_distributions() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=(200_000, 3))
    b = rng.normal(size=(200_000, 3)) * [1, 2, 3] + [0, 0, 2]
    # |mean|^2 + sum (s1 - s2)^2 where covariances commute: 4 + 0 + 1 + 4
    assert fid.frechet(a, b) == pytest.approx(9, rel=0.02)
    assert fid.frechet(a, a) == pytest.approx(0, abs=1e-6)
    with pytest.raises(InvalidParameter, match="two patches"):
        fid.frechet(a[:1], b)


def test_frechet_agrees_with_a_matrix_root() -> None:
    from scipy.linalg import sqrtm

    rng = np.random.default_rng(1)
    a, b = (rng.normal(size=(500, 6)) @ rng.normal(size=(6, 6)) for _ in range(2))
    first, second = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    expected = np.square(a.mean(0) - b.mean(0)).sum() + np.trace(first + second - 2 * sqrtm(first @ second).real)
    assert fid.frechet(a, b) == pytest.approx(expected, rel=1e-6)


def test_patches_of_a_kodak_picture() -> None:
    assert len(list(fid.patches(np.zeros((512, 768, 3), np.uint8)))) == 6 + 2
    assert list(fid.patches(np.zeros((200, 768, 3), np.uint8))) == []


def test_fid_enters_rows_and_is_kept(photograph: Pixels, tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    Image.fromarray(photograph).save(tmp_path / "own" / "0.png")
    data, cache = open_data(str(tmp_path / "own")), Cache(tmp_path / "cache")
    coder = replace(JPEG, points=({"quality": 5}, {"quality": 90}))
    rows = list(measure(data, [coder], ["psnr"], cache))

    def moments(batch: np.ndarray) -> np.ndarray:
        planes = batch.reshape(len(batch), -1, 3).astype(float)
        return np.concatenate([planes.mean(1), planes.std(1)], axis=1)

    first = fid.with_fid(rows, [data], [coder], cache, moments)
    assert first[0].metrics["fid"] > first[1].metrics["fid"] > 0
    assert fid.with_fid(rows, [data], [coder], cache, lambda batch: pytest.fail("computed again")) == first
