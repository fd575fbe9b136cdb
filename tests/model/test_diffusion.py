from __future__ import annotations

import hashlib
import itertools
import math

import numpy as np
import pytest
import torch

from model.diffusion.noise import normal_noise
from model.diffusion.sampler import add_noise, ddim_step
from model.diffusion.schedule import Schedule, cosine_schedule, linear_schedule
from model.errors import InvalidParameter


def test_cosine_schedule_follows_its_equation() -> None:
    schedule = cosine_schedule()
    assert schedule.length == 8193

    def f(u: float) -> float:
        return math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2

    for n in (0, 1, 4096, 8000):
        assert float(schedule.alpha_bar[n]) == pytest.approx(f((n + 1) / 8193) / f(0), rel=1e-6)
    assert float(schedule.alpha_bar[-1]) == pytest.approx(1e-6)


def test_published_cosine_schedule_ends_at_its_known_value() -> None:
    schedule = cosine_schedule(floor=None, beta_limit=0.999)
    assert float(schedule.alpha_bar[-1]) == pytest.approx(3.6e-11, rel=0.02)


def test_linear_schedule() -> None:
    schedule = linear_schedule()
    assert schedule.length == 20000
    assert float(schedule.alpha_bar[0]) == pytest.approx(1 - 1e-4 / 20)
    betas = np.linspace(1e-4 / 20, 0.02 / 20, 20000)
    assert float(schedule.alpha_bar[-1]) == pytest.approx(math.exp(np.log1p(-betas).sum()), rel=1e-4)


def test_indices_are_integer_and_start_at_the_noisiest() -> None:
    schedule = cosine_schedule()
    assert schedule.indices(1) == (8192,)
    assert schedule.indices(2) == (8192, 0)
    assert schedule.indices(4) == (8192, 5461, 2730, 0)
    assert schedule.indices(8193) == tuple(range(8192, -1, -1))
    for steps in (3, 17, 65, 100):
        expected = tuple(k * 8192 // (steps - 1) for k in reversed(range(steps)))
        assert schedule.indices(steps) == expected
    assert linear_schedule().indices(1) == (0,)


@pytest.mark.parametrize("steps", [0, -1, 8194])
def test_steps_out_of_range(steps: int) -> None:
    with pytest.raises(InvalidParameter):
        cosine_schedule().indices(steps)


@pytest.mark.parametrize("schedule", [cosine_schedule(), linear_schedule()], ids=["x", "eps"])
def test_a_perfect_network_recovers_the_picture(schedule: Schedule) -> None:
    """DDIM is deterministic: with the true prediction at every level it walks back to x0."""
    x0 = torch.rand(2, 3, 8, 8) * 1.8 - 0.9
    eps = torch.randn_like(x0)
    indices = [*schedule.indices(9)[1:], -1] if schedule.parameterization == "x" else [*schedule.indices(9), -1]
    x = add_noise(x0, eps, schedule.at(torch.tensor([indices[0]] * 2)))
    for now, following in itertools.pairwise(indices):
        a, b = (schedule.at(torch.tensor([i] * 2)) for i in (now, following))
        truth = x0 if schedule.parameterization == "x" else eps
        x = ddim_step(lambda _, truth=truth: truth, x, a, b, schedule.parameterization).x
    torch.testing.assert_close(x, x0, atol=2e-3, rtol=0)


def test_rows_with_their_own_levels_equal_single_calls() -> None:
    schedule = cosine_schedule()
    x = torch.randn(3, 3, 8, 8)
    levels = [(8192, 4000), (4000, 10), (10, -1)]
    a = schedule.at(torch.tensor([f for f, _ in levels]))
    b = schedule.at(torch.tensor([t for _, t in levels]))
    together = ddim_step(torch.tanh, x, a, b, "x").x
    for row in range(3):
        alone = ddim_step(torch.tanh, x[row : row + 1], a[row : row + 1], b[row : row + 1], "x").x
        assert torch.equal(together[row : row + 1], alone)


def test_x_prediction_is_clamped_and_eps_is_not() -> None:
    x, a, b = torch.ones(1, 3, 4, 4), torch.tensor([0.5]), torch.tensor([1.0])
    assert float(ddim_step(lambda v: v * 9, x, a, b, "x").x0.max()) == 1.0
    assert float(ddim_step(lambda v: -v * 9, x, a, b, "eps").x0.max()) > 1.0


def test_noise_windows_agree_wherever_they_overlap() -> None:
    whole = normal_noise(5, 0, 0, 40, 50)
    for top, left in ((0, 0), (3, 7), (10, 8), (39, 49)):
        window = normal_noise(5, top, left, 40 - top, 50 - left)
        np.testing.assert_array_equal(window, whole[:, top:, left:])


def test_noise_is_standard_normal_and_depends_on_the_seed() -> None:
    noise = normal_noise(1, 0, 0, 300, 300)
    assert abs(float(noise.mean())) < 0.01
    assert float(noise.std()) == pytest.approx(1, abs=0.01)
    assert float((noise**4).mean()) == pytest.approx(3, abs=0.1)
    assert abs(float(np.corrcoef(noise.reshape(3, -1))[0, 1])) < 0.02
    assert abs(float(np.corrcoef(noise[:, 1:].ravel(), noise[:, :-1].ravel())[0, 1])) < 0.02
    assert not np.array_equal(noise, normal_noise(2, 0, 0, 300, 300))


def test_golden_noise() -> None:
    """Published seeds must keep their images; values are rounded so that a last bit of libm does not matter."""
    rounded = np.round(normal_noise(2**63 - 1, 1000, 2001, 16, 16), 3) + 0.0
    assert hashlib.sha256(rounded.astype("<f4").tobytes()).hexdigest() == GOLDEN_NOISE


GOLDEN_NOISE = "0f78550fcf8a50d0ad19e5723fec47d17de2e1e8140e6ab57032aae87614366f"


def test_seed_out_of_range() -> None:
    with pytest.raises(InvalidParameter):
        normal_noise(-1, 0, 0, 1, 1)
    with pytest.raises(InvalidParameter):
        normal_noise(2**63, 0, 0, 1, 1)
