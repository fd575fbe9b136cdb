from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

from model.codec import Codec
from model.errors import InvalidParameter
from model.evaluation.metrics.texture import fine_energy
from model.networks.lite import CDCLite
from model.training.strength import LIMITS, fit_strength
from model.weights.files import load_weights
from model.weights.registry import SHIPPED
from tests.cli.command import cdc

DEFAULT = SHIPPED / "cdc-lite.safetensors"


def share(path: Path, picture: np.ndarray, rate: int) -> float:
    codec = Codec(load_weights(path), "float32")
    return fine_energy(codec.decode(codec.pack(codec.analyse(picture), rate), 1, 1.0)) / fine_energy(picture)


def test_gamma_1_is_as_strong_as_asked(pictures: Path, tmp_path: Path) -> None:
    one = tmp_path / "one"
    one.mkdir()
    picture = np.ascontiguousarray(np.asarray(Image.open(pictures / "4.png"))[:128, :128])
    Image.fromarray(picture).save(one / "a.png")
    before = share(DEFAULT, picture, 0)
    asked, out = 1.1 * before, tmp_path / "out.safetensors"
    made = cdc("weights", "strength", DEFAULT, out, "--data", one, "--energy", str(asked), "--json")
    factors = made.report["factors"]
    assert all(LIMITS[0] <= factor <= LIMITS[1] for factor in factors)
    assert 1 < factors[0] < LIMITS[1]
    assert share(out, picture, 0) == pytest.approx(asked, rel=0.02)
    old, new = load_file(DEFAULT), load_file(out)
    assert {name for name in old if not np.array_equal(old[name], new[name])} == {"log_residual"}
    info, own = load_weights(out).info, load_weights(DEFAULT).info
    assert info.provenance.startswith(f"{own.provenance}; gamma 1 set to")
    assert (info.codec_id, info.version) == (own.codec_id, own.version)


def test_what_cannot_be_fitted_is_refused(codec: Codec, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(tmp_path / "small.png")
    with pytest.raises(InvalidParameter, match="no image of at least 64x64"):
        fit_strength(codec, [tmp_path], 4, 0.9)
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(tmp_path / "flat.png")
    weights = load_weights(DEFAULT)
    assert isinstance(weights.networks, CDCLite)
    for layer in (weights.networks.denoiser.head, weights.networks.denoiser.gate):
        layer.weight.zero_()
        assert layer.bias is not None
        layer.bias.zero_()
    with pytest.raises(InvalidParameter, match="adds nothing"):
        fit_strength(Codec(weights, "float32"), [tmp_path], 4, 0.9)
