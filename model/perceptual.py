"""Perceptual distances d(a, b) of Eq. 9: LPIPS where its backbone is installed, else distances of features at hand."""

from __future__ import annotations

import re
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

    def __init__(self, *networks: Callable[[Tensor], list[Tensor]]) -> None:
        super().__init__()
        self.networks = networks
        for number, network in enumerate(networks):
            if isinstance(network, nn.Module):
                self.add_module(str(number), network.eval())
                for parameter in network.parameters():  # one by one: scripted modules have no requires_grad_
                    parameter.requires_grad_(False)

    def maps(self, x: Tensor) -> list[Tensor]:
        """x [B, 3, H, W] in [-1, 1] -> the maps of all networks [B, C, h, w], each of norm 1 over its channels."""
        return [_unit(u) for network in self.networks for u in network(x)]

    def between(self, a: list[Tensor], b: list[Tensor]) -> Tensor:
        """Maps of two images as `maps` gives them -> distance [B], float32; 0 for equal images."""
        squared = [(u - v).square().sum(1, dtype=torch.float32) for u, v in zip(a, b, strict=True)]
        return torch.stack([s.mean((1, 2)) for s in squared]).sum(0)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """a, b [B, 3, H, W] in [-1, 1] -> distance [B], 0 for equal images."""
        return self.between(self.maps(a), self.maps(b))


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

    Its first layer, 1x1, maps RGB in [0, 1] to the network's input.
    """

    CONVOLUTIONS = (2, 5, 9, 12, 16)
    POOLED = (9, 16)
    KEPT = (5, 12, 16)

    def __init__(self, arrays: dict[str, Tensor]) -> None:
        super().__init__()
        for i in self.CONVOLUTIONS:
            self.register_buffer(f"weight_{i}", arrays[f"{i}.weight"].float())
            self.register_buffer(f"bias_{i}", arrays[f"{i}.bias"].float())
        # The first layer is folded into the second, up to the padding: one convolution, of x in [-1, 1].
        turn, weight = 0.5 * arrays["0.weight"].float()[..., 0, 0], arrays["2.weight"].float()
        self.weight_2: Tensor = torch.einsum("oikl,ij->ojkl", weight, turn)
        self.bias_2: Tensor = self.bias_2 + torch.einsum("oikl,i->o", weight, turn.sum(1) + arrays["0.bias"].float())

    def forward(self, x: Tensor) -> list[Tensor]:
        """x [B, 3, H, W] in [-1, 1] -> feature maps."""
        h = x.contiguous(memory_format=torch.channels_last)
        maps = []
        for i in self.CONVOLUTIONS:
            if i in self.POOLED:
                h = F.max_pool2d(h, 2, 2)
            weight, bias = self.get_buffer(f"weight_{i}"), self.get_buffer(f"bias_{i}")
            h = F.relu(F.conv2d(h, weight, bias, padding=1))
            if i in self.KEPT:
                maps.append(h)
        return maps


class Lpips(FeatureDistance):
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

    def maps(self, x: Tensor) -> list[Tensor]:
        """See `FeatureDistance.maps`; every channel is scaled by the root of its weight."""
        features = self._distance.net(self._distance.scaling_layer(x))
        weights = [layer.model[-1].weight for layer in self._distance.lins]
        return [_unit(u) * weight.sqrt() for u, weight in zip(features, weights, strict=True)]


class ShiftedDistance(nn.Module):
    """A distance of the same random part of both images, so that no phase of strides and poolings is favoured.

    A decoder that is trained against one phase learns grids that this phase does not see.
    """

    def __init__(self, distance: FeatureDistance, most: int = 16) -> None:
        """`most` rows and columns are cut off, some at the top and the left, the others at the far sides."""
        super().__init__()
        self.inner, self.most = distance, most

    @torch.no_grad()
    def channels(self, device: torch.device | None = None) -> tuple[int, ...]:
        """The number of channels of each map; `device` is where the networks are."""
        return tuple(u.shape[1] for u in self.inner.maps(torch.zeros(1, 3, 64, 64, device=device)))

    def part(self, height: int, width: int) -> tuple[slice, slice]:
        """Rows and columns of a part of an image [B, 3, height, width], drawn at random."""
        top, left = torch.randint(0, self.most + 1, (2,)).tolist()
        return slice(top, height - self.most + top), slice(left, width - self.most + left)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """a, b [B, 3, H, W] in [-1, 1] -> distance [B]."""
        rows, columns = self.part(*a.shape[2:])
        distance: Tensor = self.inner(a[..., rows, columns], b[..., rows, columns])
        return distance


def load_distance(name: str) -> FeatureDistance:
    """Return the distance that `name` asks for, see `TrainingConfig.perceptual`; of several joined by +, their sum.

    Raises:
        InvalidParameter: unknown kind, or a backbone that is missing or not what it should be.
    """
    names = re.split(r"\+(?=\w+:)", name)
    if names[0].startswith("lpips:") and len(names) == 1:
        return Lpips(name.partition(":")[2])
    return FeatureDistance(*map(_load_network, names))


def _load_network(name: str) -> Callable[[Tensor], list[Tensor]]:
    kind, _, rest = name.partition(":")
    if kind == "lpips":
        raise InvalidParameter("lpips stands alone: it cannot be joined with other distances")
    if kind not in ("squeezenet", "vgg19", "torchscript"):
        raise InvalidParameter(f"no perceptual distance {kind!r}; there are lpips, squeezenet, vgg19 and torchscript")
    path = Path(rest)
    if not path.is_file():
        raise InvalidParameter(f"perceptual distance {name!r}: there is no file {rest!r}")
    try:
        if kind == "squeezenet":
            with np.load(path) as arrays:
                return SqueezeNetFeatures({k: torch.from_numpy(arrays[k]) for k in arrays.files})
        if kind == "vgg19":
            return Vgg19Front(torch.load(path, weights_only=True, map_location="cpu"))
        network: nn.Module = torch.jit.load(path, map_location="cpu")  # type: ignore[no-untyped-call]
        return network
    except (RuntimeError, ValueError, KeyError, OSError, EOFError, BadZipFile, UnpicklingError) as error:
        raise InvalidParameter(f"perceptual distance {name!r}: {error}") from error


def _unit(x: Tensor) -> Tensor:
    power = x.square().sum(dim=1, keepdim=True, dtype=torch.float32)
    return x * (power + _EPSILON**2).rsqrt().to(x.dtype)
