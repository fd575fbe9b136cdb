"""Weights files: safetensors with the networks, the integer half of the codec, and where they come from."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from model.architecture import architecture_of
from model.entropy.entropy_model import EntropyModel
from model.entropy.export import export_entropy_model, float_layers
from model.entropy.likelihood import FactorizedPrior
from model.errors import WeightsError
from model.networks.family import Family, interpolate_levels
from model.weights.heads import load_heads
from model.weights.int8 import as_int8

INTEGER_PREFIX = "entropy."
PRIOR_PREFIX = "hyper_prior."
FORMAT = "cdc-weights/1"
# Of cdc-lite's denoiser. The decoder's graphs store these in int8; rounded here, they are the same everywhere.
ROUNDED = re.compile(r"denoiser\.(blocks\.\d+\.(before|after|expand|contract)|time\.2)\.weight")


@dataclass(frozen=True)
class WeightsInfo:
    """Metadata of a weights file.

    Attributes:
        name: name of the model, as in `model=`.
        version: of these weights; among models with one codec id the highest decodes.
        architecture: a name that `model.architecture` knows.
        codec_id: 16 hexadecimal digits.
        provenance: how the weights were made, one sentence.
    """

    name: str
    version: int
    architecture: str
    codec_id: str
    provenance: str


@dataclass(frozen=True)
class Weights:
    """A loaded weights file."""

    info: WeightsInfo
    networks: Family
    prior: FactorizedPrior
    entropy: EntropyModel


def read_info(path: Path) -> WeightsInfo:
    """Read the metadata of a weights file without its tensors.

    Raises:
        WeightsError: not a weights file of this format.
    """
    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path.name}: not a readable safetensors file ({error})") from error
    if metadata.get("format") != FORMAT:
        raise WeightsError(f"{path.name}: not a {FORMAT} file; make one with `cdc weights export`")
    try:
        info = json.loads(metadata["info"])
        return WeightsInfo(**info)
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{path.name}: its metadata is incomplete ({error})") from error


def load_weights(path: Path) -> Weights:
    """Load a weights file and check that its integers are those its codec id names.

    Raises:
        WeightsError: unreadable, incomplete, or the codec id does not match.
    """
    info = read_info(path)
    architecture_of(info.architecture)
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    entropy = integers_of(tensors)
    if entropy.codec_id.hex() != info.codec_id:
        raise WeightsError(
            f"{path.name}: codec id {info.codec_id} expected, its integers give {entropy.codec_id.hex()}"
        )
    networks, prior = build_networks(tensors, path.name, info.architecture)
    load_heads(path, networks)
    return Weights(info, networks, prior, entropy)


def integers_of(tensors: Mapping[str, Tensor]) -> EntropyModel:
    """The integer half among the tensors of a weights file. Raises WeightsError."""
    own = {k.removeprefix(INTEGER_PREFIX): t.numpy() for k, t in tensors.items() if k.startswith(INTEGER_PREFIX)}
    return EntropyModel.from_tensors(own)


def with_floats(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The float tensors of a model of many rates: those given, and those that a weights file keeps as integers alone.

    Raises:
        WeightsError: the integers are incomplete.
    """
    floats = {k: t for k, t in tensors.items() if not k.startswith(INTEGER_PREFIX)}
    return floats if len(floats) == len(tensors) else float_layers(integers_of(tensors)) | floats


def build_networks(
    tensors: Mapping[str, Tensor], origin: str, architecture: str = "cdc-lite"
) -> tuple[Family, FactorizedPrior]:
    """Fill the networks of a family and their prior from float tensors.

    Weights files of models of many rates hold hyper-decoder and context as integers alone: where their float tensors
    lack, the integers give them.

    Raises:
        WeightsError: a tensor is missing, unknown or of the wrong shape.
    """
    kind = architecture_of(architecture)
    given = tensors if kind.fixed_rate else with_floats(tensors)
    floats = {k: t.float() for k, t in given.items() if not k.startswith(INTEGER_PREFIX)}
    networks = kind.networks(floats)
    prior = FactorizedPrior(int(networks.hyper_encoder[-1].out_channels), kind.filters)  # type: ignore[arg-type]
    own = {k: t for k, t in floats.items() if not k.startswith(PRIOR_PREFIX)}
    prior_own = {k.removeprefix(PRIOR_PREFIX): t for k, t in floats.items() if k.startswith(PRIOR_PREFIX)}
    try:
        networks.load_state_dict(own, assign=any(t.is_meta for t in networks.parameters()))
        prior.load_state_dict(prior_own)
    except RuntimeError as error:
        raise WeightsError(f"{origin}: {str(error).splitlines()[-1].strip()}") from error
    return networks.eval().requires_grad_(False), prior.eval().requires_grad_(False)


def log_gain_by_rate(networks: Family) -> Tensor:
    """g(q) at each rate byte, float64 [256, M]."""
    q = torch.arange(256, dtype=torch.float64) / 255
    return interpolate_levels(networks.log_gain.detach().double(), q)


def entropy_model_of(
    networks: Family, prior: FactorizedPrior, architecture: str = "cdc-lite", *, float_means: bool = False
) -> EntropyModel:
    """Make the integer half of networks and prior; `float_means` is of the paper's. Raises WeightsError."""
    kind = architecture_of(architecture)
    log_gain = None if kind.fixed_rate else log_gain_by_rate(networks)
    context = networks.context.layers() if networks.context is not None else None
    return export_entropy_model(prior, networks.hyper_decoder, log_gain, context, kind.silent, float_means=float_means)


def export_weights(
    tensors: Mapping[str, Tensor],
    out: Path,
    *,
    name: str,
    version: int,
    provenance: str,
    architecture: str = "cdc-lite",
    exact: bool = False,
) -> WeightsInfo:
    """Write a weights file from float tensors: convolutions in fp16, all else in fp32, integers made from both.

    The integers are made from the values that are stored, so `load_weights` and a later export agree. The paper's
    networks are kept in fp32: they are to give the published numbers. With `exact` symbols
    are relative to float means, as in the paper's code; the codec id says so.

    Raises:
        WeightsError: `exact` of a model of many rates, tensors missing, or a bound of the integer path does not hold.
    """
    fixed_rate = architecture_of(architecture).fixed_rate
    if exact and not fixed_rate:
        raise WeightsError(f"{out.name}: exact means are of cdc-x and cdc-eps, not of {architecture}")
    given = tensors if fixed_rate else with_floats(tensors)
    floats = {k: _stored(k, t, exact=fixed_rate) for k, t in given.items() if not k.startswith(INTEGER_PREFIX)}
    if not all(bool(t.isfinite().all()) for t in floats.values()):
        raise WeightsError(f"{out.name}: some weights are infinite or not a number")
    networks, prior = build_networks(floats, out.name, architecture)
    entropy = entropy_model_of(networks, prior, architecture, float_means=exact)
    if not fixed_rate:
        kept_as_integers = float_layers(entropy).keys()
        floats = {k: t for k, t in floats.items() if k not in kept_as_integers}
    info = WeightsInfo(name, version, architecture, entropy.codec_id.hex(), provenance)
    integers = {INTEGER_PREFIX + k: _tensor(v) for k, v in entropy.to_tensors().items()}
    part = out.with_name(f"{out.name}.part")  # `out` may be what the tensors were read from: it is whole at any time
    part.write_bytes(save(floats | integers, metadata={"format": FORMAT, "info": json.dumps(asdict(info))}))
    part.replace(out)
    return info


def _stored(name: str, tensor: Tensor, *, exact: bool) -> Tensor:
    if not exact and ROUNDED.fullmatch(name):
        values, scale = as_int8(tensor)
        tensor = values * scale
    exact = exact or name.startswith((PRIOR_PREFIX, "lambdas")) or name.rpartition(".")[2].startswith("log_")
    return tensor.detach().cpu().to(torch.float32 if exact else torch.float16).contiguous()


def _tensor(array: np.ndarray[Any, Any]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))
