from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from model.errors import InvalidParameter
from model.perceptual import ShiftedDistance, load_distance
from model.training import snapshot
from model.training.config import resolve
from model.training.critic import Critic, Scaled, Watched, hinge, maps_of
from tests.model.training.test_loop import DEFAULT, train


def test_the_other_gradient_is_weighed_by_the_first() -> None:
    x, norm = torch.randn(3, 4, requires_grad=True), torch.zeros(())
    direction = torch.randn(3, 4)
    for share in (0.0, 0.5):  # the norm is known from the second pass on
        x.grad = None
        total = 3 * Watched.apply(x, norm).sum() + (100 * direction * Scaled.apply(x, norm, share)).sum()
        total.backward()
    assert norm == pytest.approx(3 * math.sqrt(12))
    expected = 3 + 0.5 * norm * direction / direction.norm()
    torch.testing.assert_close(x.grad, expected)


def test_a_critic_learns_to_tell_noise_from_flat_areas(squeezenet: str) -> None:
    distance = load_distance(squeezenet)
    critic, q = Critic(ShiftedDistance(distance).channels()), torch.full((4,), 0.3)
    optimizer = torch.optim.Adam(critic.parameters(), 3e-4)
    base = torch.zeros(4, 3, 64, 64)
    maps = [maps_of(image, distance.maps(image)) for image in (0.5 * torch.randn_like(base), base + 0.01)]
    given = maps_of(base, distance.maps(base))
    losses = []
    for _ in range(40):
        loss = hinge(critic(maps[0], given, q), critic(maps[1], given, q))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def test_a_run_with_a_critic_goes_on_exactly(pictures: Path, squeezenet: str, tmp_path: Path) -> None:
    start = {
        "initial": DEFAULT,
        "part": "denoiser",
        "perceptual": squeezenet,
        "critic": 0.5,
        "lr_schedule": "steps",
        "lr_warmup": 0,
    }
    whole = train(tmp_path / "whole", pictures, steps=3, **start)
    train(tmp_path / "parts", pictures, steps=2, **start)
    rest = train(tmp_path / "parts", pictures, steps=3, resume=True, **start)
    assert [(line.total, line.gradient_norm) for line in rest] == [(whole[2].total, whole[2].gradient_norm)]
    state = snapshot.load(tmp_path / "whole").model
    assert float(state["critic.rest_norm"]) > 0
    assert not any("critic" in name for name in load_file(tmp_path / "whole" / "averaged.safetensors"))
    assert json.loads((tmp_path / "whole" / "run.json").read_text())["starts"][0]["configuration"]["critic"] == 0.5


def test_a_critic_needs_features() -> None:
    with pytest.raises(InvalidParameter, match="needs `perceptual`"):
        resolve("lite-sampler", {"critic": 0.5, "perceptual": None, "perceptual_scale": 0})
    with pytest.raises(InvalidParameter, match="critic needs"):
        resolve("lite", {"critic": 0.5})
    with pytest.raises(InvalidParameter, match="not lpips"):
        resolve("lite-sampler", {"critic": 0.5})
    with pytest.raises(InvalidParameter, match="no rho"):
        resolve("lite-sampler", {"rho": 0.5})
