from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.torch import load_file

from model.checkpoint import build_networks
from model.codec import Codec
from model.diffusion.schedule import cosine_schedule
from model.evaluation.code_length import code_length
from model.networks.lite import CDCLite
from model.registry import SHIPPED
from model.training.config import resolve
from model.training.ema import Ema
from model.training.losses import draw, level_weight, loss_of
from model.training.start import start_as_klt
from model.training.trainee import LiteTrainee

DEFAULT = SHIPPED / "cdc-lite.safetensors"


@pytest.fixture(scope="module")
def shipped() -> dict[str, torch.Tensor]:
    return {k: t for k, t in load_file(DEFAULT).items() if not k.startswith("entropy.")}


@pytest.fixture
def image(photograph: npt.NDArray[np.uint8]) -> torch.Tensor:
    """float32 [1, 3, 128, 128] in [-1, 1]."""
    part = np.ascontiguousarray(photograph[60:188, 180:308])
    return torch.from_numpy(part).permute(2, 0, 1)[None].float() / 127.5 - 1


def trainee_of(tensors: dict[str, torch.Tensor], *, frozen: bool = False) -> LiteTrainee:
    trainee = LiteTrainee(frozen_codec=frozen)
    trainee.load_float_tensors(tensors, "test")
    return trainee


def one_step(image: torch.Tensor, q: float) -> tuple[torch.Tensor, ...]:
    return image, torch.tensor([q]), torch.zeros_like(image), torch.ones(1)


def test_tensors_keep_the_names_of_a_weights_file(shipped: dict[str, torch.Tensor]) -> None:
    mine = trainee_of(shipped).float_tensors()
    assert mine.keys() == shipped.keys()
    build_networks(mine, "test")
    assert all(torch.equal(mine[k], shipped[k].float()) for k in shipped)


@pytest.mark.parametrize("rate", [20, 128, 230])
def test_the_frozen_codec_is_what_an_encode_writes(
    codec: Codec, shipped: dict[str, torch.Tensor], image: torch.Tensor, rate: int
) -> None:
    pixels = ((image[0].permute(1, 2, 0) + 1) * 127.5).round().to(torch.uint8).numpy()
    latents = codec.analyse(pixels)
    trainee = trainee_of(shipped, frozen=True)
    coded = trainee._code_as_encoded(image, torch.tensor([rate / 255]))
    quantised = codec.quantise(latents, rate)
    same = torch.isclose(coded.y_hat[0], quantised.y_hat, atol=1e-3)
    assert same.float().mean() > 0.995  # a head in integers and one in floats round apart now and then
    ideal = code_length(codec, latents, rate).ideal
    z_bits = float(codec.prior.bits(torch.from_numpy(quantised.hyper).float()[None]).sum())
    assert coded.bits.item() == pytest.approx(ideal - z_bits, rel=0.02)


def test_training_sees_the_rate_of_the_file_from_above(
    codec: Codec, shipped: dict[str, torch.Tensor], image: torch.Tensor
) -> None:
    pixels = ((image[0].permute(1, 2, 0) + 1) * 127.5).round().to(torch.uint8).numpy()
    lengths = code_length(codec, codec.analyse(pixels), 128)
    with torch.no_grad():
        prediction = trainee_of(shipped)(*one_step(image, 128 / 255))
    bits = prediction.rate.item() * pixels[..., 0].size
    assert (
        lengths.rounded_head < bits < 1.3 * lengths.rounded_head
    )  # uniform noise costs more than rounding, at low rates


def test_the_one_step_output_is_the_decoders(
    codec: Codec, shipped: dict[str, torch.Tensor], image: torch.Tensor
) -> None:
    pixels = ((image[0].permute(1, 2, 0) + 1) * 127.5).round().to(torch.uint8).numpy()
    decoded = codec.decode(codec.pack(codec.analyse(pixels), 128), steps=1, gamma=0.0)
    with torch.no_grad():
        output = trainee_of(shipped, frozen=True)(*one_step(image, 128 / 255)).output
    mine = ((output[0].permute(1, 2, 0) + 1) * 127.5).round().clamp(0, 255).numpy()
    assert np.abs(mine - decoded).mean() < 0.5


def test_frozen_parts_get_no_gradient(shipped: dict[str, torch.Tensor], image: torch.Tensor) -> None:
    trainee = trainee_of(shipped, frozen=True)
    trainee(*one_step(image, 0.5)).output.square().mean().backward()
    moved = {k.split(".")[1] for k, p in trainee.named_parameters() if p.grad is not None and p.grad.any()}
    assert moved == {"conditioner", "denoiser", "log_inverse_gain"}


def test_auxiliary_loss_moves_the_quantiles_alone(shipped: dict[str, torch.Tensor]) -> None:
    trainee = trainee_of(shipped)
    trainee.aux_loss().backward()
    assert [k for k, p in trainee.named_parameters() if p.grad is not None] == ["hyper_prior.quantiles"]


def test_lambdas_are_log_linear_between_the_ends(shipped: dict[str, torch.Tensor]) -> None:
    trainee = trainee_of(shipped)
    low, middle, high = trainee.lambdas(torch.tensor([0.0, 0.5, 1.0])).tolist()
    assert low == pytest.approx(shipped["lambdas"][0].item())
    assert high == pytest.approx(shipped["lambdas"][-1].item())
    assert middle == pytest.approx((low * high) ** 0.5, rel=1e-3)


def test_a_klt_start_is_a_codec_before_the_first_step(photograph: npt.NDArray[np.uint8]) -> None:
    rng = np.random.default_rng(0)
    places = rng.integers(0, (photograph.shape[0] - 64, photograph.shape[1] - 64), (96, 2))
    crops = np.stack([photograph[y : y + 64, x : x + 64] for y, x in places])
    images = torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 127.5 - 1
    networks = CDCLite()
    start_as_klt(networks, images)
    trainee = LiteTrainee(networks)
    q = torch.full((8,), 1.0)
    with torch.no_grad():
        output = trainee(images[:8], q, torch.zeros_like(images[:8]), torch.ones(8)).output
    error = (output - images[:8]).square().mean().item()
    assert 10 * np.log10(4 / error) > 26


def test_one_step_rows_start_from_nothing_and_the_others_from_noise(image: torch.Tensor) -> None:
    schedule = cosine_schedule()
    drawn = draw(image.repeat(6, 1, 1, 1), schedule, 0.5)
    assert drawn.one_step.tolist() == [True] * 3 + [False] * 3
    assert not drawn.x[:3].any()
    assert (drawn.n[:3] == schedule.length - 1).all()
    a = drawn.alpha_bar[3:, None, None, None]
    assert torch.allclose(drawn.x[3:], a.sqrt() * drawn.image[3:] + (1 - a).sqrt() * drawn.eps[3:])


def test_level_weight_is_the_clamped_signal_to_noise_ratio() -> None:
    alpha_bar = torch.tensor([0.01, 0.5, 0.99])
    assert level_weight(alpha_bar, 0.3, 5.0).tolist() == pytest.approx([0.3, 1.0, 5.0])


def test_the_loss_is_equation_9(image: torch.Tensor) -> None:
    class Distance(torch.nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return (a - b).abs().flatten(1).mean(1)

    drawn = draw(image.repeat(2, 1, 1, 1), cosine_schedule(), 0.5)
    output, rate, lambdas = torch.zeros_like(drawn.image), torch.tensor([1.0, 2.0]), torch.tensor([0.1, 0.2])
    mse, d = image.square().mean().item(), image.abs().mean().item()
    w = level_weight(drawn.alpha_bar, 0.3, 5.0)[1].item()

    def total(**values: object) -> float:
        config = resolve("lite", {"perceptual": "lpips:vgg", **values})
        return float(loss_of(config, drawn, output, rate, lambdas, Distance()).total)

    def expected(first: float, second: float) -> float:
        return 0.3 * (first / 0.1**0.5 + second / 0.2**0.5) / 2

    assert total() == pytest.approx(expected(mse + 0.1, w * mse + 0.4), rel=1e-4)
    assert total(freeze_codec=True) == pytest.approx(expected(mse, w * mse), rel=1e-4)
    mixed = [0.25 * x * mse + 0.75 * 2 * d for x in (1, w)]
    assert total(rho=0.75, perceptual_scale=2) == pytest.approx(expected(mixed[0] + 0.1, mixed[1] + 0.4), rel=1e-4)
    assert total(rho=0.75, perceptual_scale=2, perceptual_on="diffusion") == pytest.approx(
        expected(mse + 0.1, mixed[1] + 0.4), rel=1e-4
    )


def test_the_average_follows_fast_at_first_and_slowly_later() -> None:
    tensors = {"w": torch.zeros(1), "n": torch.zeros(1, dtype=torch.int64)}
    ema = Ema(tensors, 0.9)
    tensors["w"] += 1
    ema.update(tensors, 1)
    assert ema.tensors["w"].item() == pytest.approx(0.9)
    ema = Ema({"w": torch.zeros(1)}, 0.9)
    ema.update(tensors, 10_000)
    assert ema.tensors["w"].item() == pytest.approx(0.1)


def test_weights_that_do_not_fit_are_refused(shipped: dict[str, torch.Tensor], tmp_path: Path) -> None:
    from model.errors import WeightsError

    with pytest.raises(WeightsError):
        trainee_of({k: t for k, t in shipped.items() if k != "log_gain"})
