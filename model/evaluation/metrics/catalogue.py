"""The paper's sixteen metrics by name, which of them can be computed here, and feature distances beside them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from model import distortion as metrics
from model.errors import InvalidParameter

if TYPE_CHECKING:
    from torch import Tensor

    from model.types import Pixels

Function = Callable[["Pixels", "Pixels"], float]
CAP_DB = 100.0  # PSNR of equal images, so that means stay finite


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        name, label: as typed and stored, as printed.
        better: whether higher or lower values are better.
        package: distribution that computes it; "" for what this project computes itself.
        weights: file names in torch's hub cache (`hub/checkpoints`), all needed; globs.
        load: returns the function (reference, image) -> value on uint8 [H, W, 3]; None where there is none.
        lacking: why there is none.
        file: weights given on the command line.
        whole_set: computed over all images of a data set at once instead of on each (FID).
        revision: of what this project computes itself; counted up where values change, so that none is reused.
    """

    name: str
    label: str
    better: Literal["higher", "lower"]
    package: str = ""
    weights: tuple[str, ...] = ()
    load: Callable[[], Function] | None = None
    lacking: str = ""
    whole_set: bool = False
    file: Path | None = None
    revision: int = 1

    @property
    def missing(self) -> str | None:
        """Why it cannot be computed here, None if it can. Nothing is ever fetched."""
        if self.lacking:
            return self.lacking
        if self.package and find_spec(_MODULES.get(self.package, self.package.replace("-", "_"))) is None:
            return f"needs the package {self.package} (extra `evaluate`)"
        gone = [w for w in self.weights if not any(checkpoints().glob(w))]
        return f"weights not in {checkpoints()}: {', '.join(gone)}" if gone else None


_MODULES = {"pytorch-msssim": "pytorch_msssim", "torch-fidelity": "torch_fidelity"}


def checkpoints() -> Path:
    """The folder of torch's hub cache in which weights are looked for."""
    import torch

    return Path(torch.hub.get_dir()) / "checkpoints"


def tensor_of(pixels: Pixels) -> Tensor:
    """Uint8 [H, W, 3] -> float32 [1, 3, H, W] in [0, 1]."""
    import torch

    return torch.from_numpy(np.array(pixels)).permute(2, 0, 1)[None].float() / 255


def _of_tensors(compute: Callable[[Tensor, Tensor], Any]) -> Function:
    """Wrap a function of (image, reference) in [0, 1]."""
    import torch

    def function(reference: Pixels, picture: Pixels) -> float:
        with torch.inference_mode():
            return float(compute(tensor_of(picture), tensor_of(reference)))

    return function


def _psnr() -> Function:
    return lambda reference, picture: min(metrics.psnr(reference, picture), CAP_DB)


def _ms_ssim() -> Function:
    return metrics.ms_ssim


def _ssim() -> Function:
    from pytorch_msssim import ssim

    return _of_tensors(lambda a, b: ssim(a, b, data_range=1.0))


def _of_luma(name: str) -> Function:
    """A function of pytorch-msssim on BT.601 luma, 0..255."""
    import pytorch_msssim
    import torch

    from model.evaluation.metrics.grey import luma

    compute = getattr(pytorch_msssim, name)

    def function(reference: Pixels, picture: Pixels) -> float:
        a, b = (torch.from_numpy(luma(p))[None, None].float() for p in (picture, reference))
        with torch.inference_mode():
            return float(compute(a, b, data_range=255.0))

    return function


def _piq(name: str) -> Callable[[], Function]:
    def load() -> Function:
        import piq

        return _of_tensors(getattr(piq, name))

    return load


def _piq_network(name: str) -> Callable[[], Function]:
    def load() -> Function:
        import piq

        return _of_tensors(getattr(piq, name)(reduction="mean"))

    return load


def _lpips(net: str) -> Callable[[], Function]:
    def load() -> Function:
        from model.perceptual import Lpips

        distance = Lpips(net)
        return _of_tensors(lambda a, b: distance(2 * a - 1, 2 * b - 1))

    return load


def _own(module: str, name: str) -> Callable[[], Function]:
    def load() -> Function:
        from importlib import import_module

        function: Function = getattr(import_module(f"model.evaluation.metrics.{module}"), name)
        return function

    return load


_WITHOUT_REFERENCE = "no permissively licensed implementation with weights"
PAPER: tuple[Metric, ...] = (
    Metric("fid", "FID", "lower", "torch-fidelity", ("weights-inception-2015-12-05-6726825d.pth",), whole_set=True),
    Metric("lpips", "LPIPS (AlexNet)", "lower", "lpips", ("alexnet-*.pth",), _lpips("alex")),
    Metric("dists", "DISTS", "lower", "piq", ("vgg16-397923af.pth", "dists_weights*.pt"), _piq_network("DISTS")),
    Metric("pieapp", "PieAPP", "lower", "piq", ("PieAPPv0.1*.pth",), _piq_network("PieAPP")),
    Metric("ckdn", "CKDN", "higher", lacking=_WITHOUT_REFERENCE),
    Metric("musiq", "MUSIQ", "higher", lacking=_WITHOUT_REFERENCE),
    Metric("dbcnn", "DBCNN", "higher", lacking=_WITHOUT_REFERENCE),
    Metric("fsim", "FSIM", "higher", "piq", load=_piq("fsim")),
    Metric("ssim", "SSIM", "higher", "pytorch-msssim", load=_ssim),
    Metric("ms-ssim", "MS-SSIM", "higher", "pytorch-msssim", load=_ms_ssim),
    Metric("cw-ssim", "CW-SSIM", "higher", load=_own("steerable", "cw_ssim"), revision=2),
    Metric("gmsd", "GMSD", "lower", "piq", load=_piq("gmsd")),
    Metric("nlpd", "NLPD", "lower", load=_own("nlpd", "nlpd")),
    Metric("vsi", "VSI", "higher", "piq", load=_piq("vsi")),
    Metric("mad", "MAD", "lower", load=_own("mad", "mad"), revision=2),
    Metric("psnr", "PSNR (dB)", "higher", load=_psnr),
)
FURTHER: tuple[Metric, ...] = (  # other conventions of some; `all` leaves them out
    Metric("ssim-y", "SSIM of luma", "higher", "pytorch-msssim", load=lambda: _of_luma("ssim")),
    Metric("ms-ssim-y", "MS-SSIM of luma", "higher", "pytorch-msssim", load=lambda: _of_luma("ms_ssim")),
    Metric("fine-energy", "fine energy / original's", "higher", load=_own("texture", "fine_energy_share")),
    Metric("lpips-vgg", "LPIPS (VGG-16)", "lower", "lpips", ("vgg16-*.pth",), _lpips("vgg")),
    Metric("cw-ssim-4x8", "CW-SSIM, 4 scales of 8", "higher", load=_own("steerable", "cw_ssim_4x8")),
)
BACKBONES = {"squeezenet": "SqueezeNet", "vgg19": "VGG-19", "torchscript": "TorchScript"}
DEFAULT = ("psnr", "ms-ssim")


def metric_of(name: str) -> Metric:
    """Look a metric up: one of the sixteen or of the further ones, `squeezenet:FILE`, `vgg19:FILE`, `torchscript:FILE`.

    Raises:
        InvalidParameter: no such metric.
    """
    for metric in (*PAPER, *FURTHER):
        if metric.name == name:
            return metric
    kind, _, file = name.partition(":")
    if kind in BACKBONES and file:
        label = f"{BACKBONES[kind]} feature distance"
        lacking = "" if Path(file).is_file() else f"there is no file {file}"

        def load() -> Function:
            from model.perceptual import load_distance

            distance = load_distance(name)
            return _of_tensors(lambda a, b: distance(2 * a - 1, 2 * b - 1))

        return Metric(f"{kind}:{Path(file).name}", label, "lower", load=load, lacking=lacking, file=Path(file))
    known = ", ".join(m.name for m in (*PAPER, *FURTHER))
    raise InvalidParameter(f"no metric {name!r}; there are {known}, {', '.join(f'{b}:F' for b in BACKBONES)}")


def choose(names: Iterable[str]) -> list[str]:
    """Resolve "all" to the sixteen, drop repetitions, keep the order; unknown names are refused."""
    chosen: dict[str, None] = {}
    for name in names:
        for single in [m.name for m in PAPER] if name == "all" else [name]:
            metric_of(single)
            chosen[single] = None
    return list(chosen)


def metric_version(metric: Metric) -> str:
    """What besides the images decides a value: distribution and version; measured again where it changes."""
    if metric.file is not None:
        return _digest(metric.file)
    return f"{metric.package} {version(metric.package)}" if metric.package else str(metric.revision)


@cache
def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:12]


def stored_name(metric: Metric) -> str:
    """The name under which the cache keeps a value: the metric and what computed it."""
    return f"{metric.name}@{metric_version(metric)}"


@cache
def function_of(name: str) -> Function:
    """Load a metric once a process.

    Raises:
        InvalidParameter: it cannot be computed here; says why.
    """
    metric = metric_of(name)
    if metric.missing or metric.load is None:
        raise InvalidParameter(f"{metric.label}: {metric.missing or 'is computed on whole data sets'}")
    return metric.load()
