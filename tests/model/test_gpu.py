"""What must hold between a CPU and a GPU. Run with `pytest -m gpu` on a machine with a CUDA device."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from model.checkpoint import load_weights
from model.codec import Codec
from model.registry import SHIPPED
from model.types import Quantised

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
