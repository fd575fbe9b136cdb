from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from model.errors import InvalidParameter
from model.perceptual import FeatureDistance, Lpips, ShiftedDistance, SqueezeNetFeatures, load_distance

VGG = {0: (3, 3, 1), 2: (3, 64, 3), 5: (64, 64, 3), 9: (64, 128, 3), 12: (128, 128, 3), 16: (128, 256, 3)}


@pytest.fixture
def vgg19(tmp_path: Path) -> str:
    """The front of a VGG-19 with random weights."""
    state = {}
    for i, (into, out, kernel) in VGG.items():
        state[f"{i}.weight"] = torch.randn(out, into, kernel, kernel) * (into * kernel**2) ** -0.5
        state[f"{i}.bias"] = 0.1 * torch.randn(out)
    torch.save(state, tmp_path / "vgg.pth")
    return f"vgg19:{tmp_path / 'vgg.pth'}"


@pytest.mark.parametrize("kind", ["squeezenet", "vgg19"])
def test_distance_grows_with_damage_and_has_a_gradient(kind: str, request: pytest.FixtureRequest) -> None:
    distance = load_distance(request.getfixturevalue(kind))
    image = torch.rand(2, 3, 64, 64) * 2 - 1
    noise = torch.randn_like(image)
    assert torch.equal(distance(image, image), torch.zeros(2))
    little, much = (distance((image + s * noise).clamp(-1, 1), image) for s in (0.05, 0.5))
    assert ((little > 0) & (little < much)).all()
    guess = (image + 0.1 * noise).requires_grad_()
    distance(guess, image).sum().backward()
    assert guess.grad is not None
    assert guess.grad.abs().sum() > 0
    assert not [p for p in distance.parameters() if p.requires_grad]


def test_a_shifted_distance_is_that_of_a_part(squeezenet: str) -> None:
    distance = load_distance(squeezenet)
    shifted = ShiftedDistance(distance, most=1)
    a, b = torch.rand(2, 2, 3, 64, 64) * 2 - 1
    parts = [distance(a[..., i : 63 + i, j : 63 + j], b[..., i : 63 + i, j : 63 + j]) for i in (0, 1) for j in (0, 1)]
    found = [shifted(a, b) for _ in range(40)]
    assert {next(i for i, d in enumerate(parts) if torch.equal(d, f)) for f in found} == {0, 1, 2, 3}


def test_squeezenet_pools_where_its_paper_does(squeezenet: str) -> None:
    with np.load(squeezenet.partition(":")[2]) as arrays:
        features = SqueezeNetFeatures({k: torch.from_numpy(arrays[k]) for k in arrays.files})
    shapes = [tuple(m.shape[1:]) for m in features(torch.zeros(1, 3, 224, 224))]
    assert shapes == [
        (64, 111, 111),
        (128, 55, 55),
        (256, 27, 27),
        (384, 13, 13),
        (384, 13, 13),
        (512, 13, 13),
        (512, 13, 13),
    ]


def test_vgg_reads_what_its_layers_say(vgg19: str) -> None:
    state = torch.load(vgg19.partition(":")[2], weights_only=True)
    x = torch.rand(1, 3, 32, 32) * 2 - 1
    h = nn.functional.conv2d(x / 2 + 0.5, state["0.weight"], state["0.bias"])
    for i in (2, 5):
        h = nn.functional.conv2d(h, state[f"{i}.weight"], state[f"{i}.bias"], padding=1).relu()
    front = load_distance(vgg19).networks[0]
    torch.testing.assert_close(front(x)[0][..., 2:-2, 2:-2], h[..., 2:-2, 2:-2], atol=1e-4, rtol=1e-4)
    assert [tuple(m.shape[1:]) for m in front(x)] == [(64, 32, 32), (128, 16, 16), (256, 8, 8)]


def test_several_distances_add_up(vgg19: str, squeezenet: str) -> None:
    a, b = torch.rand(2, 2, 3, 64, 64) * 2 - 1
    apart = load_distance(vgg19)(a, b) + load_distance(squeezenet)(a, b)
    both = load_distance(f"{vgg19}+{squeezenet}")
    torch.testing.assert_close(both(a, b), apart)
    assert ShiftedDistance(both).channels() == (64, 128, 256, 64, 128, 256, 384, 384, 512, 512)


def test_what_is_missing_or_wrong_is_said(tmp_path: Path) -> None:
    (tmp_path / "empty.npz").write_bytes(b"")
    for name, message in (
        ("lpips:resnet", "vgg"),
        ("squeezenet:absent.npz", "no file"),
        (f"squeezenet:{tmp_path / 'empty.npz'}", "empty.npz"),
        (f"vgg19:{tmp_path / 'empty.npz'}", "empty.npz"),
        (f"fsim:{tmp_path / 'empty.npz'}", "torchscript"),
        (f"squeezenet:{tmp_path / 'a+b.npz'}", "a\\+b.npz"),
        ("vgg19:absent.pth+lpips:vgg", "absent.pth"),
        ("lpips:vgg+vgg19:absent.pth", "stands alone"),
    ):
        with pytest.raises(InvalidParameter, match=message):
            load_distance(name)


def test_lpips_says_what_it_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(InvalidParameter, match="vgg16"):
        load_distance("lpips:vgg")


def test_lpips_by_its_maps_is_lpips() -> None:
    lpips = pytest.importorskip("lpips")
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # lpips asks torchvision by a name that is deprecated
        theirs = lpips.LPIPS(net="alex", pretrained=True, pnet_rand=True, verbose=False).eval().requires_grad_(False)
    ours = Lpips.__new__(Lpips)
    FeatureDistance.__init__(ours)
    ours._distance = theirs
    a, b = torch.rand(2, 2, 3, 64, 64) * 2 - 1
    torch.testing.assert_close(ours(a, b), theirs(a, b).flatten(), rtol=1e-4, atol=1e-6)


class _Halves(nn.Module):
    def forward(self, x: Tensor) -> list[Tensor]:
        return [x, nn.functional.avg_pool2d(x, 2)]


def test_any_torchscript_backbone_serves(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch means to replace TorchScript one day
        torch.jit.trace(_Halves(), torch.zeros(1, 3, 8, 8)).save(str(tmp_path / "halves.pt"))
        distance = load_distance(f"torchscript:{tmp_path / 'halves.pt'}")
    image = torch.rand(1, 3, 16, 16)
    assert distance(image, 1 - image).item() > 0
