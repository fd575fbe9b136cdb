"""`cdc weights export --onnx`: what decoders without torch need of a weights file, in files named by their content.

decoder.json                     names, sizes and hashes of the others, and what a decoder must know beside them
integers-<hash>.safetensors      the integers of the codec id (FORMAT.md)
synthesis-<hash>.onnx            g_s: all that a decode without noise needs
denoiser-<hash>.onnx             a step of the sampler, for gamma > 0
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from safetensors.numpy import save

from model.architecture import architecture_of
from model.config import TILE_SIDES
from model.errors import WeightsError
from model.networks.lite import CDCLite
from model.weights.files import INTEGER_PREFIX, load_weights

MANIFEST = "decoder.json"
FORMAT = "cdc-decoder/1"
HASH_DIGITS = 16  # of the SHA-256 in a file's name
COSINE = {"length": 8193, "shift": 0.008, "floor": 1e-6}  # `model.diffusion.schedule.cosine_schedule`, for "residual"


def export_decoder(source: Path, folder: Path) -> dict[str, Any]:
    """Write the decoder's files of a weights file; return the manifest. What is there under other names stays.

    Raises:
        WeightsError: not a weights file, or of another architecture than cdc-lite.
    """
    from model.weights.decoder_graphs import denoiser_graph, synthesis_graph  # onnx

    weights = load_weights(source)
    networks = weights.networks
    if not isinstance(networks, CDCLite):
        raise WeightsError(f"{source.name}: only cdc-lite has a decoder for browsers, not {weights.info.architecture}")
    kind = architecture_of(weights.info.architecture)
    integers = {INTEGER_PREFIX + name: array for name, array in weights.entropy.to_tensors().items()}
    parts = {
        "integers": (save(integers), "safetensors"),
        "synthesis": (synthesis_graph(networks), "onnx"),
        "denoiser": (denoiser_graph(networks), "onnx"),
    }
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for name, (data, ending) in parts.items():
        digest = hashlib.sha256(data).hexdigest()
        files[name] = {"file": f"{name}-{digest[:HASH_DIGITS]}.{ending}", "bytes": len(data), "sha256": digest}
        (folder / str(files[name]["file"])).write_bytes(data)
    manifest = {
        "format": FORMAT,
        "name": weights.info.name,
        "version": weights.info.version,
        "codec_id": weights.info.codec_id,
        "files": files,
        "sides": list(TILE_SIDES),
        "tile": kind.tiling.tile,
        "margin": kind.tiling.margin,
        "default_steps": kind.default_steps,
        "default_gamma": kind.default_gamma,
        "schedule": COSINE,
        "log_residual": [float(v) for v in networks.log_residual.flatten()],
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
    return manifest
