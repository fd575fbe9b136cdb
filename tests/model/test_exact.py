"""Models of exact means: their files hold what the authors' code computes."""

from __future__ import annotations

import re
import stat
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from model.codec import Codec
from model.diffusion.sampler import ddim_step
from model.errors import WeightsError
from model.types import Latents
from model.weights.files import export_weights, load_weights
from model.weights.published import import_checkpoint, read_checkpoint, translate, variant_of
from service.transcode import Local
from tests.model.paper_oracle import Variant, published_checkpoint
from tests.model.test_paper import NAMES, VARIANTS, assert_near, save_random


def decoded(codec: Codec, y_hat: Tensor, noise: Tensor, steps: int) -> Tensor:
    injected = codec.networks.inject(y_hat)
    indices = codec.schedule.indices(steps)
    modulation, levels = codec._modulate(indices, 0), codec.schedule.at(torch.tensor([*indices, -1]))
    x = noise
    for k in range(steps):

        def network(x: Tensor, k: int = k) -> Tensor:
            return codec.networks.denoise(x, modulation[k : k + 1], injected)

        x = ddim_step(network, x, levels[k : k + 1], levels[k + 1 : k + 2], codec.schedule.parameterization).x
    return x


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_file_gives_the_authors_images(shared_data: Path, tmp_path: Path, variant: Variant) -> None:
    """Symbols equal to theirs, and images to 1e-4 of their largest value, through real files."""
    stem = shared_data / "reference" / f"{NAMES[variant]}_dim8"
    e = torch.load(stem.with_name(stem.name + "_expected.pt"), weights_only=True)
    import_checkpoint(stem.with_suffix(".pt"), tmp_path / "w.safetensors", exact=True)
    codec = Codec(load_weights(tmp_path / "w.safetensors"), "float32")
    found = codec.unpack(codec.pack(Latents(e["latent"][0], 192, 128), 0)).quantised
    assert_near(found.y_hat, e["q_latent"][0])
    for steps, gamma in ((int(k.split("steps")[1].split("_")[0]), k) for k in e if k.startswith("decoded_")):
        noise = float(gamma.split("gamma")[1]) * e["noise"]
        assert_near(decoded(codec, found.y_hat[None], noise, steps), e[gamma])


@pytest.mark.parametrize("variant", VARIANTS)
def test_symbols_are_those_of_the_float_means(variant: Variant, tmp_path: Path) -> None:
    torch.manual_seed(3)
    oracle, path = save_random(variant, tmp_path)
    fine, exact = (tmp_path / f"{kind}.safetensors" for kind in ("fine", "exact"))
    ids = [import_checkpoint(path, out, exact=out is exact).codec_id for out in (fine, exact)]
    assert ids[0] != ids[1]
    codec = Codec(load_weights(exact), "float32")
    y = 3 * torch.randn(64, 8, 12)
    found = codec.unpack(codec.pack(Latents(y, 192, 128), 0)).quantised
    medians = codec.prior.medians[:, None, None]
    mean, _ = oracle.context_fn.parameters_of(torch.from_numpy(found.hyper).float()[None] + medians)
    expected = torch.round(y - mean[0])
    assert torch.equal(torch.from_numpy(found.latent).float(), expected)
    assert float((found.mean - mean[0]).abs().max()) < 1e-4


def test_exact_means_are_of_the_papers_networks(tmp_path: Path, codec: Codec) -> None:
    tensors = codec.networks.state_dict() | {f"hyper_prior.{k}": v for k, v in codec.prior.state_dict().items()}
    with pytest.raises(WeightsError, match="exact means are of cdc-x"):
        export_weights(tensors, tmp_path / "w", name="n", version=1, provenance="-", exact=True)


def test_an_imported_file_is_for_other_users_too(tmp_path: Path) -> None:
    _, path = save_random("x", tmp_path)
    import_checkpoint(path, tmp_path / "w.safetensors")
    (tmp_path / "plain").touch()
    mode, usual = (stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("w.safetensors", "plain"))
    assert mode == usual


def test_errors_name_the_checkpoint(tmp_path: Path) -> None:
    _, checkpoint = published_checkpoint("x", 16)
    checkpoint["ema"]["ema_model.context_fn.odd"] = torch.zeros(1)
    torch.save(checkpoint, tmp_path / "odd.pt")
    with pytest.raises(WeightsError, match=re.escape("odd.pt: context_fn.odd: no tensor")):
        import_checkpoint(tmp_path / "odd.pt", tmp_path / "w")


def test_a_context_of_three_channels_does_not_mislead(tmp_path: Path) -> None:
    """The finest map of a cdc-x of three channels has the shape of a cdc-eps's."""
    published = read_checkpoint(save_random("x", tmp_path)[1])
    published["context_fn.dec.3.1.conv.weight"] = published["context_fn.dec.3.1.conv.weight"][:, :3]
    assert variant_of(published) == "x"
    with pytest.raises(WeightsError, match="not the networks"):
        variant_of(translate(read_checkpoint(save_random("x", tmp_path)[1])))


def test_inspect_gives_no_quality_for_fixed_rate(tmp_path: Path, crop: Any) -> None:
    _, path = save_random("x", tmp_path)
    import_checkpoint(path, tmp_path / "x.safetensors")
    codec = Codec(load_weights(tmp_path / "x.safetensors"), "float32")
    local = Local(tmp_path, "float32")
    assert local.inspect(codec.pack(codec.analyse(crop), 0))["quality"] is None
