"""cdc-lite: a small random model of the family."""

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
from model.codec import Codec
from model.entropy.entropy_model import RDO, EntropyModel
from model.entropy.hyper_decoder import ACTIVATION_LIMIT, WEIGHT_LIMIT, IntegerLayer
from model.entropy.likelihood import FactorizedPrior
from model.errors import CorruptStream, WeightsError
from model.networks.lite import CDCLite, LiteConfig
from model.rate_control import pack_to_target
from model.tiling import Tiling
from model.weights.files import export_weights, load_weights, read_info, with_floats

NAME = "cdc-lite"
SMALL = LiteConfig(
    widths=(16, 24),
    latents=24,
    analysis=(1, 2),
    synthesis=(2, 1),
    levels=3,
    hyper=8,
    groups=(4, 4, 6, 10),
    context=12,
    denoiser=2,
)


def small_tensors(config: LiteConfig = SMALL) -> dict[str, Tensor]:
    """Float tensors by a trainer's names. Those of the integer half are fractions that any machine exports alike."""
    torch.manual_seed(11)
    networks = CDCLite(config)
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
        for parameter in networks.denoiser.parameters():
            parameter.normal_(std=0.3 * parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.0)
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


# Weights ------------------------------------------------------------------------------------------------------------


def test_exporting_again_gives_the_same_integers(small_file: Path, tmp_path: Path) -> None:
    stored = load_file(small_file)
    again = export(stored, tmp_path / "again.safetensors")
    assert read_info(again).codec_id == read_info(small_file).codec_id
    assert all(torch.equal(t, load_file(again)[k]) for k, t in stored.items())
    assert {k.split(".")[0] for k in stored} == {
        "denoiser",
        "entropy",
        "g_a",
        "g_s",
        "hyper_encoder",
        "hyper_prior",
        "log_gain",
        "log_residual",
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
    config = LiteConfig()
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
        given = torch.from_numpy(latent[None]).float()
        chosen = entropy.choose_latents(given, hyper[None], [rate], worth=0)
        sent, means, indices = (of_all[0] for of_all in chosen)
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


GOLDEN_STREAM = "3a4ec95315ada873c77737f20380177811c2a79b9e5f07065ba07d053358fd18"


def test_golden_streams(small: Codec, threads: int) -> None:
    assert stream_digest(small) == GOLDEN_STREAM


def test_golden_streams_in_a_fresh_process(small_file: Path) -> None:
    script = (
        "import sys, pathlib; sys.path.insert(0, sys.argv[1]); from test_lite import *\n"
        "print(stream_digest(Codec(load_weights(pathlib.Path(sys.argv[2])), 'float32')))"
    )
    argv = [sys.executable, "-c", script, str(Path(__file__).parent), str(small_file)]
    assert subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip() == GOLDEN_STREAM


def test_symbols_that_are_not_coded_must_be_zero(small: Codec) -> None:
    entropy = small.entropy
    hyper = symbols((SMALL.hyper, 1, 1), 20)
    latents, _, all_indices = entropy.choose_latents(torch.zeros(1, SMALL.latents, 4, 4), hyper[None], [0], worth=RDO)
    latent, indices = latents[0], all_indices[0]
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


def test_gamma_is_the_share_of_the_sampled_residual(small: Codec, crop: np.ndarray) -> None:
    unpacked = small.unpack(small.pack(small.analyse(crop), 200))
    images = {}
    for gamma in (0.0, 0.5, 1.0):
        state = small.start(unpacked, 3, gamma, seed=7)
        while not state.done:
            small.denoise_step(state)
        images[gamma] = state.x if state.base is None else state.base + state.gain * state.x
    step = images[1.0] - images[0.0]
    assert float(step.std()) > 1e-4
    torch.testing.assert_close(images[0.5] - images[0.0], step / 2, atol=1e-5, rtol=0)


def test_without_gamma_no_step_is_computed(small: Codec, crop: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    file = small.pack(small.analyse(crop), 128)
    one = small.decode(file, 1, 0.0)
    monkeypatch.setattr(small, "denoise_tiles", None)  # never called
    np.testing.assert_array_equal(small.decode(file, 17, 0.0), one)


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
