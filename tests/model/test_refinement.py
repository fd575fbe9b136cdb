"""Effort: refined symbols cost less, whatever the tiles; nothing of a decoder changes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from model import refinement
from model.codec import Codec
from model.distortion import psnr
from model.errors import InvalidParameter
from model.rate_control import pack_to_target
from model.refinement import Refiner
from model.types import Latents, Pixels, Quantised

RATE = 96


@pytest.fixture(scope="module")
def analysed(codec: Codec, photograph: Pixels) -> Latents:
    return codec.analyse(np.ascontiguousarray(photograph[:100, :170]))


def cost(codec: Codec, latents: Latents, quantised: Quantised) -> float:
    """Bits of the symbols of y and squared error over 3 lambda, by a decode."""
    refiner = Refiner(codec.networks, codec.entropy, codec.device)
    return refiner._gradient(latents, quantised, lambda share: None)[1]


def test_refined_symbols_cost_less(codec: Codec, analysed: Latents) -> None:
    costs = [cost(codec, analysed, codec.quantise(analysed, RATE, effort)) for effort in (1, 2, 6)]
    assert costs[2] < 0.985 * costs[0]
    assert costs[1] < costs[0]


@pytest.mark.parametrize("rate", [0, 255])
def test_no_rate_gets_worse(codec: Codec, analysed: Latents, rate: int) -> None:
    before, after = (cost(codec, analysed, codec.quantise(analysed, rate, effort)) for effort in (1, 5))
    assert after <= before


def test_refined_file_decodes_to_the_symbols_that_were_chosen(codec: Codec, analysed: Latents) -> None:
    chosen = codec.quantise(analysed, RATE, effort=3)
    found = codec.unpack(codec.pack(analysed, RATE, effort=3)).quantised
    np.testing.assert_array_equal(found.latent, chosen.latent)
    assert torch.equal(found.means, chosen.means)


def test_gradient_is_that_of_the_cost(codec: Codec, analysed: Latents) -> None:
    """Squared error along the gradient, by finite differences: tiles, padding and scale are right."""
    refiner = Refiner(codec.networks, codec.entropy, codec.device)
    now = codec.quantise(analysed, RATE)
    tile = refinement.tiles(*(16 * side for side in now.latent.shape[1:]), refinement.TILE, refinement.MARGIN)[0]
    gradient, error = refiner._of_error(analysed, now, tile)
    height, width = analysed.height, analysed.width
    assert analysed.canvas is not None
    image = torch.from_numpy(analysed.canvas[:height, :width]).permute(2, 0, 1).float() / 127.5 - 1

    def error_of(means: torch.Tensor) -> float:
        """Of the decode with y_hat moved, its prior left as it is."""
        q = torch.tensor([RATE / 255])
        prior = (now.mean[None], now.indices[None].float())
        with torch.inference_mode():
            base = codec.networks.base(codec.networks.dequantise(means[None], *prior, q), q)[0]
        return float((base[:, :height, :width] - image).square().sum())

    assert error == pytest.approx(error_of(now.y_hat), rel=1e-4)
    step = 0.05 * gradient / gradient.norm()
    slope = (error_of(now.y_hat + step) - error_of(now.y_hat - step)) / 2
    assert slope == pytest.approx(0.05 * float(gradient.norm()), rel=0.05)


def test_tiles_hardly_matter(codec: Codec, photograph: Pixels, monkeypatch: pytest.MonkeyPatch) -> None:
    latents = codec.analyse(np.ascontiguousarray(np.tile(photograph, (2, 2, 1))[:256, :320]))
    whole = cost(codec, latents, codec.quantise(latents, RATE, 3))
    monkeypatch.setattr(refinement, "TILE", 192)
    tiled = codec.quantise(latents, RATE, 3)
    monkeypatch.undo()
    assert cost(codec, latents, tiled) == pytest.approx(whole, rel=0.003)


def test_refinement_can_be_abandoned(codec: Codec, analysed: Latents) -> None:
    class Abandoned(Exception):
        pass

    calls = []

    def between(done: float, of: int) -> None:
        assert of == 11
        calls.append(done)
        if len(calls) == 3:
            raise Abandoned

    with pytest.raises(Abandoned):
        codec.pack(analysed, RATE, effort=9, between=between)


@pytest.mark.parametrize("effort", [0, 10, -1])
def test_effort_has_bounds(codec: Codec, analysed: Latents, effort: int) -> None:
    with pytest.raises(InvalidParameter, match=r"effort must be 1\.\.9"):
        codec.pack(analysed, RATE, effort=effort)


def test_model_that_rounds_refuses_effort(codec: Codec, analysed: Latents, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "architecture", replace(codec.architecture, worth=0.0))
    assert codec.max_effort == 1
    with pytest.raises(InvalidParameter, match=r"effort must be 1\.\.1"):
        codec.pack(analysed, 0, effort=2)


def test_size_that_one_pass_meets_is_refined_all_the_same(codec: Codec, analysed: Latents) -> None:
    plain = codec.pack(analysed, RATE)
    found = pack_to_target(codec, analysed, target_bpp=8 * len(plain) / 17000, effort=2)
    assert found.data == codec.pack(analysed, found.rate, effort=2)
    assert found.target == "met"


def test_refinement_can_be_abandoned_while_the_rate_is_looked_for(
    codec: Codec, analysed: Latents, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Abandoned(Exception):
        pass

    def between(done: float, of: int) -> None:
        raise Abandoned

    monkeypatch.setattr(codec, "pack", lambda *_, **__: pytest.fail("packed for nobody"))
    with pytest.raises(Abandoned):
        pack_to_target(codec, analysed, max_bytes=1500, effort=2, between=between)


@pytest.mark.parametrize("budget", [1000, 2500])
def test_budget_buys_a_more_exact_image(codec: Codec, photograph: Pixels, budget: int) -> None:
    pixels = np.ascontiguousarray(photograph[:100, :170])
    latents = codec.analyse(pixels)
    plain, refined = (pack_to_target(codec, latents, max_bytes=budget, effort=effort) for effort in (1, 6))
    assert len(refined.data) <= budget
    assert refined.rate > plain.rate
    errors = [psnr(pixels, codec.decode(packed.data, 1, 0.0)) for packed in (plain, refined)]
    assert errors[1] > errors[0]


def test_refined_file_meets_a_rate(codec: Codec, analysed: Latents) -> None:
    near = pack_to_target(codec, analysed, target_bpp=0.7, effort=4)
    assert near.target == "met"
    assert 8 * len(near.data) / 17000 == pytest.approx(0.7, rel=0.05)
