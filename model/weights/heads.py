"""The file beside a weights file with the linear layers that decode at 1/2 and 1/4 of the size.

They follow the synthesis transform alone: neither the codec id nor any file depends on them, and they are fitted again
(`cdc weights heads`) when the transform changes. Weights without such a file decode at full size.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from model.networks.family import Family

SUFFIX = ".heads"
FORMAT = "cdc-heads/1"
log = logging.getLogger(__name__)


def heads_path(weights: Path) -> Path:
    """Where the layers of a weights file lie."""
    return weights.with_suffix(SUFFIX)


def save_heads(weights: Path, networks: Family, tensors: Mapping[str, Tensor]) -> Path:
    """Write layers fitted to these networks beside their weights file, in fp16; returns the path."""
    path = heads_path(weights)
    stored = {name: tensor.to(torch.float16).contiguous() for name, tensor in tensors.items()}
    save_file(stored, path, metadata={"format": FORMAT, "synthesis": synthesis_digest(networks)})
    return path


def load_heads(weights: Path, networks: Family) -> None:
    """Install the layers that lie beside a weights file; a file that does not fit is passed over, with a warning."""
    path = heads_path(weights)
    if not path.is_file():
        return
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118 - not a dict
        if metadata.get("format") != FORMAT or metadata.get("synthesis") != synthesis_digest(networks):
            raise ValueError("it was fitted to another synthesis transform")
        networks.add_heads(tensors)
    except (OSError, SafetensorError, ValueError) as error:
        log.warning("%s is not used, decodes run at full size: %s", path.name, error)


def synthesis_digest(networks: Family) -> str:
    """SHA-256 over the float32 tensors of g_s, hexadecimal."""
    digest = hashlib.sha256()
    for name, tensor in sorted(networks.state_dict().items()):
        if name.startswith("g_s.") and not name.startswith("g_s.heads."):
            digest.update(f"{name} {list(tensor.shape)}".encode())
            digest.update(tensor.float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
