from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.torch import load_file

from model.architecture import architecture_of
from model.codec import Codec
from model.diffusion.schedule import cosine_schedule
from model.evaluation.coders.code_length import code_length
from model.networks.lite import CDCLite
from model.perceptual import ShiftedDistance, load_distance
from model.training.config import Learning, resolve
from model.training.ema import Ema
from model.training.lite import LiteTraining
from model.training.losses import draw, equation_9, level_weight, rate_distortion
from model.training.sampler import Levels, Sampled, SamplerTraining, band_scores, haar
from model.training.start import start_as_klt
from model.training.types import Prediction
from model.weights.files import build_networks, with_floats
from model.weights.registry import SHIPPED

DEFAULT = SHIPPED / "cdc-lite.safetensors"


@pytest.fixture(scope="module")
def shipped() -> dict[str, torch.Tensor]:
    return with_floats(load_file(DEFAULT))


@pytest.fixture
def image(photograph: npt.NDArray[np.uint8]) -> torch.Tensor:
    """float32 [1, 3, 128, 128] in [-1, 1]."""
    part = np.ascontiguousarray(photograph[60:188, 180:308])
    return torch.from_numpy(part).permute(2, 0, 1)[None].float() / 127.5 - 1


def training_module_of(tensors: dict[str, torch.Tensor], part: Learning = "all") -> LiteTraining:
    module = SamplerTraining() if part == "denoiser" else LiteTraining(part=part)
    module.load_float_tensors(tensors, "test")
    return module


def pixels_of(image: torch.Tensor) -> npt.NDArray[np.uint8]:
    pixels: npt.NDArray[np.uint8] = ((image[0].permute(1, 2, 0) + 1) * 127.5).round().to(torch.uint8).numpy()
    return pixels


def test_tensors_keep_the_names_of_a_weights_file(shipped: dict[str, torch.Tensor]) -> None:
    mine = training_module_of(shipped).float_tensors()
    assert mine.keys() == shipped.keys()
    build_networks(mine, "test")
    assert all(torch.equal(mine[k], shipped[k].float()) for k in shipped)


def test_a_denoiser_that_the_file_lacks_starts_anew(shipped: dict[str, torch.Tensor], image: torch.Tensor) -> None:
    codec = {k: t for k, t in shipped.items() if not k.startswith(("denoiser.", "log_residual"))}
    module = training_module_of(codec, "denoiser")
    assert module.float_tensors().keys() == shipped.keys()
    assert not any(module.float_tensors()[k].any() for k in ("denoiser.head.weight", "denoiser.gate.weight"))


@pytest.mark.parametrize("rate", [20, 128, 230])
def test_the_frozen_codec_is_what_an_encode_writes(
    codec: Codec, shipped: dict[str, torch.Tensor], image: torch.Tensor, rate: int
) -> None:
    latents, q = codec.analyse(pixels_of(image)), torch.tensor([rate / 255])
    module = training_module_of(shipped, "decoder")
    with torch.no_grad():
        coded = module.code(module.analyse(image, q), q)
    quantised = codec.quantise(latents, rate)
    apart = (coded.y_hat[0] - quantised.y_hat).abs()
    assert (apart < 0.07).float().mean() > 0.98  # integers and floats round apart now and then, and contexts pass it on
    assert apart.mean() < 0.02
    assert coded.bits.item() == pytest.approx(code_length(codec, latents, rate).ideal, rel=0.02)


def test_training_sees_the_rate_of_the_file_from_above(
    codec: Codec, shipped: dict[str, torch.Tensor], image: torch.Tensor
) -> None:
    lengths = code_length(codec, codec.analyse(pixels_of(image)), 128)
    with torch.no_grad():
        prediction = training_module_of(shipped)(image, torch.tensor([128 / 255]))
    bits = prediction.rate.item() * image[0, 0].numel()
    assert lengths.rounded_head < bits < 1.4 * lengths.rounded_head  # noise costs more than rounding, at low rates


def test_the_output_is_the_decoders(codec: Codec, shipped: dict[str, torch.Tensor], image: torch.Tensor) -> None:
    pixels = pixels_of(image)
    decoded = codec.decode(codec.pack(codec.analyse(pixels), 128), steps=1, gamma=0.0)
    with torch.no_grad():
        output = training_module_of(shipped, "decoder")(image, torch.tensor([128 / 255])).output
    mine = ((output[0].permute(1, 2, 0) + 1) * 127.5).round().clamp(0, 255).numpy()
    assert np.abs(mine - decoded).mean() < 1.5  # symbols differ where integers and floats round apart


def moved(module: LiteTraining) -> set[str]:
    """First parts of the names of what has a gradient."""
    names = (k.removeprefix("networks.") for k, p in module.named_parameters() if p.grad is not None and p.grad.any())
    return {name.split(".")[0] for name in names}


def test_parts_learn_alone(shipped: dict[str, torch.Tensor], image: torch.Tensor) -> None:
    q = torch.tensor([0.5])
    module = training_module_of(shipped)
    prediction = module(image, q)
    (prediction.output.square().mean() + prediction.rate.mean()).backward()
    assert moved(module) == {
        "g_a", "g_s", "hyper_encoder", "hyper_decoder", "context", "log_gain", "log_shrink", "hyper_prior"
    }  # fmt: skip
    module = training_module_of(shipped, "decoder")
    module(image, q).output.square().mean().backward()
    assert moved(module) == {"g_s", "log_shrink"}
    module = training_module_of(shipped, "entropy")
    prediction = module(image, torch.tensor([0.1, 0.5, 1.0]))
    assert prediction.output is None
    assert prediction.rate[0] < prediction.rate[1] < prediction.rate[2]
    prediction.rate.sum().backward()
    assert moved(module) == {"hyper_decoder", "context", "hyper_prior"}


def test_the_sampler_learns_alone(shipped: dict[str, torch.Tensor], image: torch.Tensor, squeezenet: str) -> None:
    module = training_module_of(shipped, "denoiser")
    config = resolve("lite-sampler", {"perceptual": squeezenet, "rollouts": 0.5, "levels_scale": 1.0})
    schedule = architecture_of("cdc-lite").schedule()
    levels = []

    def call(images: torch.Tensor, q: torch.Tensor, *rest: Levels) -> Sampled:
        levels.extend(rest)
        sampled: Sampled = module(images, q, *rest)
        return sampled

    distance = ShiftedDistance(load_distance(squeezenet))
    loss = module.loss(call, image.repeat(4, 1, 1, 1), config, schedule, 0, distance)
    loss.total.backward()
    assert moved(module) == {"denoiser"}
    assert float(loss.distortion) > 0
    _, pure, early, late = levels
    assert [len(level.t) for level in levels] == [2, 2, 2, 2]
    assert pure.t.tolist() == [1, 1]
    assert ((early.t <= 1) & (late.t <= early.t)).all()


def test_a_rollout_is_a_decode_of_several_steps(shipped: dict[str, torch.Tensor], image: torch.Tensor) -> None:
    module, schedule = training_module_of(shipped, "denoiser"), architecture_of("cdc-lite").schedule()
    indices = torch.tensor([schedule.length - 1, 6000, 2000])
    pure, early, late = (Levels((n[None] + 1) / schedule.length, schedule.at(n[None])) for n in indices)
    nothing, q = Levels(torch.zeros(0), torch.zeros(0)), torch.tensor([0.2])
    torch.manual_seed(5)
    with torch.no_grad():
        sampled: Sampled = module(image, q, nothing, pure, early, late)
    torch.manual_seed(5)
    state, _ = torch.randn(2, *image.shape)
    with torch.no_grad():
        _, context = module.synthesise(module.code(module.analyse(image, q), q), q)
        for index, after in ((indices[0], indices[1]), (indices[1], indices[2]), (indices[2], torch.tensor(-1))):
            modulation = module.networks.denoiser.modulate((index[None] + 1) / schedule.length, q)
            at, to = schedule.at(index), schedule.at(after)
            v0 = module.networks.denoise(state, modulation, (context,))
            state = to.sqrt() * v0 + (1 - to).sqrt() * (state - at.sqrt() * v0) / (1 - at).sqrt()
    torch.testing.assert_close(sampled.first, state, atol=1e-3, rtol=1e-3)


def test_a_sample_of_the_trainer_is_the_decoders(
    codec: Codec, shipped: dict[str, torch.Tensor], image: torch.Tensor
) -> None:
    """One step from given noise, on what the same file holds."""
    unpacked = codec.unpack(codec.pack(codec.analyse(pixels_of(image)), 60))
    state = codec.start(unpacked, 1, 1.0)
    noise = state.x.clone()
    codec.denoise_step(state)
    module, q = training_module_of(shipped, "denoiser"), torch.tensor([60 / 255])
    with torch.no_grad():
        parts = (unpacked.quantised.y_hat, unpacked.quantised.means / 16, unpacked.quantised.indices.float())
        latents = module.networks.dequantise(*(p[None] for p in parts), q)
        base, context = module.networks.inject(latents, q)
        modulation = module.networks.denoiser.modulate(torch.ones(1), q)
        v = module.networks.denoise(noise[None], modulation, (context,))
        expected = base + module.networks.residual_size(q) * v
    assert state.base is not None
    torch.testing.assert_close((state.base + state.gain * state.x)[None], expected, atol=1e-4, rtol=0)


def test_the_residual_is_measured(shipped: dict[str, torch.Tensor], image: torch.Tensor) -> None:
    module = SamplerTraining()
    module.load_float_tensors(shipped, "test")
    module.measure_residual(image)
    sizes = module.networks.residual_size(torch.linspace(0, 1, 12))
    assert bool((sizes[1:] < sizes[:-1]).all())
    with torch.no_grad():
        q = torch.tensor([0.0])
        base, _ = module.synthesise(module.code(module.analyse(image, q), q), q)
    assert float(sizes[0]) == pytest.approx(float((image - base).square().mean().sqrt()), rel=1e-4)


def test_samples_as_strong_as_the_residual_score_best() -> None:
    """Of noise of several strengths about white residuals, that of the right one has the least score."""
    torch.manual_seed(0)
    residual, first, second = torch.randn(3, 16, 3, 64, 64)
    scores = [float(band_scores(a * first, a * second, residual).mean()) for a in (0.0, 0.9, 2.0)]
    assert min(scores) == scores[1]
    low, high = haar(residual)
    assert float(low.square().sum() + high.square().sum()) == pytest.approx(float(residual.square().sum()), rel=1e-5)


def test_auxiliary_loss_moves_the_quantiles_alone(shipped: dict[str, torch.Tensor]) -> None:
    module = training_module_of(shipped)
    module.aux_loss().backward()
    assert [k for k, p in module.named_parameters() if p.grad is not None] == ["hyper_prior.quantiles"]


def test_lambdas_are_log_linear_between_the_ends(shipped: dict[str, torch.Tensor]) -> None:
    low, middle, high = training_module_of(shipped).lambdas(torch.tensor([0.0, 0.5, 1.0])).tolist()
    assert (low, high) == (pytest.approx(0.45), pytest.approx(0.00015))
    assert middle == pytest.approx((low * high) ** 0.5, rel=1e-3)


def test_a_klt_start_is_a_codec_before_the_first_step(photograph: npt.NDArray[np.uint8]) -> None:
    rng = np.random.default_rng(0)
    places = rng.integers(0, (photograph.shape[0] - 64, photograph.shape[1] - 64), (96, 2))
    crops = np.stack([photograph[y : y + 64, x : x + 64] for y, x in places])
    images = torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 127.5 - 1
    networks = CDCLite()
    start_as_klt(networks, images)
    with torch.no_grad():
        output = LiteTraining(networks)(images[:8], torch.full((8,), 1.0)).output
    error = (output - images[:8]).square().mean().item()
    assert 10 * np.log10(4 / error) > 30


def test_noise_is_added_as_in_equation_2(image: torch.Tensor) -> None:
    drawn = draw(image.repeat(6, 1, 1, 1), cosine_schedule())
    a = drawn.alpha_bar[:, None, None, None]
    assert torch.allclose(drawn.x, a.sqrt() * drawn.image + (1 - a).sqrt() * drawn.eps)


def test_level_weight_is_the_clamped_signal_to_noise_ratio() -> None:
    alpha_bar = torch.tensor([0.01, 0.5, 0.99])
    assert level_weight(alpha_bar, 0.3, 5.0).tolist() == pytest.approx([0.3, 1.0, 5.0])


class MeanDistance(torch.nn.Module):
    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (a - b).abs().flatten(1).mean(1)


def test_the_loss_is_equation_9(image: torch.Tensor) -> None:
    drawn = draw(image.repeat(2, 1, 1, 1), cosine_schedule())
    prediction = Prediction(torch.zeros_like(drawn.image), torch.tensor([1.0, 2.0]))
    mse, d = image.square().mean().item(), image.abs().mean().item()
    w = level_weight(drawn.alpha_bar, 0.0, 5.0).mean().item()

    def total(**values: object) -> float:
        config = resolve("paper-x", {"perceptual": "lpips:vgg", **values})
        return float(equation_9(config, drawn, prediction, 0.1, MeanDistance()).total)

    assert total() == pytest.approx(w * mse + 0.15, rel=1e-4)
    assert total(part="decoder") == pytest.approx(w * mse, rel=1e-4)
    assert total(rho=0.75, perceptual_scale=2) == pytest.approx(0.25 * w * mse + 0.75 * 2 * d + 0.15, rel=1e-4)


def test_rates_count_alike(image: torch.Tensor) -> None:
    """D + lambda R over sqrt(lambda)."""
    images, lambdas = image.repeat(2, 1, 1, 1), torch.tensor([0.1, 0.2])
    prediction = Prediction(torch.zeros_like(images), torch.tensor([1.0, 2.0]))
    mse, d = image.square().mean().item(), image.abs().mean().item()

    def total(output: Prediction = prediction, **values: object) -> float:
        config = resolve("lite", {"perceptual": "lpips:vgg", **values})
        return float(rate_distortion(config, images, output, lambdas, MeanDistance()).total)

    def expected(first: float, second: float) -> float:
        return (first / 0.1**0.5 + second / 0.2**0.5) / 2

    assert total() == pytest.approx(expected(mse + 0.1, mse + 0.4), rel=1e-4)
    assert total(part="decoder") == pytest.approx(expected(mse, mse), rel=1e-4)
    assert total(Prediction(None, prediction.rate), part="entropy") == pytest.approx(expected(0.1, 0.4), rel=1e-4)
    weighed = expected(0.25 * mse + 0.1, 0.25 * mse + 0.4) + 0.75 * 2 * d  # d alike at every rate
    assert total(rho=0.75, perceptual_scale=2) == pytest.approx(weighed, rel=1e-4)


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
