"""Checkpoints as the paper's authors published them: choose the weights, translate their names, split hoisted parts.

A file is a pickle of tensors: {step, model} of cdc-eps, {step, model, ema} of cdc-x, whose exponential moving average
(`ema_model.*`) is what the paper evaluates. Schedule buffers (`train_*`) and the LPIPS network (`loss_fn_vgg.*`) are no
part of the codec and are left out.
"""

from __future__ import annotations

import hashlib
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from model.errors import WeightsError
from model.weights.files import WeightsInfo, export_weights

Variant = Literal["x", "eps"]
IGNORED = ("train_", "loss_fn_vgg.")
EMA = "ema_model."
RULES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), text)
    for pattern, text in (
        # parts of blocks
        (r"\.block([12])\.block\.0\.", r".conv\1."),
        (r"\.block([12])\.block\.1\.g$", r".norm\1.gain"),
        (r"\.block([12])\.block\.1\.b$", r".norm\1.bias"),
        (r"\.mlp\.1\.", ".modulation."),
        (r"\.res_conv\.", ".shortcut."),
        (r"\.fn\.fn\.to_qkv\.weight$", ".qkv"),
        (r"\.fn\.fn\.to_out\.", ".out."),
        (r"\.fn\.norm\.g$", ".norm.gain"),
        (r"\.fn\.norm\.b$", ".norm.bias"),
        # the U-Net
        (r"^denoise_fn\.time_mlp\.", "denoiser.embed."),
        (r"^denoise_fn\.(down|up)s\.(\d)\.0\.", r"denoiser.\1.\2.first."),
        (r"^denoise_fn\.(down|up)s\.(\d)\.1\.", r"denoiser.\1.\2.second."),
        (r"^denoise_fn\.(down|up)s\.(\d)\.2\.", r"denoiser.\1.\2.attention."),
        (r"^denoise_fn\.(down|up)s\.(\d)\.3\.conv\.", r"denoiser.\1.\2.resample."),
        (r"^denoise_fn\.mid_block1\.", "denoiser.middle_first."),
        (r"^denoise_fn\.mid_block2\.", "denoiser.middle_second."),
        (r"^denoise_fn\.mid_attn\.", "denoiser.middle_attention."),
        (r"^denoise_fn\.final_conv\.0\.g$", "denoiser.norm.gain"),
        (r"^denoise_fn\.final_conv\.0\.b$", "denoiser.norm.bias"),
        (r"^denoise_fn\.final_conv\.1\.", "denoiser.head."),
        # encoder and conditioner; cdc-eps counts a layer without weights between block and resampling
        (r"^context_fn\.enc\.(\d)\.0\.", r"encoder.stages.\1."),
        (r"^context_fn\.enc\.(\d)\.[12]\.conv\.", r"encoder.down.\1."),
        (r"^context_fn\.dec\.(\d)\.0\.", r"conditioner.stages.\1."),
        (r"^context_fn\.dec\.(\d)\.[12]\.conv\.", r"conditioner.up.\1."),
        # hyperprior; the LeakyReLUs between its layers have no weights
        (r"^context_fn\.hyper_(enc|dec)\.0\.0\.", r"hyper_\1oder.0."),
        (r"^context_fn\.hyper_(enc|dec)\.1\.0\.", r"hyper_\1oder.2."),
        (r"^context_fn\.hyper_(enc|dec)\.2\.0\.", r"hyper_\1oder.4."),
        (r"^context_fn\.prior\.affine\.(\d)\.weight$", r"hyper_prior.matrices.\1"),
        (r"^context_fn\.prior\.affine\.(\d)\.bias$", r"hyper_prior.biases.\1"),
        (r"^context_fn\.prior\.a\.(\d)$", r"hyper_prior.factors.\1"),
        (r"^context_fn\.prior\._medians$", "hyper_prior.quantiles"),
    )
)
HOISTED = re.compile(r"^denoiser\.down\.[0-3]\.first\.(conv1|shortcut)\.(weight|bias)$")
DOWN: dict[Variant, str] = {"x": "context_fn.enc.0.1.conv.weight", "eps": "context_fn.enc.0.2.conv.weight"}
TAILS = 10.0  # the published prior has medians alone; its tails are not used


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Read the weights to use from a published checkpoint, under their published names.

    Raises:
        WeightsError: not a checkpoint, or one that holds more than tensors.
    """
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # torch's own text advises to load it unsafely
        raise WeightsError(f"{path.name}: not a checkpoint of plain tensors") from error
    except (OSError, RuntimeError, ValueError, EOFError, KeyError) as error:
        raise WeightsError(f"{path.name}: not a checkpoint of plain tensors ({_first_line(error)})") from error
    part = loaded.get("ema", loaded.get("model")) if isinstance(loaded, dict) else None
    if not isinstance(part, dict):
        raise WeightsError(f"{path.name}: a published checkpoint holds `model`, and `ema` for cdc-x; this one does not")
    if "ema" in loaded:
        part = {k.removeprefix(EMA): v for k, v in part.items() if isinstance(k, str) and k.startswith(EMA)}
    tensors = {k: v for k, v in part.items() if isinstance(k, str) and not k.startswith(IGNORED)}
    bad = [k for k, v in tensors.items() if not isinstance(v, Tensor) or not v.is_floating_point()]
    if bad or not tensors:
        raise WeightsError(f"{path.name}: {bad[0]} is not a float tensor" if bad else f"{path.name}: holds no weights")
    return tensors


def translate(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors by our names and shapes from those by published ones.

    Raises:
        WeightsError: an unknown name or a shape that cannot be.
    """
    named = {_rename(name): tensor for name, tensor in published.items()}
    out: dict[str, Tensor] = {}
    for name, tensor in named.items():
        try:
            out |= _split(name, tensor, named) if HOISTED.match(name) else {name: _reshape(name, tensor)}
        except (RuntimeError, IndexError, KeyError) as error:
            raise WeightsError(f"{name}: shape {list(tensor.shape)} does not fit ({_first_line(error)})") from error
    return out


def variant_of(tensors: Mapping[str, Tensor]) -> Variant:
    """Tell cdc-x from cdc-eps by published names: those of cdc-eps count a layer without weights before resampling."""
    found = {kind for kind, name in DOWN.items() if name in tensors}
    if len(found) != 1:
        raise WeightsError("these are not the networks of cdc-x or cdc-eps")
    return found.pop()


def import_checkpoint(
    source: Path,
    out: Path,
    *,
    variant: Variant | None = None,
    rho: float | None = None,
    name: str | None = None,
    version: int = 0,
    origin: str | None = None,
    sha256: str | None = None,
    exact: bool = False,
) -> WeightsInfo:
    """Write the weights file of a published checkpoint.

    Args:
        source: the checkpoint.
        out: the weights file.
        variant: what it must be; None takes what its shapes say.
        rho: weight of LPIPS in its training, recorded in the provenance.
        name: of the model; "cdc-x" or "cdc-eps" if None.
        version: of the weights.
        origin: where it came from, for the provenance; the file's name if None.
        sha256: of the checkpoint in hexadecimal, if it is known already.
        exact: add float means to symbols, so that files hold the authors' own symbols and give their images.

    Raises:
        WeightsError: not such a checkpoint, or not of that variant.
    """
    published = read_checkpoint(source)
    try:
        tensors, found = translate(published), variant_of(published)
    except WeightsError as error:
        raise WeightsError(f"{source.name}: {error}") from error
    if variant is not None and variant != found:
        raise WeightsError(f"{source.name}: its shapes are those of cdc-{found}, not cdc-{variant}")
    architecture = f"cdc-{found}"
    stated = "" if rho is None else f", rho {rho:g}"
    provenance = (
        f"published checkpoint of {architecture}{stated}, {origin or source.name}, sha256 {sha256 or sha256_of(source)}"
    )
    return export_weights(
        tensors,
        out,
        name=name or architecture,
        version=version,
        provenance=provenance,
        architecture=architecture,
        exact=exact,
    )


def sha256_of(path: Path) -> str:
    """SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _rename(name: str) -> str:
    new = name
    for pattern, text in RULES:
        new = pattern.sub(text, new)
    if new.startswith(("denoise_fn.", "context_fn.")) or new == name:
        raise WeightsError(f"{name}: no tensor of the published networks has this name")
    return new


def _split(name: str, tensor: Tensor, named: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Cut a convolution over [x, context] in two; the bias goes with the context's share, which is computed once."""
    parent, part = name.rsplit(".", 2)[0], name.rsplit(".", 2)[1]
    context = f"{parent}.context_{part}"
    if name.endswith("bias"):
        return {f"{context}.bias": tensor}
    level = int(parent.split(".")[2])
    own = 3 if level == 0 else named[f"denoiser.down.{level - 1}.second.conv2.weight"].shape[0]
    return {name: tensor[:, :own], f"{context}.weight": tensor[:, own:]}


def _reshape(name: str, tensor: Tensor) -> Tensor:
    """Bring the odd shapes of the published tensors into ours."""
    if name.endswith((".gain", "norm.bias", "norm1.bias", "norm2.bias")):
        return tensor.flatten()
    if name.endswith(".qkv"):
        return tensor.view(3, -1, tensor.shape[1])
    if name.endswith(".out.weight"):
        return tensor.flatten(1)
    if name.startswith("hyper_prior.matrices"):  # [C, 1, 1, in, out]
        return tensor[:, 0, 0].transpose(1, 2)
    if name.startswith("hyper_prior.quantiles"):
        medians = tensor.flatten()
        return torch.stack([medians - TAILS, medians, medians + TAILS], dim=1)[:, None]
    if name.startswith("hyper_prior."):  # [C, 1, 1, 1, out]
        return tensor.flatten(1)[:, :, None]
    return tensor


def _first_line(error: Any) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
