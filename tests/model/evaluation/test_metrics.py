"""Each metric against a second implementation of it, or against what it must fulfil."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.ndimage import convolve

from model.errors import InvalidParameter
from model.evaluation.metrics import catalogue as metric_table
from model.evaluation.metrics.catalogue import PAPER, choose, function_of, metric_of, stored_name, tensor_of
from model.evaluation.metrics.grey import luma
from model.evaluation.metrics.mad import _means
from model.evaluation.metrics.nlpd import CONSTANTS, LOW_PASS, NEIGHBOURS
from model.evaluation.metrics.steerable import band
from model.types import Pixels
from tests.model.evaluation.conftest import as_jpeg

OWN = [m.name for m in PAPER if not m.weights and not m.lacking and not m.whole_set]


@pytest.mark.parametrize("name", OWN)
def test_equal_pictures_and_order(name: str, pictures: list[Pixels]) -> None:
    function, metric = function_of(name), metric_of(name)
    sign = 1 if metric.better == "higher" else -1
    picture = pictures[1]
    values = [function(picture, p) for p in (picture, as_jpeg(picture, 60), as_jpeg(picture, 20), as_jpeg(picture, 5))]
    assert values[0] == pytest.approx({"higher": 100 if name == "psnr" else 1, "lower": 0}[metric.better], abs=1e-4)
    assert all(sign * a > sign * b for a, b in itertools.pairwise(values)), values


@pytest.mark.filterwarnings("ignore")  # of the second implementations
@pytest.mark.parametrize("i", range(5))
def test_second_implementations(i: int, pictures: list[Pixels], distorted: list[Pixels]) -> None:
    from torchmetrics.functional.image import (
        multiscale_structural_similarity_index_measure,
        peak_signal_noise_ratio,
        structural_similarity_index_measure,
    )

    a, b = pictures[i], distorted[i]
    x, y = tensor_of(b), tensor_of(a)
    assert function_of("psnr")(a, b) == pytest.approx(float(peak_signal_noise_ratio(x, y, data_range=1.0)), abs=1e-3)
    ssim = structural_similarity_index_measure(x, y, data_range=1.0)
    # torchmetrics pads, pytorch-msssim does not: the rims differ.
    assert function_of("ssim")(a, b) == pytest.approx(float(ssim), abs=5e-3)
    multi = multiscale_structural_similarity_index_measure(x, y, data_range=1.0)
    assert function_of("ms-ssim")(a, b) == pytest.approx(float(multi), abs=2e-2)
    assert function_of("gmsd")(a, b) == pytest.approx(gmsd(a, b), abs=2e-3)
    assert function_of("nlpd")(a, b) == pytest.approx(nlpd(a, b), rel=1e-6)


def gmsd(a: Pixels, b: Pixels) -> float:
    """Xue et al. 2014 in numpy: 2x2 means, every other pixel, Prewitt gradients, deviation of their similarity."""
    weights, maps = np.array([0.299, 0.587, 0.114]), []
    for picture in (a, b):
        plane = picture @ weights
        plane = (plane[::2, ::2] + plane[1::2, ::2] + plane[::2, 1::2] + plane[1::2, 1::2]) / 4
        kernel = np.array([[1, 0, -1]] * 3) / 3
        maps.append(np.hypot(convolve(plane, kernel, mode="constant"), convolve(plane, kernel.T, mode="constant")))
    u, v = maps
    return float(((2 * u * v + 170) / (u**2 + v**2 + 170)).std())


def nlpd(a: Pixels, b: Pixels) -> float:
    """Laparra et al. 2016 with two-dimensional kernels."""
    kernel = np.outer(LOW_PASS, LOW_PASS)

    def levels(plane: np.ndarray) -> list[np.ndarray]:
        out = []
        for _ in range(5):
            small = convolve(plane, kernel, mode="reflect")[::2, ::2]
            spread = np.zeros_like(plane)
            spread[::2, ::2] = small
            out.append(plane - convolve(spread, 4 * kernel, mode="reflect"))
            plane = small
        out.append(plane)
        normal = []
        for level, constant, (up, left, right, down) in zip(out, CONSTANTS, NEIGHBOURS, strict=True):
            weights = np.array([[0, up, 0], [left, 0, right], [0, down, 0]])[::-1, ::-1]
            normal.append(level / (constant + convolve(np.abs(level), weights, mode="reflect")))
        return normal

    pairs = zip(levels(luma(a) / 255), levels(luma(b) / 255), strict=True)
    return float(np.mean([math.sqrt(((u - v) ** 2).mean()) for u, v in pairs]))


def test_cw_ssim_forgives_a_shift_that_ssim_does_not(photograph: Pixels) -> None:
    picture = np.ascontiguousarray(photograph[:512, :512])
    shifted = np.roll(picture, 2, axis=1)
    assert function_of("cw-ssim")(picture, shifted) > 0.97
    assert function_of("ssim")(picture, shifted) < 0.9
    assert function_of("cw-ssim")(picture, picture[::-1]) < 0.9


def test_steerable_band_answers_to_its_frequency_and_direction() -> None:
    y, x = np.mgrid[:128, :128]
    wave = np.cos(np.pi / 4 * x) + 0 * y  # scale 2 is centred there; it varies along x alone
    energies = {(s, o): float(np.abs(band(wave, s, o, 8)).mean()) for s in (1, 2, 3) for o in (0, 2, 4)}
    assert max(energies, key=lambda k: energies[k]) == (2, 0)
    assert energies[2, 4] < 1e-6 * energies[2, 0]
    assert band(wave, 2, 0, 8).shape == (64, 64)
    # An analytic band of a cosine has constant magnitude.
    assert np.abs(band(wave, 2, 0, 8)).std() < 1e-6 * energies[2, 0]


def test_mad_blocks_are_means() -> None:
    plane = np.random.default_rng(0).normal(size=(40, 36))
    means = _means(plane, 16)
    assert means.shape == (7, 6)
    assert means[2, 3] == pytest.approx(plane[8:24, 12:28].mean())


def test_mad_masks_errors_in_texture(pictures: list[Pixels]) -> None:
    rng = np.random.default_rng(1)
    error = rng.integers(-6, 7, (192, 192, 1))
    flat = np.full((192, 192, 3), 128, np.uint8)
    texture = rng.integers(60, 196, (192, 192, 1)).repeat(3, axis=2).astype(np.uint8)
    seen = [function_of("mad")(p, (p + error).clip(0, 255).astype(np.uint8)) for p in (flat, texture)]
    assert seen[0] > seen[1]


def test_without_weights_a_metric_is_unavailable(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    metric_table.function_of.cache_clear()
    for name in ("fid", "lpips", "dists", "pieapp"):
        assert "weights not in" in (metric_of(name).missing or "")
        with pytest.raises(InvalidParameter, match="weights not in"):
            function_of(name)
    for name in ("ckdn", "musiq", "dbcnn"):
        assert "no permissively licensed" in (metric_of(name).missing or "")


def test_names() -> None:
    assert len(PAPER) == 16
    assert len(choose(["all", "psnr"])) == 16
    with pytest.raises(InvalidParameter, match="no metric"):
        choose(["vmaf"])
    assert "there is no file" in (metric_of("vgg19:/nowhere.pth").missing or "")


def test_values_of_an_earlier_revision_are_not_reused() -> None:
    names = [stored_name(metric_of(n)) for n in ("psnr", "cw-ssim", "mad")]
    assert names == ["psnr@1", "cw-ssim@2", "mad@2"]
