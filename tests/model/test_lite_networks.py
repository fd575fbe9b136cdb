"""The networks of cdc-lite: sizes and identities."""

from __future__ import annotations

import pytest
import torch

from model.errors import WeightsError
from model.networks.depthwise import image_of_means, split_means
from model.networks.lite import CDCLite, LiteConfig
from tests.model.test_lite import SMALL, small_tensors


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
        networks = CDCLite()
    analysis, synthesis = (sum(p.numel() for p in part.parameters()) for part in (networks.g_a, networks.g_s))
    assert networks.config.groups == (16, 32, 80, 192)
    assert analysis == pytest.approx(2.91e6, rel=0.01)
    assert synthesis == pytest.approx(4.41e6, rel=0.01)
    assert networks.log_gain.shape == networks.log_shrink.shape == (12, 320)


def test_a_new_block_is_the_identity() -> None:
    networks = CDCLite(SMALL)
    x = torch.rand(1, 24, 4, 5)
    assert torch.equal(networks.g_a.coarse(x), x)


def test_sizes_are_read_off_the_tensors() -> None:
    tensors = small_tensors()
    assert LiteConfig.of_tensors(tensors) == SMALL
    for name in ("g_a.stem.weight", "log_gain", "hyper_encoder.0.weight"):
        with pytest.raises(WeightsError, match=name):
            LiteConfig.of_tensors({k: v for k, v in tensors.items() if k != name})
    with pytest.raises(WeightsError, match="context"):
        LiteConfig.of_tensors({k: v for k, v in tensors.items() if not k.startswith("context")})
    with pytest.raises(WeightsError, match="wrong shape"):
        LiteConfig.of_tensors(
            tensors | {"g_s.head.weight": tensors["g_s.head.weight"], "g_a.down.weight": torch.zeros(4096, 1)}
        )
