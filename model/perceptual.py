"""Perceptual distances d(a, b) of Eq. 9: LPIPS where its backbone is installed, else distances of features at hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError
from typing import ClassVar
from zipfile import BadZipFile

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.errors import InvalidParameter

_EPSILON = 1e-8


class FeatureDistance(nn.Module):
    """Squared distance of feature maps, each normalised over its channels, averaged over pixels, summed over maps."""

    def __init__(self, features: Callable[[Tensor], list[Tensor]]) -> None:
        super().__init__()
        self.features = features
        if isinstance(features, nn.Module):
            features.eval()
            for parameter in features.parameters():  # one by one: scripted modules have no requires_grad_
                parameter.requires_grad_(False)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """a, b [B, 3, H, W] in [-1, 1] -> distance [B], 0 for equal images."""
        total = a.new_zeros(a.shape[0])
        for u, v in zip(self.features(a), self.features(b), strict=True):
            difference = _unit(u) - _unit(v)
            total = total + difference.square().sum(dim=1).mean(dim=(1, 2))
        return total


class SqueezeNetFeatures(nn.Module):
    """Seven maps of SqueezeNet 1.1 (Iandola et al. 2016), from arrays with torchvision's names.

    The arrays are Caffe's: input BGR in 0..255 without mean.
    """

    FIRES = (3, 4, 6, 7, 9, 10, 11, 12)
    POOLED = (6, 9)  # a pooling stands before these, and the map before it is one of the features
    KEPT = (9, 10, 11)

    def __init__(self, arrays: dict[str, Tensor]) -> None:
        super().__init__()
        for name, tensor in arrays.items():
            self.register_buffer(name.replace(".", "_"), tensor.float())

    def _conv(self, name: str, x: Tensor, *, stride: int = 1, padding: int = 0) -> Tensor:
        stem = name.replace(".", "_")
        weight, bias = getattr(self, f"{stem}_weight"), getattr(self, f"{stem}_bias")
        return F.relu(F.conv2d(x, weight, bias, stride=stride, padding=padding))

    def forward(self, x: Tensor) -> list[Tensor]:
        """x [B, 3, H, W] in [-1, 1] -> feature maps."""
        h = self._conv("features.0", x.flip(1) * 127.5 + 127.5, stride=2)
        maps = [h]
        h = F.max_pool2d(h, 3, 2, ceil_mode=True)
        for i in self.FIRES:
            if i in self.POOLED:
                maps.append(h)
                h = F.max_pool2d(h, 3, 2, ceil_mode=True)
            squeezed = self._conv(f"features.{i}.squeeze", h)
            wide = self._conv(f"features.{i}.expand3x3", squeezed, padding=1)
            h = torch.cat([self._conv(f"features.{i}.expand1x1", squeezed), wide], dim=1)
            if i in self.KEPT:
                maps.append(h)
        return [*maps, h]


class Vgg19Front(nn.Module):
    """Maps conv1_2, conv2_2 and conv3_1 of VGG-19 (Simonyan & Zisserman 2015), from a sequential state dict.

    Its first layer, 1x1, maps RGB in [0, 1] to the network's input; convolutions pad by reflection.
    """

    CONVOLUTIONS = (2, 5, 9, 12, 16)
    POOLED = (9, 16)
    KEPT = (5, 12, 16)

    def __init__(self, arrays: dict[str, Tensor]) -> None:
        super().__init__()
        for name, tensor in arrays.items():
            self.register_buffer(name.replace(".", "_"), tensor.float())

    def forward(self, x: Tensor) -> list[Tensor]:
        """x [B, 3, H, W] in [-1, 1] -> feature maps."""
        h = F.conv2d(x * 0.5 + 0.5, self.get_buffer("0_weight"), self.get_buffer("0_bias"))
        maps = []
        for i in self.CONVOLUTIONS:
            if i in self.POOLED:
                h = F.max_pool2d(h, 2, 2)
            weight, bias = self.get_buffer(f"{i}_weight"), self.get_buffer(f"{i}_bias")
            h = F.relu(F.conv2d(F.pad(h, (1, 1, 1, 1), mode="reflect"), weight, bias))
            if i in self.KEPT:
                maps.append(h)
        return maps


class Lpips(nn.Module):
    """LPIPS (Zhang et al. 2018) by the `lpips` package. Its backbone must be in torch's cache: nothing is fetched."""

    FILES: ClassVar = {"vgg": "vgg16-*.pth", "alex": "alexnet-*.pth", "squeeze": "squeezenet1_1-*.pth"}

    def __init__(self, net: str) -> None:
        """Raises InvalidParameter: no such network, or its backbone is not in the cache."""
        super().__init__()
        if net not in self.FILES:
            raise InvalidParameter(f"no LPIPS network {net!r}; there are {', '.join(self.FILES)}")
        cache = Path(torch.hub.get_dir()) / "checkpoints"
        if not any(cache.glob(self.FILES[net])):
            raise InvalidParameter(
                f"LPIPS needs torchvision's {self.FILES[net]} in {cache}; put it there, or use a backbone of your own"
            )
        import lpips

        self._distance = lpips.LPIPS(net=net, verbose=False).eval().requires_grad_(False)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """a, b [B, 3, H, W] in [-1, 1] -> distance [B]."""
        distance: Tensor = self._distance(a, b)
        return distance.flatten()


class ShiftedDistance(nn.Module):
    """A distance of the same random part of both images, so that no phase of strides and poolings is favoured.

    A decoder that is trained against one phase learns grids that this phase does not see.
    """

    def __init__(self, distance: nn.Module, most: int = 15) -> None:
        """At most `most` rows and columns are cut off at the top and the left."""
        super().__init__()
        self.inner, self._most = distance, most

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """a, b [B, 3, H, W] in [-1, 1] -> distance [B]."""
        top, left = torch.randint(0, self._most + 1, (2,)).tolist()
        distance: Tensor = self.inner(a[..., top:, left:], b[..., top:, left:])
        return distance


def load_distance(name: str) -> nn.Module:
    """Return the distance that `name` asks for, see `TrainingConfig.perceptual`.

    Raises:
        InvalidParameter: unknown kind, or a backbone that is missing or not what it should be.
    """
    kind, _, rest = name.partition(":")
    if kind == "lpips":
        return Lpips(rest)
    path = Path(rest)
    if not path.is_file():
        raise InvalidParameter(f"perceptual distance {name!r}: there is no file {rest!r}")
    try:
        if kind == "squeezenet":
            with np.load(path) as arrays:
                return FeatureDistance(SqueezeNetFeatures({k: torch.from_numpy(arrays[k]) for k in arrays.files}))
        if kind == "vgg19":
            return FeatureDistance(Vgg19Front(torch.load(path, weights_only=True, map_location="cpu")))
        if kind == "torchscript":
            return FeatureDistance(torch.jit.load(path, map_location="cpu"))  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError, KeyError, OSError, EOFError, BadZipFile, UnpicklingError) as error:
        raise InvalidParameter(f"perceptual distance {name!r}: {error}") from error
    raise InvalidParameter(f"no perceptual distance {kind!r}; there are lpips, squeezenet, vgg19 and torchscript")


def _unit(x: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    return x / (norm + _EPSILON)
