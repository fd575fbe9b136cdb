from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.torch import load_file

from model.checkpoint import build_networks, with_floats
from model.codec import Codec
from model.diffusion.schedule import Schedule, cosine_schedule
from model.evaluation.code_length import code_length
from model.networks.lite import CDCLite
from model.registry import SHIPPED
from model.training.config import Learning, resolve
from model.training.ema import Ema
from model.training.losses import draw, level_weight, loss_of
from model.training.module import LiteTraining
from model.training.start import start_as_klt
from model.training.types import Rule, Walk

DEFAULT = SHIPPED / "cdc-lite.safetensors"


@pytest.fixture(scope="module")
def shipped() -> dict[str, torch.Tensor]:
    return with_floats(load_file(DEFAULT))


@pytest.fixture
def image(photograph: npt.NDArray[np.uint8]) -> torch.Tensor:
    """float32 [1, 3, 128, 128] in [-1, 1]."""
    part = np.ascontiguousarray(photograph[60:188, 180:308])
    return torch.from_numpy(part).permute(2, 0, 1)[None].float() / 127.5 - 1


def training_module_of(
    tensors: dict[str, torch.Tensor], *, frozen: bool = False, part: Learning = "all"
) -> LiteTraining:
    module = LiteTraining(part="decoder" if frozen else part)
    module.load_float_tensors(tensors, "test")
    return module


def one_step(image: torch.Tensor, q: float) -> tuple[torch.Tensor, ...]:
    return image, torch.tensor([q]), torch.zeros_like(image), torch.ones(1)


def test_tensors_keep_the_names_of_a_weights_file(shipped: dict[str, torch.Tensor]) -> None:
    mine = training_module_of(shipped).float_tensors()
    assert mine.keys() == shipped.keys()
    build_networks(mine, "test")
    assert all(torch.equal(mine[k], shipped[k].float()) for k in shipped)


@pytest.mark.parametrize("rate", [20, 128, 230])
def test_the_frozen_codec_is_what_an_encode_writes(
    codec: Codec, shipped: dict[str, torch.Tensor], image: torch.Tensor, rate: int
) -> None:
    pixels = ((image[0].permute(1, 2, 0) + 1) * 127.5).round().to(torch.uint8).numpy()
    latents = codec.analyse(pixels)
    module = training_module_of(shipped, frozen=True)
    coded = module._code_as_encoded(module.networks.encoder(image), torch.tensor([rate / 255]))
    quantised = codec.quantise(latents, rate)
    apart = (coded.y_hat[0] - quantised.y_hat).abs()
    assert (apart < 0.07).float().mean() > 0.99  # integers and floats round apart now and then, and contexts pass it on
    assert apart.mean() < 0.01
    ideal = code_length(codec, latents, rate).ideal
    z_bits = float(codec.prior.bits(torch.from_numpy(quantised.hyper).float()[None]).sum())
    assert coded.bits.item() == pytest.approx(ideal - z_bits, rel=0.02)


def test_training_sees_the_rate_of_the_file_from_above(
    codec: Codec, shipped: dict[str, torch.Tensor], image: torch.Tensor
) -> None:
    pixels = ((image[0].permute(1, 2, 0) + 1) * 127.5).round().to(torch.uint8).numpy()
    lengths = code_length(codec, codec.analyse(pixels), 128)
    with torch.no_grad():
        prediction = training_module_of(shipped)(*one_step(image, 128 / 255))
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
        output = training_module_of(shipped, frozen=True)(*one_step(image, 128 / 255)).output
    mine = ((output[0].permute(1, 2, 0) + 1) * 127.5).round().clamp(0, 255).numpy()
    assert np.abs(mine - decoded).mean() < 1  # symbols differ where integers and floats round apart


def test_frozen_parts_get_no_gradient(shipped: dict[str, torch.Tensor], image: torch.Tensor) -> None:
    module = training_module_of(shipped, frozen=True)
    module(*one_step(image, 0.5)).output.square().mean().backward()
    moved = {k.split(".")[1] for k, p in module.named_parameters() if p.grad is not None and p.grad.any()}
    assert moved == {"conditioner", "denoiser", "log_inverse_gain"}


def walk(schedule: Schedule, levels: tuple[int, ...], n: int) -> Walk:
    passed = torch.tensor(levels)
    return Walk(1, (passed + 1) / schedule.length, schedule.at(torch.tensor([*levels, n])))


def test_a_walk_is_the_decoders(codec: Codec, shipped: dict[str, torch.Tensor], image: torch.Tensor) -> None:
    pixels = ((image[0].permute(1, 2, 0) + 1) * 127.5).round().to(torch.uint8).numpy()
    state = codec.start(codec.unpack(codec.pack(codec.analyse(pixels), 128)), steps=5, gamma=0.8)
    start = state.x.clone()
    for _ in range(3):
        codec.denoise_step(state)
    schedule, module = cosine_schedule(), training_module_of(shipped, frozen=True)
    indices = schedule.indices(5)
    levels = walk(schedule, indices[:3], indices[3])
    with torch.no_grad():
        y_hat = module._code_as_encoded(module.networks.encoder(image), torch.tensor([128 / 255])).y_hat
        q = torch.tensor([0.1, 128 / 255])
        context = module.networks.inject(module._ungained(y_hat.repeat(2, 1, 1, 1), q))
        x = module._take(levels, torch.stack([torch.zeros_like(start), start]), q, context)
    assert not x[0].any()  # rows before the walking ones stay
    assert float((x[1] - state.x).abs().mean()) < 0.01  # symbols differ where integers and floats round apart


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_walk_leaves_the_gradient_of_the_last_step(
    shipped: dict[str, torch.Tensor], image: torch.Tensor, dtype: torch.dtype
) -> None:
    schedule, module = cosine_schedule(), training_module_of(shipped, part="denoiser")
    part = image[..., :64, :64]
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        arguments = (part, torch.tensor([0.5]), torch.randn_like(part), torch.tensor([0.5]))
        output = module(*arguments, walk(schedule, (8192,), 4095)).output
    output.square().mean().backward()
    learning = {k for k, p in module.named_parameters() if p.requires_grad}
    assert {k.split(".")[1] for k in learning} == {"denoiser"}
    assert not [k for k, p in module.named_parameters() if k in learning and (p.grad is None or not p.grad.any())]


def test_the_entropy_model_learns_alone_by_rate(shipped: dict[str, torch.Tensor], image: torch.Tensor) -> None:
    module = LiteTraining(part="entropy")
    module.load_float_tensors(shipped, "test")
    q = torch.tensor([0.0, 0.5, 1.0])
    prediction = module(image, q, torch.zeros_like(image), torch.ones(1))
    assert prediction.output is None
    assert prediction.rate.shape == (3,)
    assert prediction.rate[0] < prediction.rate[1] < prediction.rate[2]
    drawn = draw(image, cosine_schedule(), 1.0)
    lambdas = module.lambdas(q)
    loss = loss_of(resolve("lite", {"part": "entropy"}), drawn, None, prediction.rate, lambdas, None)
    assert loss.total.item() == pytest.approx(0.3 * float((lambdas.sqrt() * prediction.rate.detach()).mean()))
    loss.total.backward()
    moved = {
        k.split(".")[-1 if k.startswith("hyper") else 1] for k, p in module.named_parameters() if p.grad is not None
    }
    assert {"hyper_encoder", "hyper_decoder", "context"} < moved
    assert not {"encoder", "conditioner", "denoiser", "log_gain", "log_inverse_gain"} & moved


def test_weights_without_context_start_with_idle_corrections(
    shipped: dict[str, torch.Tensor], image: torch.Tensor
) -> None:
    before = {k: t for k, t in shipped.items() if not k.startswith("context.")}
    module = training_module_of(before)
    z_hat, q, y = torch.randn(1, 128, 2, 2), torch.tensor([0.3]), torch.randn(1, 192, 8, 8)
    prior = module._prior(z_hat, q, y, Rule(lambda residual, _: residual.round(), as_coded=False))
    torch.testing.assert_close(prior.mean, module.networks.hyper_decoder(z_hat)[:, :192])
    assert float((prior.y_hat - y).detach().abs().max()) <= 0.5 + 1e-5


@pytest.mark.parametrize("part", ["decoder", "denoiser"])
def test_a_decoder_for_files_without_context_gets_none(
    shipped: dict[str, torch.Tensor], image: torch.Tensor, part: Learning
) -> None:
    before = {k: t for k, t in shipped.items() if not k.startswith("context.")}
    module = training_module_of(before, part=part)
    assert module.float_tensors().keys() == before.keys()
    assert module(*one_step(image, 0.5)).output.isfinite().all()


def test_auxiliary_loss_moves_the_quantiles_alone(shipped: dict[str, torch.Tensor]) -> None:
    module = training_module_of(shipped)
    module.aux_loss().backward()
    assert [k for k, p in module.named_parameters() if p.grad is not None] == ["hyper_prior.quantiles"]


def test_lambdas_are_log_linear_between_the_ends(shipped: dict[str, torch.Tensor]) -> None:
    module = training_module_of(shipped)
    low, middle, high = module.lambdas(torch.tensor([0.0, 0.5, 1.0])).tolist()
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
    module = LiteTraining(networks)
    q = torch.full((8,), 1.0)
    with torch.no_grad():
        output = module(images[:8], q, torch.zeros_like(images[:8]), torch.ones(8)).output
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


def test_rollouts_start_as_decodes_do(image: torch.Tensor) -> None:
    schedule = cosine_schedule()
    lengths = set()
    for seed in range(40):
        torch.manual_seed(seed)
        drawn = draw(image.repeat(4, 1, 1, 1), schedule, 0.5, rollout=3)
        assert not drawn.x[:2].any()
        assert (drawn.n[:2] == schedule.length - 1).all()
        gamma = drawn.x[2:].flatten(1).std(1)
        assert ((gamma > 0) & (gamma < 1.02)).all()
        levels = [*drawn.path, int(drawn.n[2])]
        assert levels == sorted(levels, reverse=True)
        assert levels[0] == schedule.length - 1
        assert (drawn.alpha_bar[2:] == schedule.at(drawn.n[2])).all()
        lengths.add(len(drawn.path))
    assert lengths == {0, 1, 2, 3}


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
    assert total(part="decoder") == pytest.approx(expected(mse, w * mse), rel=1e-4)
    assert total(rollout=4) == pytest.approx(expected(mse + 0.1, mse + 0.4), rel=1e-4)
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
        training_module_of({k: t for k, t in shipped.items() if k != "log_gain"})
