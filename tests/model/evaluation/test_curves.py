"""BD-rates: signs, known cases, published values."""

from __future__ import annotations

import numpy as np
import pytest

from model.errors import InvalidParameter
from model.evaluation.figures.curves import bd_rate, scaled
from model.evaluation.figures.published import all_published, published

RATES = [0.1, 0.2, 0.4, 0.8]
LEVELS = [26.0, 29.0, 32.0, 35.0]


def test_half_the_bits_is_minus_fifty_percent() -> None:
    assert bd_rate((RATES, LEVELS), ([r / 2 for r in RATES], LEVELS)) == pytest.approx(-50)
    assert bd_rate(([r / 2 for r in RATES], LEVELS), (RATES, LEVELS)) == pytest.approx(100)


def test_order_and_number_of_points_do_not_matter() -> None:
    other = ([0.3, 0.6, 0.9], [30.0, 33.0, 34.5])
    backwards = (other[0][::-1], other[1][::-1])
    assert bd_rate((RATES, LEVELS), other) == pytest.approx(bd_rate((RATES, LEVELS), backwards))


def test_agrees_with_a_trapezoid_of_straight_lines() -> None:
    # On lines in log rate every interpolation is exact.
    test = ([2**0.5 * r for r in RATES[1:]], LEVELS[1:])
    assert bd_rate((RATES, LEVELS), test) == pytest.approx(100 * (2**0.5 - 1))


def test_curves_without_common_quality_are_refused() -> None:
    with pytest.raises(InvalidParameter, match="in common"):
        bd_rate((RATES, LEVELS), (RATES, [v + 20 for v in LEVELS]))
    with pytest.raises(InvalidParameter, match="two points"):
        bd_rate((RATES, LEVELS), ([0.1], [30.0]))


@pytest.mark.parametrize(
    ("name", "percent"),
    [
        ("jpeg", 143),
        ("webp", 44),
        ("av1", -6),
        ("mbt2018-mean", -3),
        ("cheng2020-attn", -18),
        ("vtm", -18),
        ("elic", -27),
    ],
)
def test_published_curves_against_bpg(name: str, percent: float) -> None:
    bpg, other = published("bpg"), published(name)
    rate = bd_rate((bpg.bpp, bpg.metrics["psnr"]), (other.bpp, other.metrics["psnr"]))
    assert rate == pytest.approx(percent, abs=0.5)


def test_published_curves_are_in_order_of_rate() -> None:
    for entry in all_published():
        assert list(entry.bpp) == sorted(entry.bpp)
        assert all(len(v) == len(entry.bpp) for v in entry.metrics.values())
    with pytest.raises(InvalidParameter, match="no published curve"):
        published("h264")


def test_scaled_grows_with_quality() -> None:
    assert scaled("ms-ssim", [0.9, 0.99]) == pytest.approx([10, 20])
    assert np.all(np.diff(scaled("gmsd", [0.3, 0.1], lower_is_better=True)) > 0)
