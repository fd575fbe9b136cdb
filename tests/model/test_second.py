"""The second generation: a small random model of the family, and agreement with its trainer where that is shared."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from model.architecture import architecture_of
from model.checkpoint import export_weights, load_weights, read_info, with_floats
from model.codec import Codec
from model.entropy.entropy_model import EntropyModel
from model.entropy.likelihood import WIDE_LEVELS, FactorizedPrior, gaussian_bits
from model.entropy.passes import Pass
from model.entropy.scale_head import ACTIVATION_LIMIT, WEIGHT_LIMIT, IntegerLayer
from model.errors import CorruptStream, InvalidParameter, WeightsError
from model.evaluation.coders import Mode, models
from model.networks.depthwise import image_of_means, split_means
from model.networks.second import CDCSecond, SecondConfig
from model.rate_control import pack_to_target
from model.tiling import Tiling

NAME = "cdc-lite-2"
SMALL = SecondConfig(
    widths=(16, 24),
    latents=24,
    analysis=(1, 2),
    synthesis=(2, 1),
    levels=3,
    hyper=8,
    groups=(4, 4, 6, 10),
    context=12,
)


def small_tensors(config: SecondConfig = SMALL) -> dict[str, Tensor]:
    """Float tensors by a trainer's names. Those of the integer half are fractions that any machine exports alike."""
    torch.manual_seed(11)
    networks = CDCSecond(config)
    prior = FactorizedPrior(config.hyper, init_scale=3.0)
    with torch.no_grad():
        for name, parameter in networks.named_parameters():
            if name.startswith(("hyper_decoder", "context")):
                parameter.copy_(torch.randint(-32, 33, parameter.shape) / 256)
            elif name.startswith("g_") and name.endswith("weight"):
                parameter.normal_(std=0.3 * parameter[0].numel() ** -0.5)
            elif name.startswith("log_"):
                parameter.add_(torch.randint(-8, 9, parameter.shape) / 64)
        networks.log_gain.copy_((networks.log_gain * 64).round() / 64)
        last = networks.hyper_decoder[-1].bias
        assert isinstance(last, Tensor)
        last[config.latents :] += torch.arange(config.latents) * 2 - 6
        for bias in prior.biases:
            bias.copy_((bias * 64).round() / 64)
    return {**networks.state_dict(), **{f"hyper_prior.{k}": v for k, v in prior.state_dict().items()}}


def export(tensors: dict[str, Tensor], path: Path, version: int = 0) -> Path:
    export_weights(tensors, path, name=NAME, version=version, provenance="a test", architecture=NAME)
    return path


@pytest.fixture(scope="module")
def small_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(small_tensors(), tmp_path_factory.mktemp("second") / "small.safetensors")


@pytest.fixture(scope="module")
def small(small_file: Path) -> Codec:
    return Codec(load_weights(small_file), "float32")


@pytest.fixture(scope="module")
def trained(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Codec:
    """The trainer's weights as a model."""
    source = shared_data / "weights" / "second-generation.safetensors"
    if not source.exists():
        pytest.skip(f"{source} is not there")
    return Codec(
        load_weights(export(load_file(source), tmp_path_factory.mktemp("trained") / "t.safetensors")), "float32"
    )


# Networks -----------------------------------------------------------------------------------------------------------


def test_block_means_and_the_rest_make_the_image() -> None:
    image = torch.rand(2, 3, 48, 32) * 2 - 1
    means, rest = split_means(image)
    torch.testing.assert_close(image_of_means(means) + rest, image, atol=1e-6, rtol=0)
    torch.testing.assert_close(
        rest.unfold(2, 16, 16).unfold(3, 16, 16).mean((4, 5)), torch.zeros(2, 3, 3, 2), atol=1e-6, rtol=0
    )
    flat = torch.full((1, 3, 16, 16), 0.5)
    assert split_means(flat)[0].square().sum() == pytest.approx(float(flat.square().sum()))  # orthonormal


def test_default_sizes_are_those_of_the_design() -> None:
    with torch.device("meta"):
        networks = CDCSecond()
    analysis, synthesis = (sum(p.numel() for p in part.parameters()) for part in (networks.g_a, networks.g_s))
    assert networks.config.groups == (16, 32, 80, 192)
    assert analysis == pytest.approx(4.03e6, rel=0.01)
    assert synthesis == pytest.approx(5.53e6, rel=0.01)
    assert networks.log_gain.shape == networks.log_shrink.shape == (12, 320)


def test_a_new_block_is_the_identity() -> None:
    networks = CDCSecond(SMALL)
    x = torch.rand(1, 24, 4, 5)
    assert torch.equal(networks.g_a.coarse(x), x)


def test_sizes_are_read_off_the_tensors() -> None:
    tensors = small_tensors()
    assert SecondConfig.of_tensors(tensors) == SMALL
    for name in ("g_a.stem.weight", "log_gain", "hyper_encoder.0.weight"):
        with pytest.raises(WeightsError, match=name):
            SecondConfig.of_tensors({k: v for k, v in tensors.items() if k != name})
    with pytest.raises(WeightsError, match="context"):
        SecondConfig.of_tensors({k: v for k, v in tensors.items() if not k.startswith("context")})
    with pytest.raises(WeightsError, match="wrong shape"):
        SecondConfig.of_tensors(
            tensors | {"g_s.head.weight": tensors["g_s.head.weight"], "g_a.down.weight": torch.zeros(4096, 1)}
        )


# Weights ------------------------------------------------------------------------------------------------------------


def test_exporting_again_gives_the_same_integers(small_file: Path, tmp_path: Path) -> None:
    stored = load_file(small_file)
    again = export(stored, tmp_path / "again.safetensors")
    assert read_info(again).codec_id == read_info(small_file).codec_id
    assert all(torch.equal(t, load_file(again)[k]) for k, t in stored.items())
    assert {k.split(".")[0] for k in stored} == {
        "entropy",
        "g_a",
        "g_s",
        "hyper_encoder",
        "hyper_prior",
        "log_gain",
        "log_shrink",
    }
    assert stored["g_s.stem.weight"].dtype == torch.float16
    exact = ("log_gain", "log_shrink", "g_a.log_rate", "g_s.log_rate", "hyper_prior.biases.0")
    assert {stored[name].dtype for name in exact} == {torch.float32}


def test_codec_id_covers_exactly_what_decides_bytes(small_file: Path, tmp_path: Path) -> None:
    floats, original = with_floats(load_file(small_file)), read_info(small_file).codec_id
    for name in ("g_a.head.weight", "g_s.head.weight", "g_s.prior.weight", "log_shrink", "hyper_encoder.0.weight"):
        path = export(floats | {name: floats[name] * 1.5 + 0.1}, tmp_path / "same.safetensors")
        assert read_info(path).codec_id == original, name
    for name in ("hyper_decoder.4.weight", "context.nets.6.head.bias", "log_gain", "hyper_prior.quantiles"):
        path = export(floats | {name: floats[name] * 1.5 + 0.1}, tmp_path / "other.safetensors")
        assert read_info(path).codec_id != original, name


def test_no_sum_of_the_integer_half_can_leave_the_exact_range(small: Codec) -> None:
    """The widest matrix with the largest weights stays below 2**53; the export asserts it of every layer."""
    config = SecondConfig()
    inputs = 9 * config.latents + 3 * config.hyper // 2 + 1  # windows, features, rate

    def widest(inputs: int) -> IntegerLayer:
        kernel, one = np.full((1, inputs), WEIGHT_LIMIT, np.int16), np.ones(1, np.int64)
        return IntegerLayer(kernel, one << 40, one * 16, True, ACTIVATION_LIMIT)

    widest(inputs).check(ACTIVATION_LIMIT, inputs=inputs, matrix=True)
    with pytest.raises(WeightsError, match="exact range"):
        widest(8 * inputs).check(ACTIVATION_LIMIT, inputs=8 * inputs, matrix=True)
    assert [layer.reach for layer in small.entropy.head.layers] == [1, 1, 0]


def test_command_writes_an_installable_file(tmp_path: Path) -> None:
    save_file(small_tensors(), tmp_path / "run.safetensors")
    argv = [
        "weights",
        "export",
        str(tmp_path / "run.safetensors"),
        str(tmp_path / "m.safetensors"),
        "--architecture",
        NAME,
    ]
    run = subprocess.run([sys.executable, "-m", "cdc_client", *argv], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert read_info(tmp_path / "m.safetensors").architecture == NAME


# Exactness ----------------------------------------------------------------------------------------------------------


def symbols(shape: tuple[int, ...], largest: int, seed: int = 0) -> np.ndarray:
    """Integers that no library's generator decides."""
    flat = (np.arange(int(np.prod(shape)), dtype=np.int64) + 977 * seed) * 2654435761 % 2**32 >> 13
    return (flat % (2 * largest + 1) - largest).astype(np.int32).reshape(shape)


def stream_digest(codec: Codec) -> str:
    """SHA-256 over streams, means and scale indices of fixed symbols at three rates."""
    digest, entropy = hashlib.sha256(), codec.entropy
    hyper, latent = symbols((SMALL.hyper, 3, 5), 20), symbols((SMALL.latents, 12, 20), 9, seed=2)
    latent[:2] *= 60  # block means are large
    for rate in (0, 127, 255):
        sent, means, indices = entropy.choose_latent(
            torch.from_numpy(latent).float(), hyper, rate, rate_distortion=False
        )
        silent = indices.numpy() < entropy.silent
        assert silent.any() or rate
        assert not sent[silent].any()
        stream = entropy.encode_latent(sent, indices)
        decoded = entropy.decode_latent(stream, hyper, rate)
        np.testing.assert_array_equal(decoded[0], sent)
        assert torch.equal(decoded[1], means)
        assert torch.equal(decoded[2], indices)
        digest.update(entropy.encode_hyper(hyper) + stream)
        digest.update(means.numpy().astype("<i4").tobytes() + indices.numpy().tobytes())
    return digest.hexdigest()


GOLDEN_STREAM = "53b4d63b73af2912333e61ebf8f0bd77bf9914c68a745c7c5108631846b33677"


def test_golden_streams(small: Codec, threads: int) -> None:
    assert stream_digest(small) == GOLDEN_STREAM


def test_golden_streams_in_a_fresh_process(small_file: Path) -> None:
    script = (
        "import sys, pathlib; sys.path.insert(0, sys.argv[1]); from test_second import *\n"
        "print(stream_digest(Codec(load_weights(pathlib.Path(sys.argv[2])), 'float32')))"
    )
    argv = [sys.executable, "-c", script, str(Path(__file__).parent), str(small_file)]
    assert subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip() == GOLDEN_STREAM


def test_symbols_that_are_not_coded_must_be_zero(small: Codec) -> None:
    entropy = small.entropy
    hyper = symbols((SMALL.hyper, 1, 1), 20)
    latent, _, indices = entropy.choose_latent(torch.zeros(SMALL.latents, 4, 4), hyper, 0, rate_distortion=True)
    silent = np.argwhere(indices.numpy() < entropy.silent)
    assert len(silent)
    latent[tuple(silent[0])] = 1
    with pytest.raises(ValueError, match="not zero"):
        entropy.encode_latent(latent, indices)


@pytest.mark.parametrize("silent", [[64], [-1], [1, 1]])
def test_silent_indices_are_checked(small: Codec, silent: list[int]) -> None:
    tensors = small.entropy.to_tensors()
    assert tensors["silent"].tolist() == [1]
    without = EntropyModel.from_tensors({k: v for k, v in tensors.items() if k != "silent"})
    assert without.codec_id != small.codec_id
    with pytest.raises(WeightsError, match="silent"):
        EntropyModel.from_tensors({**tensors, "silent": np.array(silent, np.int32)})


# The codec ----------------------------------------------------------------------------------------------------------


def test_a_file_carries_what_the_encoder_saw(small: Codec, crop: np.ndarray) -> None:
    for rate in (0, 77, 255):
        sent = small.quantise(small.analyse(crop), rate)
        got = small.unpack(small.pack(small.analyse(crop), rate)).quantised
        np.testing.assert_array_equal(got.hyper, sent.hyper)
        np.testing.assert_array_equal(got.latent, sent.latent)
        assert torch.equal(got.means, sent.means)
        assert torch.equal(got.indices, sent.indices)


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (63, 65), (64, 64), (17, 129)])
def test_any_size_round_trips(small: Codec, photograph: np.ndarray, size: tuple[int, int]) -> None:
    pixels = photograph[: size[0], : size[1]]
    decoded = small.decode(small.pack(small.analyse(pixels), 255))
    assert decoded.shape == pixels.shape


def test_rates_share_one_analysis(small: Codec, crop: np.ndarray) -> None:
    latents = small.analyse(crop)
    sizes = [len(pack_to_target(small, latents, quality=q).data) for q in (1, 50, 100)]
    assert sizes[0] < sizes[1] < sizes[2]
    assert latents.features.shape[0] == small.networks.features == 3 + SMALL.widths[1]


def test_one_step_without_noise_is_the_synthesis_own_image(
    small: Codec, crop: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(small, "denoise_tiles", None)  # never called
    unpacked = small.unpack(small.pack(small.analyse(crop), 128))
    state = small.start(unpacked, keep_x0=True)
    assert (state.steps, state.position, state.direct, state.done) == (1, 0, True, False)
    small.denoise_step(state)
    assert state.done
    q = torch.tensor([128 / 255])
    parts = (unpacked.quantised.y_hat, unpacked.quantised.means / 16, unpacked.quantised.indices.float())
    with torch.no_grad():
        base = small.networks.inject(small.networks.dequantise(*(p[None] for p in parts), q), q)[0][0]
    np.testing.assert_array_equal(small.finish(state), small.decode(small.pack(small.analyse(crop), 128), 1, 0.0))
    torch.testing.assert_close(state.x[:, :64, :64], base[:, :64, :64], atol=1e-5, rtol=0)
    np.testing.assert_array_equal(small.preview(state), small.finish(state))


def test_what_no_denoiser_was_trained_for_is_refused(small: Codec, crop: np.ndarray) -> None:
    assert (small.default_steps, small.max_steps, small.default_gamma) == (1, 1, 0.0)
    unpacked = small.unpack(small.pack(small.analyse(crop), 0))
    with pytest.raises(InvalidParameter, match=r"'cdc-lite-2' takes 1\.\.1 steps, not 2"):
        small.start(unpacked, 2)
    with pytest.raises(InvalidParameter, match=r"gamma must be 0, not 0\.8"):
        small.start(unpacked, 1, 0.8)


def test_rows_of_different_rates_share_a_pass(small: Codec, photograph: np.ndarray) -> None:
    pictures = [photograph[100 * k : 100 * k + 100, 200:320] for k in range(3)]
    files = [small.pack(small.analyse(p), rate) for p, rate in zip(pictures, (10, 120, 250), strict=True)]
    states = [small.start(small.unpack(f)) for f in files]
    small.condition_tiles([(s, 0) for s in states])
    for state, file in zip(states, files, strict=True):
        assert state.done
        difference = np.abs(small.finish(state).astype(int) - small.decode(file))
        assert difference.max() <= 1


def test_tiled_equals_whole(small: Codec, photograph: np.ndarray) -> None:
    """At a margin beyond the receptive radius tiles change nothing but the last bits of float sums."""
    wide = np.ascontiguousarray(np.tile(photograph[100:164], (1, 3, 1))[:, :1216])
    small.tiling = Tiling(2048)
    whole = small.analyse(wide)
    unpacked = small.unpack(small.pack(whole, 128))
    one = small.start(unpacked)
    small.tiling = Tiling(640, 160, architecture_of(NAME).tiling.encoder_margin)
    try:
        tiled, several = small.analyse(wide), small.start(unpacked)
    finally:
        small.tiling = architecture_of(NAME).tiling
    torch.testing.assert_close(tiled.features, whole.features, atol=1e-5, rtol=0)
    for state in (one, several):
        small.denoise_step(state)
    assert len(several.tiles) == 3
    torch.testing.assert_close(several.x, one.x, atol=1e-5, rtol=0)


def test_hostile_streams_are_refused_or_give_symbols(small: Codec) -> None:
    hyper, rng, refused = symbols((SMALL.hyper, 1, 1), 40), np.random.default_rng(3), 0
    for _ in range(100):
        try:
            latent, _, indices = small.entropy.decode_latent(rng.bytes(int(rng.integers(0, 200))), hyper, 100)
        except CorruptStream:
            refused += 1
            continue
        assert np.abs(latent).max() <= 1 << 15
        assert not latent[indices.numpy() < small.entropy.silent].any()
    assert refused > 50


def test_evaluation_leaves_out_what_the_model_cannot_do(small_file: Path) -> None:
    modes = (Mode(1, 0.0), Mode(17, 0.0), Mode(1, 0.8))
    (model,) = models([NAME], [50], modes, small_file.parent)
    assert model.points == [{"quality": 50, "steps": 1, "gamma": 0.0}]


# Agreement with the trainer -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [40, 200])
def test_agreement_with_the_trainers_tensors(trained: Codec, shared_data: Path, rate: int) -> None:
    """One crop at two rates. The trainer rounds neither means nor indices, so a part is given what it gave the part."""
    expected = load_file(shared_data / "weights" / "second-generation_expected.safetensors")
    e = {k.split(".", 1)[1]: v for k, v in expected.items() if k.startswith(f"rate{rate}.")}
    networks, entropy, q = trained.networks, trained.entropy, torch.tensor([rate / 255])
    image = expected["image"].numpy()
    with torch.inference_mode():
        y = networks.latent(trained.analyse(image).features[None], q)
        torch.testing.assert_close(y[0], e["y"], atol=1e-4, rtol=0)
        z = networks.hyper(y)[0]
        torch.testing.assert_close(z, e["z"], atol=1e-5, rtol=0)
        base = networks.inject(networks.dequantise(e["y_hat"][None], e["mean"][None], e["index"][None], q), q)[0][0]
        torch.testing.assert_close(base, e["x_base"], atol=1e-5, rtol=0)

        # The float prior, and the integer one, given the trainer's own latents.
        medians = trained.prior.medians[:, None, None]  # not rounded to 1/256, which may move a symbol of z
        hyper = (e["z"] - medians).round()
        z_hat = (hyper + medians)[None]

        def sent(part: Pass, mask: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
            return e["y_hat"][None, part.start : part.stop]

        mean, scale = networks.prior(z_hat, q, sent)
        shift = trained.entropy.head.gain_to_index
        assert shift is not None
        index = (scale[0] + torch.from_numpy(shift[rate])[:, None, None] / 256).clamp(0, 63)
        torch.testing.assert_close(mean[0], e["mean"], atol=0.01, rtol=0)
        torch.testing.assert_close(index, e["index"], atol=0.03, rtol=0)
        symbols = hyper.to(torch.int32).numpy()
        _, means, indices = entropy.choose_latent(e["y_hat"], symbols, rate, rate_distortion=False)
        mean_error, index_error = (means / 16 - e["mean"]).abs(), (indices - e["index"]).abs()
        assert float(mean_error.max()) < 0.1
        assert float((mean_error > 1 / 32 + 0.01).float().mean()) < 0.02  # what later passes see is rounded as well
        assert float(index_error.max()) < 1
        assert float((index_error > 0.55).float().mean()) < 0.02

        bits = float(trained.prior.bits(z_hat).sum())
        bits += float(gaussian_bits(e["y_hat"] - e["mean"], WIDE_LEVELS.sigma(e["index"])).sum())
        assert bits / image[..., 0].size == pytest.approx(float(e["bpp"]), rel=1e-3)
        # Rounding every mean moves symbols, and so the picture, but not how good it is.
        latent, means, indices = entropy.choose_latent(y[0], symbols, rate, rate_distortion=False)
        means, indices = means[None] / 16, indices[None].float()
        latents = networks.dequantise(torch.from_numpy(latent) + means, means, indices, q)
        own = networks.inject(latents, q)[0][0]
    original = torch.from_numpy(image).permute(2, 0, 1) / 127.5 - 1
    errors = [float((x.clamp(-1, 1) - original).square().mean()) for x in (own, e["x_base"])]
    assert errors[0] == pytest.approx(errors[1], rel=0.01)
