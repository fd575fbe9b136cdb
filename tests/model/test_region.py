"""Decodes of a region, and at a fraction of the size."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from model.codec import Codec
from model.errors import InvalidParameter
from model.networks.lite import CDCLite
from model.tiling import Region, Tiling, layout_of
from model.training.heads import fit_heads
from model.types import Pixels
from model.weights.files import load_weights
from model.weights.heads import heads_path, save_heads
from model.weights.registry import SHIPPED

SMALL_TILES = Tiling(tile=320, margin=64, encoder_margin=32, radius=112, step_radius=32)
REGIONS = [
    Region(0, 0, 512, 600),
    Region(0, 0, 1, 1),
    Region(511, 599, 1, 1),
    Region(100, 90, 60, 40),  # within a tile
    Region(200, 230, 130, 90),  # over four
    Region(37, 0, 21, 600),
]


def part(pixels: Pixels, region: Region) -> Pixels:
    return pixels[region.top : region.top + region.height, region.left : region.left + region.width]


@pytest.fixture(scope="module")
def tiled() -> Codec:
    """The shipped model with tiles so small that a photograph of 512x600 has several."""
    codec = Codec(load_weights(SHIPPED / "cdc-lite.safetensors"), "float32")
    codec.tiling = SMALL_TILES
    return codec


@pytest.fixture(scope="module")
def file(tiled: Codec, photograph: Pixels) -> bytes:
    return tiled.pack(tiled.analyse(photograph), 100)


def test_a_region_has_the_pixels_of_the_whole(tiled: Codec, file: bytes) -> None:
    whole = tiled.decode(file, 1, 0.0)
    for region in REGIONS:
        np.testing.assert_array_equal(tiled.decode(file, 1, 0.0, region=region), part(whole, region))


@pytest.mark.parametrize(("steps", "share"), [(1, 0.0), (3, 1e-3)])
def test_so_has_a_sampled_one(tiled: Codec, file: bytes, steps: int, share: float) -> None:
    """Beyond one step it is to within a level: x_n of all the image takes part."""
    whole = tiled.decode(file, steps, 1.0, seed=5)
    region = Region(200, 230, 130, 90)
    change = np.abs(tiled.decode(file, steps, 1.0, seed=5, region=region).astype(int) - part(whole, region))
    assert change.max() <= 1
    assert (change > 0).mean() <= share


@pytest.mark.parametrize(
    "region", [Region(-1, 0, 5, 5), Region(0, 0, 513, 5), Region(0, 600, 5, 1), Region(3, 3, 0, 5), Region(0, 0, 5, -5)]
)
def test_a_region_outside_is_refused(tiled: Codec, file: bytes, region: Region) -> None:
    with pytest.raises(InvalidParameter, match="is not within 512x600"):
        tiled.decode(file, 1, 0.0, region=region)


@pytest.mark.parametrize("size", [(4000, 3000), (1024, 1024), (1025, 900), (60, 70)])
@pytest.mark.parametrize("steps", [0, 1, 17])
def test_a_layout_covers_its_region_once(size: tuple[int, int], steps: int) -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        left, top = (int(rng.integers(side)) for side in size)
        region = Region(
            left, top, *(int(rng.integers(1, side - at + 1)) for side, at in zip(size, (left, top), strict=True))
        )
        found = layout_of(*size, SMALL_TILES, region, steps)
        owned = np.zeros((found.rows, found.columns), int)
        for tile in found.tiles:
            owned[tile.centre()] += 1
            assert min(tile.y.origin, tile.x.origin) >= 0
            assert tile.y.origin + tile.y.size <= found.rows
            assert tile.x.origin + tile.x.size <= found.columns
        assert (part(owned[..., None], found.crop) == 1).all()
        assert owned.max() == 1
        assert (found.top + found.crop.top, found.left + found.crop.left) == (top, left)
        whole = layout_of(*size, SMALL_TILES)
        assert found.area <= whole.area


def test_a_small_region_of_a_large_image_is_little_work() -> None:
    lite = Tiling(margin=64, encoder_margin=32, radius=112, step_radius=32)
    found = layout_of(4000, 3000, lite, Region(300, 200, 512, 512))
    assert found.area <= (512 + 2 * 112 + 16) ** 2


def test_a_model_that_sees_the_whole_canvas_is_cropped() -> None:
    region = Region(10, 20, 30, 40)
    found = layout_of(500, 300, SMALL_TILES, region, 17, whole_canvas=True)
    assert (found.rows, found.columns, found.crop) == (320, 512, region)


@pytest.mark.parametrize("rate", [35, 142, 229])
@pytest.mark.parametrize("factor", [2, 4])
def test_a_fraction_of_the_size_is_the_whole_made_smaller(codec: Codec, crop: Pixels, factor: int, rate: int) -> None:
    """55 dB are half a level, 42 dB two. Compared before the rounding to 8 bits, itself of 59 dB."""
    unpacked = codec.unpack(codec.pack(codec.analyse(crop), rate))
    whole, small = (codec.start(unpacked, 1, 0.0, reduction=n) for n in (1, factor))
    for state in (whole, small):
        codec.denoise_step(state)
    assert codec.finish(small).shape == (-(-crop.shape[0] // factor), -(-crop.shape[1] // factor), 3)
    height, width = crop.shape[0] // factor, crop.shape[1] // factor
    error = (small.x - F.avg_pool2d(whole.x[None], factor)[0])[:, :height, :width].square().mean()
    assert 10 * np.log10(4 / float(error)) > {2: 55, 4: 42}[factor]


def test_a_region_at_a_fraction_is_that_of_the_whole(tiled: Codec, file: bytes) -> None:
    whole = tiled.decode(file, 1, 0.0, reduction=4)
    region = Region(197, 230, 130, 91)
    found = tiled.decode(file, 1, 0.0, region=region, reduction=4)
    np.testing.assert_array_equal(found, whole[230 // 4 : -(-321 // 4), 197 // 4 : -(-327 // 4)])


@pytest.mark.parametrize(("reduction", "gamma"), [(3, 0.0), (8, 0.0), (0, 0.0), (2, 0.5)])
def test_other_fractions_and_noise_are_refused(tiled: Codec, file: bytes, reduction: int, gamma: float) -> None:
    with pytest.raises(InvalidParameter, match="does not decode at"):
        tiled.decode(file, 1, gamma, reduction=reduction)


def test_heads_of_another_transform_are_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    weights = tmp_path / "w.safetensors"
    shutil.copy(SHIPPED / "cdc-lite.safetensors", weights)
    assert Codec(load_weights(weights), "float32").reductions == (1,)
    networks = load_weights(SHIPPED / "cdc-lite.safetensors").networks
    assert isinstance(networks, CDCLite)
    heads = dict(networks.g_s.heads.state_dict())
    assert save_heads(weights, networks, heads) == heads_path(weights)
    assert load_weights(weights).networks.reductions == (2, 4)
    heads["2.weight"] = heads["2.weight"][:, :5]
    save_heads(weights, networks, heads)
    assert load_weights(weights).networks.reductions == ()
    with torch.no_grad():
        networks.g_s.stem.bias.add_(1e-3)
    save_heads(weights, networks, networks.g_s.heads.state_dict())
    assert load_weights(weights).networks.reductions == ()
    heads_path(weights).write_bytes(b"no tensors")
    assert load_weights(weights).networks.reductions == ()
    assert [r.message.partition(" is not used")[0] for r in caplog.records] == ["w.heads"] * 3
    assert "another synthesis transform" in caplog.records[1].message


def test_fitting_gives_layers_that_work(codec: Codec, photograph: Pixels, tmp_path: Path) -> None:
    from PIL import Image

    Image.fromarray(photograph).save(tmp_path / "a.png")
    other = Codec(load_weights(SHIPPED / "cdc-lite.safetensors"), "float32")
    other.networks.add_heads(fit_heads(codec, [tmp_path], 1))
    file = codec.pack(codec.analyse(photograph[:256, :256]), 142)
    fitted, shipped = (c.decode(file, 1, 0.0, reduction=2).astype(int) for c in (other, codec))
    assert np.square(fitted - shipped).mean() < 2.0


def test_regions_grow() -> None:
    assert Region(5, 6, 7, 8).grown(2) == Region(3, 4, 11, 12)
    assert replace(Region(5, 6, 7, 8), left=0).pixels == 56
