"""FSIM, VSI, CW-SSIM and MAD against the second implementations in `oracles`, on five images damaged in five ways."""

from __future__ import annotations

import numpy as np
import pytest

from model.evaluation.metrics.catalogue import function_of
from model.evaluation.metrics.steerable import K
from model.types import Pixels
from tests.model.evaluation.conftest import as_jpeg
from tests.model.evaluation.oracles.cw_ssim import cw_ssim
from tests.model.evaluation.oracles.fsim import fsim
from tests.model.evaluation.oracles.mad import mad
from tests.model.evaluation.oracles.mad_program import mad_program
from tests.model.evaluation.oracles.vsi import vsi

Damaged = list[tuple[Pixels, Pixels]]


def test_fsim(damaged: Damaged) -> None:
    # float32 against float64, and the lower of the two middle values as the median against their mean.
    for a, b in damaged:
        assert function_of("fsim")(a, b) == pytest.approx(fsim(a, b), rel=1e-4)


def test_fsim_of_a_picture_that_is_halved_first(photograph: Pixels) -> None:
    a = photograph[:512].copy()
    b = as_jpeg(a, 15)
    assert function_of("fsim")(a, b) == pytest.approx(fsim(a, b), rel=1e-5)


def test_vsi(damaged: Damaged) -> None:
    for a, b in damaged:
        assert function_of("vsi")(a, b) == pytest.approx(vsi(a, b), rel=1e-5)


def test_vsi_resampled_as_in_the_authors_program(damaged: Damaged) -> None:
    # piq keeps the corners of the saliency map in place where the authors' program keeps areas.
    for a, b in damaged:
        assert function_of("vsi")(a, b) == pytest.approx(vsi(a, b, corners=False), abs=2e-3)


def test_vsi_of_a_picture_that_is_halved_first(photograph: Pixels) -> None:
    a = photograph[:512].copy()
    b = as_jpeg(a, 15)
    # piq's squares of 2x2 begin a pixel before the image, the authors' at its first.
    assert function_of("vsi")(a, b) == pytest.approx(vsi(a, b), abs=1e-3)
    shifted = [np.pad(p, ((1, 0), (1, 0), (0, 0)), mode="edge")[:-1, :-1] for p in (a, b)]
    assert function_of("vsi")(a, b) == pytest.approx(vsi(*shifted), abs=1e-4)


def test_cw_ssim(damaged: Damaged, photograph: Pixels) -> None:
    whole = photograph[:512].copy()  # large enough for the sixth scale
    for a, b in [*damaged, (whole, as_jpeg(whole, 5))]:
        # Values lie near 1: the distance from it is what must agree.
        measured = 1 - function_of("cw-ssim")(a, b)
        assert measured == pytest.approx(1 - cw_ssim(a, b, constant=K), rel=1e-9)
        # The authors' program adds no constant.
        assert measured == pytest.approx(1 - cw_ssim(a, b), rel=1e-4)


def test_cw_ssim_of_four_scales_and_eight_orientations(damaged: Damaged) -> None:
    for a, b in damaged:
        measured = 1 - function_of("cw-ssim-4x8")(a, b)
        assert measured == pytest.approx(1 - cw_ssim(a, b, constant=K, levels=4, orientations=8), rel=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("i", range(5))
def test_mad(i: int, damaged: Damaged) -> None:
    a, b = damaged[i]
    # Where a block hardly varies, skewness and kurtosis are ratios of small numbers.
    assert function_of("mad")(a, b) == pytest.approx(mad(a, b), rel=1e-6)


def test_mad_beside_the_authors_program(damaged: Damaged) -> None:
    # On images this small its rim of 16 pixels, left out, is half of the image.
    for a, b in damaged:
        assert function_of("mad")(a, b) == pytest.approx(mad_program(a, b, paper_lightness=True), rel=0.15)
    # The first two are dark: there its threshold of darkness hides errors that the paper's lets through.
    for a, b in damaged[2:]:
        assert function_of("mad")(a, b) == pytest.approx(mad_program(a, b, paper_lightness=False), rel=0.05)
    assert function_of("mad")(*damaged[1]) > 2 * mad_program(*damaged[1], paper_lightness=False)
