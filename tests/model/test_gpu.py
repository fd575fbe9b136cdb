"""What must hold between a CPU and a GPU. Run with `pytest -m gpu` on a machine with a CUDA device."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from model.codec import Codec
from model.types import Quantised
from model.weights.files import load_weights
from model.weights.published import import_checkpoint
from model.weights.registry import SHIPPED
from tests.model.paper_oracle import published_checkpoint

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def gpu_codec(request: pytest.FixtureRequest) -> Codec:
    return Codec(load_weights(SHIPPED / "cdc-lite.safetensors"), request.param, "cuda:0")


def assert_same(a: Quantised, b: Quantised) -> None:
    np.testing.assert_array_equal(a.hyper, b.hyper)
    np.testing.assert_array_equal(a.latent, b.latent)
    assert torch.equal(a.means, b.means)
    assert torch.equal(a.indices, b.indices)


@pytest.mark.parametrize("rate", [0, 100, 255])
def test_files_of_either_decode_to_the_same_symbols_on_both(
    codec: Codec, gpu_codec: Codec, photograph: np.ndarray, rate: int
) -> None:
    for writer in (codec, gpu_codec):
        sent = writer.quantise(writer.analyse(photograph), rate)
        data = writer.pack(writer.analyse(photograph), rate)
        for reader in (codec, gpu_codec):
            assert_same(reader.unpack(data).quantised, sent)


def test_pictures_agree(codec: Codec, gpu_codec: Codec, photograph: np.ndarray) -> None:
    data = codec.pack(codec.analyse(photograph), 128)
    for steps, gamma in ((1, 0.0), (17, 0.8)):
        a, b = (c.decode(data, steps, gamma).astype(float) for c in (codec, gpu_codec))
        error = np.square(a - b).mean()
        assert error == 0 or 10 * np.log10(65025 / error) > 45


def test_rows_share_a_pass_on_the_gpu(gpu_codec: Codec, photograph: np.ndarray) -> None:
    """At most one level on at most 0.1 % of the values, whoever shares the pass."""
    pictures = [photograph[:256, k : k + 256] for k in (0, 100, 200)]
    files = [gpu_codec.pack(gpu_codec.analyse(p), 60) for p in pictures]
    alone = [gpu_codec.decode(f, 4, 0.8).astype(int) for f in files]
    states = [gpu_codec.start(gpu_codec.unpack(f), 4, 0.8) for f in files]
    gpu_codec.condition_tiles([(s, 0) for s in states])
    while not states[0].done:
        gpu_codec.denoise_tiles([(s, 0) for s in states])
    for state, expected in zip(states, alone, strict=True):
        difference = np.abs(gpu_codec.finish(state) - expected)
        assert difference.max() <= 1
        assert (difference > 0).mean() <= 0.001


@pytest.mark.parametrize("compiled", [False, True])
def test_prepared_passes_are_the_networks_own(photograph: np.ndarray, *, compiled: bool) -> None:
    """Graphs replay the same kernels; compiled ones round otherwise. Nothing is prepared by running."""
    plain, prepared = (Codec(load_weights(SHIPPED / "cdc-lite.safetensors"), "bfloat16", "cuda:0") for _ in range(2))
    if compiled:
        prepared.compile()
    for rows in (1, 4):
        prepared.prepare(rows, 256, 256)
    files = [plain.pack(plain.analyse(photograph[:256, k : k + 256]), 60) for k in (0, 100, 200)]
    for file in files:
        difference = np.abs(prepared.decode(file, 4, 0.8).astype(int) - plain.decode(file, 4, 0.8))
        assert difference.max() <= (4 if compiled else 1)
        assert compiled or (difference > 0).mean() <= 0.001
    plain.pack(plain.analyse(photograph), 60)
    prepared.decode(plain.pack(plain.analyse(photograph), 60), 2, 0.8)
    assert sorted(prepared.denoiser.prepared) == [(1, 256, 256), (4, 256, 256)]


@pytest.mark.parametrize("variant", ["x", "eps"])
def test_the_papers_files_and_steps_agree(variant: str, photograph: np.ndarray, tmp_path: Path) -> None:
    oracle, checkpoint = published_checkpoint(variant, 16)  # type: ignore[arg-type]
    torch.save(checkpoint, tmp_path / "c.pt")
    import_checkpoint(tmp_path / "c.pt", tmp_path / "w.safetensors")
    cpu = Codec(load_weights(tmp_path / "w.safetensors"), "float32")
    gpu = Codec(load_weights(tmp_path / "w.safetensors"), "float32", "cuda:0")
    pixels = np.ascontiguousarray(photograph[:192, :256])
    for writer in (cpu, gpu):
        sent = writer.quantise(writer.analyse(pixels), 0)
        data = writer.pack(writer.analyse(pixels), 0)
        for reader in (cpu, gpu):
            assert_same(reader.unpack(data).quantised, sent)
    y_hat, x, time = 3 * torch.randn(1, 64, 8, 8), torch.randn(1, 3, 128, 128), torch.tensor([[0.4]])
    expected = oracle.denoise_fn(x, time, oracle.context_fn.contexts(y_hat))
    modulation = gpu.networks.modulate(time[0].double().cuda(), 0).float()
    found = gpu.networks.denoise(x.cuda(), modulation, gpu.networks.inject(y_hat.cuda())).cpu()
    assert float((found - expected).abs().max() / expected.abs().max()) < 1e-3  # convolutions may run in TF32
