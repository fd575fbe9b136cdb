from __future__ import annotations

import pytest

from model.errors import InvalidParameter
from model.training.config import PRESETS, TrainingConfig, resolve
from model.training.rates import lambda_of, learning_rate, progress


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_valid_and_survive_json(preset: str) -> None:
    config = resolve(preset)
    assert TrainingConfig.model_validate_json(config.model_dump_json()) == config


def test_values_are_overridden_by_name_and_by_text() -> None:
    config = resolve("lite", {"steps": 7}, ["lr=0.5", "rho=0.5", "perceptual=lpips:vgg", "betas=[0.8, 0.9]"])
    assert (config.steps, config.lr, config.perceptual, config.betas) == (7, 0.5, "lpips:vgg", (0.8, 0.9))


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["nonsense=1"], "nonsense"),
        (["crop=100"], "crop"),
        (["lr=fast"], "lr"),
        (["lr"], "name=value"),
        (["rho=0.5"], "perceptual"),
        (["snr_min=9"], "snr_min"),
        (["weighting=l1"], "cdc-eps"),
        (["architecture=cdc-x", "part=entropy"], "cdc-lite"),
        (["part=entropy", "rho=0.5", "perceptual=lpips:vgg"], "entropy"),
        (["part=denoiser"], "perceptual"),
    ],
)
def test_wrong_values_are_named(texts: list[str], message: str) -> None:
    with pytest.raises(InvalidParameter, match=message):
        resolve("lite", {}, texts)


def test_an_unknown_preset_lists_those_there_are() -> None:
    with pytest.raises(InvalidParameter, match="paper-x"):
        resolve("heavy")


def test_the_papers_learning_rate_falls_by_a_fifth_every_100k_steps_down_to_2e_5() -> None:
    config = resolve("paper-x")
    assert learning_rate(config, 0, 0) == 5e-5
    assert learning_rate(config, 99_999, 0) == 5e-5
    assert learning_rate(config, 100_000, 0) == pytest.approx(4e-5)
    assert learning_rate(config, 1_400_000, 0) == 2e-5


def test_the_papers_lambda_is_small_for_500k_steps() -> None:
    config = resolve("paper-eps", {"lambda_target": 0.02})
    assert lambda_of(config, 499_999) == 1e-5
    assert lambda_of(config, 500_000) == 0.02


def test_cosine_warms_up_and_ends_at_its_final_rate() -> None:
    config = resolve("lite", {"steps": 1000, "lr": 1e-3, "lr_final": 1e-6, "lr_warmup": 10})
    assert learning_rate(config, 0, 0) == pytest.approx(1e-4)
    assert learning_rate(config, 500, 0) == pytest.approx(5e-4, rel=0.01)
    assert learning_rate(config, 1000, 0) == pytest.approx(1e-6)


def test_progress_is_by_steps_or_minutes_whichever_is_further() -> None:
    config = resolve("lite", {"steps": 100, "minutes": 10})
    assert progress(config, 50, 60) == 0.5
    assert progress(config, 50, 540) == pytest.approx(0.9)
